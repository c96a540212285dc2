// The fused block beside oneDNN's transposed convolution on the CPU, in one process and in turns:
// the convolution alone in plain NCHW, in NHWC and in the blocked layouts that oneDNN itself
// prefers (conversions not counted), with the pointwise chain as its own post-ops, and the two
// backward primitives.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <dnnl.hpp>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <thread>
#include <unordered_map>

#include "problem.h"
#include "tenon/core/autograd.h"
#include "tenon/core/parallel.h"

namespace {

using namespace tenon;
using dnnl::memory;
using Tag = memory::format_tag;

constexpr int kRounds = 11;

/// Something to time. A primitive's name ends in its layout.
struct Candidate {
  std::string name;
  std::function<void()> run;
  std::vector<double> milliseconds{};

  double median() const {
    std::vector<double> sorted = milliseconds;
    std::sort(sorted.begin(), sorted.end());
    return sorted[sorted.size() / 2];
  }
  double least() const { return *std::min_element(milliseconds.begin(), milliseconds.end()); }
};

/// All candidates in turns. Between two the machine idles until their threads have stopped waiting
/// for work.
void time_in_turns(std::vector<Candidate>& candidates) {
  using Clock = std::chrono::steady_clock;
  constexpr int kWarmUp = 64;  // until ours has packed the weights of each of its sets of inputs
  for (int call = 0; call < kWarmUp; ++call) candidates[0].run();
  for (int round = 0; round < kRounds; ++round) {
    for (Candidate& candidate : candidates) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      candidate.run();
      const auto start = Clock::now();
      candidate.run();
      candidate.milliseconds.push_back(
          std::chrono::duration<double, std::milli>(Clock::now() - start).count());
    }
  }
}

/// oneDNN's primitives for one shape.
class Peer {
 public:
  explicit Peer(const bench::Problem& problem)
      : shape_(problem.shape()),
        epilogue_(problem.epilogue()),
        engine_(dnnl::engine::kind::cpu, 0),
        stream_(engine_),
        stride_{shape_.stride, shape_.stride},
        padding_{shape_.padding, shape_.padding},
        end_padding_{shape_.padding - shape_.output_padding,
                     shape_.padding - shape_.output_padding} {}

  /// Null where oneDNN has no implementation.
  std::function<void()> forward(Tag tag, bool chain) {
    dnnl::primitive_attr attributes;
    if (chain) {
      const auto add = [&](dnnl::post_ops& ops, dnnl::algorithm kind, double alpha, double beta) {
        ops.append_eltwise(1, kind, static_cast<float>(alpha), static_cast<float>(beta));
      };
      dnnl::post_ops ops;
      add(ops, dnnl::algorithm::eltwise_mish, 0, 0);
      add(ops, dnnl::algorithm::eltwise_linear, 1, epilogue_.add);
      add(ops, dnnl::algorithm::eltwise_clip, epilogue_.min, epilogue_.max);
      add(ops, dnnl::algorithm::eltwise_linear, epilogue_.scale, 0);
      attributes.set_post_ops(ops);
    }
    const dnnl::deconvolution_forward::primitive_desc description(forward_desc(tag), attributes,
                                                                  engine_);
    return bound(dnnl::deconvolution_forward(description),
                 {{DNNL_ARG_SRC, description.src_desc()},
                  {DNNL_ARG_WEIGHTS, description.weights_desc()},
                  {DNNL_ARG_BIAS, description.bias_desc()},
                  {DNNL_ARG_DST, description.dst_desc()}});
  }

  std::function<void()> backward_data(Tag tag) {
    const dnnl::deconvolution_forward::primitive_desc hint(forward_desc(tag), engine_);
    const dnnl::deconvolution_backward_data::primitive_desc description(
        {kDirect, x(tag), weights(), z(tag), stride_, padding_, end_padding_}, engine_, hint);
    return bound(dnnl::deconvolution_backward_data(description),
                 {{DNNL_ARG_DIFF_SRC, description.diff_src_desc()},
                  {DNNL_ARG_WEIGHTS, description.weights_desc()},
                  {DNNL_ARG_DIFF_DST, description.diff_dst_desc()}});
  }

  std::function<void()> backward_weights(Tag tag) {
    const dnnl::deconvolution_forward::primitive_desc hint(forward_desc(tag), engine_);
    const dnnl::deconvolution_backward_weights::primitive_desc description(
        {kDirect, x(tag), weights(), bias(), z(tag), stride_, padding_, end_padding_}, engine_,
        hint);
    return bound(dnnl::deconvolution_backward_weights(description),
                 {{DNNL_ARG_SRC, description.src_desc()},
                  {DNNL_ARG_DIFF_WEIGHTS, description.diff_weights_desc()},
                  {DNNL_ARG_DIFF_BIAS, description.diff_bias_desc()},
                  {DNNL_ARG_DIFF_DST, description.diff_dst_desc()}});
  }

 private:
  static constexpr auto kFloat = memory::data_type::f32;
  static constexpr auto kDirect = dnnl::algorithm::deconvolution_direct;

  static memory::desc description(const Shape& shape, Tag tag) {
    return {memory::dims(shape.begin(), shape.end()), kFloat, tag};
  }
  memory::desc x(Tag tag) const { return description(shape_.x(), tag); }
  memory::desc z(Tag tag) const { return description(shape_.z(), tag); }
  memory::desc bias() const { return description({shape_.out_channels}, Tag::x); }
  memory::desc weights() const {
    return description({shape_.out_channels, shape_.in_channels, shape_.kernel, shape_.kernel},
                       Tag::any);
  }
  dnnl::deconvolution_forward::desc forward_desc(Tag tag) const {
    return {dnnl::prop_kind::forward_training,
            kDirect,
            x(tag),
            weights(),
            bias(),
            z(tag),
            stride_,
            padding_,
            end_padding_};
  }

  /// A call of `primitive` with operands of its own, filled with small numbers.
  std::function<void()> bound(dnnl::primitive primitive,
                              const std::vector<std::pair<int, memory::desc>>& operands) {
    std::unordered_map<int, memory> arguments;
    for (const auto& [index, operand] : operands) {
      memory values(operand, engine_);
      float* data = static_cast<float*>(values.get_data_handle());
      for (std::size_t i = 0; i < operand.get_size() / sizeof(float); ++i) {
        data[i] = static_cast<float>(i % 13) * 0.1f - 0.6f;
      }
      arguments.emplace(index, std::move(values));
    }
    return [this, primitive, arguments]() mutable {
      primitive.execute(stream_, arguments);
      stream_.wait();
    };
  }

  bench::BlockShape shape_;
  ops::Epilogue epilogue_;
  dnnl::engine engine_;
  dnnl::stream stream_;
  memory::dims stride_, padding_, end_padding_;
};

std::function<void()> ours(const bench::Problem& problem) {
  return [&problem, call = std::size_t{0}]() mutable {
    const bench::InputSet& set = problem.set(call++);
    const GradModeGuard gradients(problem.train());
    const std::vector<Tensor> z{ops::conv_transpose2d_epilogue(
        set.x, set.weight, set.bias, problem.shape().options(), problem.epilogue())};
    if (problem.train()) {
      const std::vector<Tensor> leaves{set.x, set.weight, set.bias};
      grad(z, leaves, {&set.grad_out, 1});
    }
  };
}

std::vector<Candidate> candidates_of(const bench::Problem& problem, Peer& peer) {
  std::vector<Candidate> list{{"Tenon, whole block", ours(problem)}};
  const auto append = [&](const std::string& name, const auto& make) {
    try {
      list.push_back({name, make()});
    } catch (const dnnl::error&) {  // no implementation for this layout
    }
  };
  for (const auto& [layout, tag] :
       {std::pair{"nchw", Tag::nchw}, {"nhwc", Tag::nhwc}, {"blocked", Tag::any}}) {
    const std::string suffix = std::string(", ") + layout;
    append("forward" + suffix, [&, t = tag] { return peer.forward(t, false); });
    if (problem.train()) {
      append("data gradient" + suffix, [&, t = tag] { return peer.backward_data(t); });
      append("weight gradient" + suffix, [&, t = tag] { return peer.backward_weights(t); });
    } else {
      append("forward + post-ops" + suffix, [&, t = tag] { return peer.forward(t, true); });
    }
  }
  return list;
}

/// The sum over the kinds of primitive of the better of NCHW and NHWC.
double best_sum(const std::vector<Candidate>& list, const std::vector<std::string>& kinds) {
  double sum = 0;
  for (const std::string& kind : kinds) {
    double best = std::numeric_limits<double>::infinity();
    for (const Candidate& candidate : list) {
      if (candidate.name == kind + ", nchw" || candidate.name == kind + ", nhwc") {
        best = std::min(best, candidate.median());
      }
    }
    sum += best;
  }
  return sum;
}

nlohmann::json measure(const std::string& shape, bool train, bool json) {
  const bench::Problem problem(bench::parse_shape(shape), bench::parse_precision("float32"),
                               Device::cpu(), train);
  Peer peer(problem);
  std::vector<Candidate> list = candidates_of(problem, peer);
  time_in_turns(list);
  std::vector<std::string> kinds{"forward"};
  if (train) kinds.insert(kinds.end(), {"data gradient", "weight gradient"});
  const double ratio = list[0].median() / best_sum(list, kinds);
  nlohmann::json rows = nlohmann::json::array();
  if (!json) std::printf("%s, %s\n", shape.c_str(), train ? "forward + backward" : "forward");
  for (const Candidate& candidate : list) {
    rows.push_back({{"name", candidate.name},
                    {"milliseconds", candidate.median()},
                    {"least_milliseconds", candidate.least()}});
    if (json) continue;
    std::printf("  %-28s %9.3f ms, least %9.3f\n", candidate.name.c_str(), candidate.median(),
                candidate.least());
  }
  if (!json) {
    std::printf("  Tenon takes %.3f of oneDNN's bare %s, better of nchw and nhwc\n\n", ratio,
                train ? "primitives together" : "convolution");
  }
  return {
      {"shape", shape}, {"mode", train ? "train" : "forward"}, {"rows", rows}, {"ratio", ratio}};
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> shapes{"4,64,128,128,64,3,2,1,1", "16,128,32,32,64,4,2,1,0",
                                  "32,256,8,8,128,4,2,1,0", "4,128,64,64,64,2,2,0,0"};
  std::string mode = "forward";
  bool json = false;
  CLI::App app("The fused block beside oneDNN's transposed convolution, float32, in turns.");
  app.add_option("--shape", shapes, "one or several of what bench_block takes")
      ->capture_default_str();
  app.add_option("--mode", mode, "forward, or train: forward and backward")
      ->check(CLI::IsMember({"forward", "train"}))
      ->capture_default_str();
  app.add_flag("--json", json, "print JSON instead of tables");
  CLI11_PARSE(app, argc, argv);
  try {
    nlohmann::json results = nlohmann::json::array();
    for (const std::string& shape : shapes)
      results.push_back(measure(shape, mode == "train", json));
    if (json) {
      std::cout << nlohmann::json{{"threads", num_threads()}, {"results", results}}.dump(1) << '\n';
    }
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "onednn_peer: " << error.what() << "\n";
    return 1;
  }
}
