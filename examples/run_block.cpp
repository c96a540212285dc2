// Runs the block conv_transpose2d -> mish -> +add -> hardtanh(min, max) -> ·scale on tensors from a
// file, forward and, when the file has a grad_out, backward.
#include <CLI/CLI.hpp>
#include <array>
#include <charconv>
#include <cmath>
#include <iostream>
#include <optional>

#include "tenon/tenon.h"

using namespace tenon;

namespace {

struct Options {
  std::string in;
  std::string out;
  std::string device = "cpu";
  std::string precision;  // empty: that of the file
  bool no_fuse = false;
  bool explain = false;
};

/// The numbers of the block; the defaults are PyTorch's.
struct Block {
  ops::ConvTranspose2dOptions convolution;
  double add = 0.0;
  double min = -1.0;
  double max = 1.0;
  double scale = 1.0;
};

/// The tensors of the block; `bias` and `grad_out` may be undefined.
struct Operands {
  Tensor x;
  Tensor weight;
  Tensor bias;
  Tensor grad_out;
};

template <class Number>
Number parse_number(const std::string& key, std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  TENON_CHECK(error == std::errc() && end == text.data() + text.size(), "metadata ", key, ": \"",
              text, "\" is not a number that fits");
  return value;
}

/// "2" or "2,1".
Pair parse_pair(const std::string& key, const std::string& text) {
  const std::size_t comma = text.find(',');
  if (comma == std::string::npos) return {parse_number<std::int64_t>(key, text)};
  return {parse_number<std::int64_t>(key, std::string_view(text).substr(0, comma)),
          parse_number<std::int64_t>(key, std::string_view(text).substr(comma + 1))};
}

Block parse_block(const nn::Metadata& metadata) {
  Block block;
  for (const auto& entry : metadata) {
    const std::string& key = entry.first;
    const std::string& text = entry.second;
    if (key == "stride") {
      block.convolution.stride = parse_pair(key, text);
    } else if (key == "padding") {
      block.convolution.padding = parse_pair(key, text);
    } else if (key == "output_padding") {
      block.convolution.output_padding = parse_pair(key, text);
    } else if (key == "dilation") {
      block.convolution.dilation = parse_pair(key, text);
    } else if (key == "groups") {
      block.convolution.groups = parse_number<std::int64_t>(key, text);
    } else if (key == "add") {
      block.add = parse_number<double>(key, text);
    } else if (key == "min") {
      block.min = parse_number<double>(key, text);
    } else if (key == "max") {
      block.max = parse_number<double>(key, text);
    } else if (key == "scale") {
      block.scale = parse_number<double>(key, text);
    } else if (key != "format") {  // which PyTorch's own writer adds
      std::cerr << "run_block: note: metadata key \"" << key << "\" has no meaning here\n";
    }
  }
  TENON_CHECK(block.min < block.max, "metadata min ", block.min, " must be below max ", block.max);
  return block;
}

/// The dtype to compute in, or none to take the file's. TF32 is a format of NVIDIA's tensor cores;
/// a CPU computes in full float32.
std::optional<DType> parse_precision(const std::string& precision, Device device) {
  if (precision.empty()) return std::nullopt;
  if (precision != "tf32") return parse_dtype(precision);
  if (device.is_cpu()) std::cerr << "run_block: note: the CPU computes tf32 as float32\n";
  return DType::Float32;
}

Operands take_operands(const nn::TensorMap& tensors, Device device, std::optional<DType> dtype) {
  Operands operands;
  const std::array<std::pair<const char*, Tensor*>, 4> places{{{"x", &operands.x},
                                                               {"weight", &operands.weight},
                                                               {"bias", &operands.bias},
                                                               {"grad_out", &operands.grad_out}}};
  for (const auto& place : places) {
    const auto found = tensors.find(place.first);
    if (found == tensors.end()) continue;
    *place.second = found->second.to(device, dtype.value_or(found->second.dtype()));
  }
  TENON_CHECK(operands.x.defined(), "the file has no tensor \"x\"");
  TENON_CHECK(operands.weight.defined(), "the file has no tensor \"weight\"");
  return operands;
}

/// Forward and, with a grad_out, backward.
nn::TensorMap compute(const graph::CompiledFunction& function, const Operands& operands) {
  std::vector<Tensor> inputs{operands.x, operands.weight};
  if (operands.bias.defined()) inputs.push_back(operands.bias);
  if (!operands.grad_out.defined()) return {{"y", function(inputs)[0]}};

  for (Tensor& input : inputs) input = input.detach().requires_grad_();
  const Tensor y = function(inputs)[0];
  const std::vector<Tensor> gradients = grad({&y, 1}, inputs, {&operands.grad_out, 1});
  nn::TensorMap results{{"y", y.detach()}, {"grad_x", gradients[0]}, {"grad_weight", gradients[1]}};
  if (operands.bias.defined()) results["grad_bias"] = gradients[2];
  return results;
}

void run(const Options& options) {
  const Device device = Device::parse(options.device);
  const nn::SafeTensors file = nn::load_safetensors(options.in);
  const Block block = parse_block(file.metadata);
  const Operands operands =
      take_operands(file.tensors, device, parse_precision(options.precision, device));

  const auto function = graph::compile(
      [&block](std::span<const Tensor> inputs) {
        const Tensor y = ops::conv_transpose2d(
            inputs[0], inputs[1], inputs.size() > 2 ? inputs[2] : Tensor(), block.convolution);
        return ops::hardtanh(ops::mish(y) + block.add, block.min, block.max) * block.scale;
      },
      {.fuse = !options.no_fuse});
  // On a GPU, float32 is computed as such only when it was asked for.
  const Float32PrecisionGuard precision(options.precision == "float32" ? Float32Precision::Float32
                                                                       : Float32Precision::Tf32);
  const nn::TensorMap results = compute(function, operands);
  nn::save_safetensors(options.out, results);
  if (options.explain) {
    std::cout << "as traced:\n"
              << function.graph_before() << "\nas it ran:\n"
              << function.graph_after() << "\n"
              << function.report();
  }
}

Options parse_options(int argc, char** argv) {
  Options options;
  CLI::App app(
      "Runs conv_transpose2d -> mish -> + add -> hardtanh(min, max) -> * scale on tensors of a "
      "safetensors file.");
  app.footer(
      "The file holds x [N, Cin, H, W], weight [Cin, Cout/groups, kH, kW] and, if wanted, bias\n"
      "[Cout] and grad_out (of the result's shape). Its metadata may hold stride, padding,\n"
      "output_padding, dilation (one number or \"a,b\"), groups, add (0), min (-1), max (1) and\n"
      "scale (1). Written are y and, with a grad_out, grad_x, grad_weight and grad_bias.");
  app.add_option("--in", options.in, "safetensors file to read")->required();
  app.add_option("--out", options.out, "safetensors file to write")->required();
  app.add_option("--device", options.device, "cpu or cuda")->capture_default_str();
  app.add_option("--precision", options.precision, "what to compute in (default: as in the file)")
      ->check(CLI::IsMember({"float64", "float32", "tf32", "bfloat16", "float16"}));
  app.add_flag("--no-fuse", options.no_fuse, "run the five ops one after another");
  app.add_flag("--explain", options.explain, "print the graph before and after, and the report");
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& help) {
    std::exit(app.exit(help));
  } catch (const CLI::ParseError& error) {
    std::cerr << "run_block: " << error.what() << "\n";
    std::exit(1);
  }
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse_options(argc, argv);
  try {
    run(options);
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "run_block: " << error.what() << "\n";
    return 1;
  }
}
