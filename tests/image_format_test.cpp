// Convolutions, pooling, batch_norm and the fused block on channels-last images: the format is
// kept, forward and backward, in modules and compiled graphs, and values are those of contiguous
// images.
#include <gtest/gtest.h>

#include <cmath>

#include "tenon/core/autograd.h"
#include "tenon/core/gradcheck.h"
#include "tenon/graph/graph.h"
#include "tenon/nn/nn.h"
#include "tenon/ops/fused/conv_transpose2d_epilogue.h"
#include "tenon/ops/ops.h"
#include "tenon/tests/support/devices.h"
#include "tenon/tests/support/matchers.h"
#include "tenon/tests/support/temporary_directory.h"

namespace tenon {
namespace {

using test::random_leaf;

constexpr auto kContiguous = MemoryFormat::Contiguous;
constexpr auto kChannelsLast = MemoryFormat::ChannelsLast;

using Inputs = std::span<const Tensor>;

/// An op on images; of its inputs those of 4 dimensions are tried in both formats.
struct Case {
  std::string name;
  std::vector<Shape> shapes;
  std::function<Tensor(Inputs)> function;
  bool keeps = true;  // the result of a channels-last first input is channels-last
};

ops::Epilogue whole_epilogue() { return {.add = 0.5, .min = -1, .max = 1, .scale = 2}; }

std::vector<Case> convolutions() {
  const ops::Conv2dOptions strided{.stride = 2, .padding = 1};
  const ops::ConvTranspose2dOptions doubling{.stride = 2, .padding = 1, .output_padding = 1};
  const ops::ConvTranspose2dOptions dilated{.stride = 1, .output_padding = 1, .dilation = 2};
  return {
      {"conv2d",
       {{2, 4, 5, 6}, {3, 4, 3, 3}, {3}},
       [=](Inputs x) { return ops::conv2d(x[0], x[1], x[2], strided); }},
      {"conv2d_groups",
       {{2, 4, 5, 4}, {6, 2, 3, 3}},
       [](Inputs x) { return ops::conv2d(x[0], x[1], {}, {.groups = 2}); }},
      {"conv2d_pointwise",
       {{2, 3, 4, 4}, {5, 3, 1, 1}, {5}},
       [](Inputs x) { return ops::conv2d(x[0], x[1], x[2]); }},
      {"conv2d_one_channel",
       {{2, 1, 4, 5}, {1, 1, 3, 3}},
       [](Inputs x) { return ops::conv2d(x[0], x[1]); }},
      {"conv_transpose2d",
       {{2, 4, 3, 4}, {4, 3, 3, 3}, {3}},
       [=](Inputs x) { return ops::conv_transpose2d(x[0], x[1], x[2], doubling); }},
      {"conv_transpose2d_dilated",
       {{2, 2, 3, 4}, {2, 8, 3, 3}, {8}},
       [=](Inputs x) { return ops::conv_transpose2d(x[0], x[1], x[2], dilated); }},
      {"conv_transpose2d_to_one_channel",
       {{1, 4, 3, 3}, {4, 1, 2, 2}, {1}},
       [](Inputs x) { return ops::conv_transpose2d(x[0], x[1], x[2], {.stride = 2}); }},
      {"conv2d_weight_grad",
       {{2, 4, 5, 6}, {2, 3, 3, 3}},
       [=](Inputs x) { return ops::conv2d_weight_grad(x[0], x[1], 3, strided); }},
      {"epilogue",
       {{2, 4, 3, 4}, {4, 8, 3, 3}, {8}},
       [=](Inputs x) {
         return ops::conv_transpose2d_epilogue(x[0], x[1], x[2], doubling, whole_epilogue());
       }},
      {"epilogue_odd_channels",
       {{2, 4, 3, 4}, {4, 5, 3, 3}, {5}},
       [=](Inputs x) {
         return ops::conv_transpose2d_epilogue(x[0], x[1], x[2], doubling, whole_epilogue());
       }},
      {"epilogue_without_mish",
       {{2, 3, 3, 4}, {3, 3, 2, 2}},
       [=](Inputs x) {
         return ops::conv_transpose2d_epilogue(x[0], x[1], {}, {}, {.mish = false, .scale = 3});
       }},
  };
}

std::vector<Case> others() {
  const auto norm = [](Inputs x) {
    return ops::batch_norm(x[0], {}, {}, x[1], x[2], {.training = true});
  };
  return {
      {"max_pool2d",
       {{2, 3, 6, 5}},
       [](Inputs x) { return ops::max_pool2d(x[0], 3, {.stride = 2, .padding = 1}); }},
      {"max_pool2d_to_one_pixel",
       {{2, 3, 4, 4}},
       [](Inputs x) { return ops::max_pool2d(x[0], 4); }},
      {"avg_pool2d",
       {{2, 3, 6, 5}},
       [](Inputs x) {
         return ops::avg_pool2d(x[0], 3, {.stride = 2, .padding = 1, .count_include_pad = false});
       }},
      {"batch_norm", {{3, 4, 3, 2}, {4}, {4}}, norm},
      {"batch_norm_one_channel", {{3, 1, 3, 2}, {1}, {1}}, norm},
      {"softplus", {{2, 3, 2, 3}}, [](Inputs x) { return ops::softplus(x[0]); }},
      {"mul", {{2, 3, 2, 3}, {2, 3, 2, 3}}, [](Inputs x) { return x[0] * x[1]; }},
      {"add_broadcast", {{2, 3, 2, 3}, {3, 1, 1}}, [](Inputs x) { return x[0] + x[1]; }},
      {"softmax", {{2, 3, 2, 3}}, [](Inputs x) { return ops::softmax(x[0], 1); }, false},
  };
}

std::vector<Case> all_cases() {
  std::vector<Case> cases = convolutions();
  for (Case& other : others()) cases.push_back(std::move(other));
  return cases;
}

/// float64 leaves of the case's shapes; bit i of `formats` makes image i channels-last.
std::vector<Tensor> draw(const Case& c, unsigned formats, Device device = Device::cpu(),
                         DType dtype = DType::Float64) {
  std::vector<Tensor> inputs;
  for (std::size_t i = 0; i < c.shapes.size(); ++i) {
    Tensor x = random_leaf(c.shapes[i], 40 + i).detach().to(device, dtype);
    if ((formats >> i & 1u) != 0 && x.dim() == 4) x = x.to(kChannelsLast);
    inputs.push_back(x.requires_grad_());
  }
  return inputs;
}

/// The result and the gradients of the inputs, the result's own gradient being of its format. That
/// gradient does not follow from the result, whose last digits differ from kernel to kernel.
std::vector<Tensor> run(const Case& c, const std::vector<Tensor>& inputs) {
  const std::vector<Tensor> outputs{c.function(inputs)};
  const Tensor& z = outputs[0];
  Tensor seed = random_leaf(z.shape(), 30).detach().to(z.device(), z.dtype());
  if (z.dim() == 4) seed = seed.to(z.suggest_memory_format());
  const std::vector<Tensor> seeds{seed};
  std::vector<Tensor> results = grad(outputs, inputs, seeds);
  results.insert(results.begin(), outputs[0]);
  return results;
}

double norm_of(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value * value;
  return std::sqrt(sum);
}

void expect_close(const Tensor& result, const Tensor& expected, double tolerance) {
  ASSERT_EQ(result.shape(), expected.shape());
  const std::vector<double> theirs = expected.to_vector<double>();
  std::vector<double> error = result.to_vector<double>();
  for (std::size_t i = 0; i < error.size(); ++i) error[i] -= theirs[i];
  EXPECT_LE(norm_of(error), tolerance * (1e-30 + norm_of(theirs)));
}

class ImageFormat : public test::DeviceTest {
 protected:
  /// Every case with every choice of formats against the contiguous one, in `dtype`.
  void compare(const std::vector<Case>& cases, DType dtype, double tolerance) const {
    for (const Case& c : cases) {
      const std::vector<Tensor> expected = run(c, draw(c, 0, device(), dtype));
      for (unsigned formats = 1; formats < 4; ++formats) {
        SCOPED_TRACE(testing::Message() << c.name << ", formats " << formats << ", " << dtype);
        const std::vector<Tensor> results = run(c, draw(c, formats, device(), dtype));
        for (std::size_t i = 0; i < results.size(); ++i) {
          SCOPED_TRACE(testing::Message() << "result " << i);
          expect_close(results[i], expected[i], tolerance);
        }
      }
    }
  }
};

TENON_DEVICE_TESTS(ImageFormat);

TEST_P(ImageFormat, ValuesAreThoseOfContiguousImages) {
  compare(all_cases(), DType::Float64, 1e-13);
  compare(all_cases(), DType::Float32, 1e-5);
}

// What runs on tensor cores, in channels-last memory.
TEST_P(ImageFormat, ValuesInCoarsePrecision) {
  const Float32PrecisionGuard coarse(Float32Precision::Tf32);
  compare(convolutions(), DType::Float32, 3e-3);
  compare(convolutions(), DType::BFloat16, 3e-2);
  compare(convolutions(), DType::Float16, 5e-3);
}

TEST_P(ImageFormat, ResultsAndGradientsAreChannelsLast) {
  for (const DType dtype : {DType::Float64, DType::Float32, DType::BFloat16}) {
    for (const Case& c : all_cases()) {
      SCOPED_TRACE(testing::Message() << c.name << ' ' << dtype);
      const std::vector<Tensor> inputs = draw(c, 3, device(), dtype);
      const std::vector<Tensor> results = run(c, inputs);
      EXPECT_EQ(results[0].is_contiguous(kChannelsLast), c.keeps);
      for (std::size_t i = 0; i < inputs.size(); ++i) {
        if (!c.keeps || inputs[i].dim() != 4) continue;
        EXPECT_EQ(results[i + 1].suggest_memory_format(), kChannelsLast) << "gradient " << i;
      }
      if (results[0].dim() == 4 && c.name.starts_with("conv")) {
        EXPECT_EQ(results[0].strides(), channels_last_strides(results[0].shape()));
      }
    }
  }
}

// As in PyTorch a channels-last weight alone makes a convolution's result channels-last.
TEST_P(ImageFormat, AWeightDecidesToo) {
  for (const Case& c : convolutions()) {
    EXPECT_TRUE(c.function(draw(c, 2, device())).is_contiguous(kChannelsLast)) << c.name;
    EXPECT_TRUE(c.function(draw(c, 0, device())).is_contiguous()) << c.name;
  }
}

TEST_P(ImageFormat, ImagesWithGapsAndOffsets) {
  const Case c = convolutions()[0];
  std::vector<Tensor> inputs = draw(c, 0, device());
  const Tensor expected = c.function(inputs);
  Shape wide = c.shapes[0];
  wide[1] += 3;
  const Tensor larger =
      zeros(wide, {.dtype = DType::Float64, .device = device()}).to(kChannelsLast);
  const Tensor view = larger.narrow(1, 1, c.shapes[0][1]);
  view.copy_(inputs[0].detach());
  inputs[0] = view;
  EXPECT_TRUE(c.function(inputs).is_contiguous(kChannelsLast));
  expect_close(c.function(inputs), expected, 1e-13);
}

TEST(ImageFormatGradients, AgreeWithFiniteDifferences) {
  for (const Case& c : all_cases()) {
    SCOPED_TRACE(c.name);
    for (unsigned formats = 1; formats < 4; formats += 2) {
      EXPECT_NO_THROW(gradcheck(c.function, draw(c, formats)));
    }
  }
}

TEST(ImageFormatGradients, SecondOnesToo) {
  for (const Case& c : all_cases()) {
    if (c.shapes[0].numel() > 80) continue;  // a forward for every element
    SCOPED_TRACE(c.name);
    EXPECT_NO_THROW(gradgradcheck(c.function, draw(c, 3)));
  }
}

// ---- modules ------------------------------------------------------------------------------------

struct Net : nn::Module {
  nn::Conv2d down{3, 8, {.kernel = 3, .stride = 2, .padding = 1}};
  nn::BatchNorm2d norm{8};
  nn::ConvTranspose2d up{8, 4, {.kernel = 4, .stride = 2, .padding = 1}};
  nn::Linear unused{2, 2};

  Net() {
    add("down", down);
    add("norm", norm);
    add("up", up);
    add("unused", unused);
  }
  Tensor forward(const Tensor& x) override {
    return ops::hardtanh(ops::mish(up(ops::relu(norm(down(x))))) + 0.5) * 2.0;
  }
};

Tensor picture(std::uint64_t seed = 5) {
  return random_leaf({2, 3, 8, 8}, seed).detach().to(DType::Float32);
}

TEST_P(ImageFormat, AModuleTrainsInItAsInContiguousMemory) {
  const auto train = [&](MemoryFormat format) {
    manual_seed(1);
    Net net;
    net.to(device());
    net.to(format);
    optim::SGD optimizer(net.parameters(), {.lr = 0.05, .momentum = 0.9});
    const Tensor x = picture().to(device()).to(format);
    for (int step = 0; step < 3; ++step) {
      optimizer.zero_grad();
      const Tensor y = net(x);
      EXPECT_TRUE(y.is_contiguous(format));
      ops::mean(ops::square(y - 0.3)).backward();
      for (const Tensor& parameter : {net.down.weight, net.up.weight, net.down.bias}) {
        EXPECT_EQ(parameter.grad().strides(), parameter.strides());
      }
      optimizer.step();
    }
    return net(x);
  };
  expect_close(train(kChannelsLast), train(kContiguous), 1e-4);
}

TEST(ModuleFormat, ToChangesTensorsOfFourDimensionsAndTheirGradients) {
  Net net;
  const Tensor weight = net.down.weight;
  ops::sum(net(picture())).backward();
  net.to(kChannelsLast);
  EXPECT_TRUE(net.down.weight.is_same(weight));
  EXPECT_EQ(weight.strides(), (Strides{27, 1, 9, 3}));
  EXPECT_EQ(weight.grad().strides(), weight.strides());
  EXPECT_TRUE(net.up.weight.is_contiguous(kChannelsLast));
  EXPECT_TRUE(net.down.bias.is_contiguous());
  net.to(MemoryFormat::Preserve);
  EXPECT_EQ(weight.strides(), (Strides{27, 1, 9, 3}));
  net.to(kContiguous);
  EXPECT_TRUE(weight.is_contiguous());
}

TEST(ModuleFormat, FilesHoldLogicalOrderAndLoadingKeepsTheFormat) {
  const test::TemporaryDirectory directory;
  const std::string path = directory / "net.safetensors";
  Net plain;
  nn::save(plain, path);
  Net last;
  last.to(kChannelsLast);
  nn::load(last, path);
  EXPECT_TRUE(last.down.weight.is_contiguous(kChannelsLast));
  EXPECT_EQ(last.down.weight.to_vector<double>(), plain.down.weight.to_vector<double>());
  nn::save(last, path);
  Net again;
  nn::load(again, path);
  EXPECT_TRUE(again.down.weight.is_contiguous());
  EXPECT_EQ(again.down.weight.to_vector<double>(), plain.down.weight.to_vector<double>());
}

// ---- compiled graphs ----------------------------------------------------------------------------

TEST_P(ImageFormat, ACompiledModuleHasTheFormatOfTheEagerOne) {
  Net net;
  net.to(device());
  net.eval();
  auto fast = graph::compile(net);
  for (const MemoryFormat weights : {kContiguous, kChannelsLast}) {
    net.to(weights);
    for (const MemoryFormat format : {kContiguous, kChannelsLast}) {
      for (const bool gradients : {false, true}) {
        const GradModeGuard mode(gradients);
        const Tensor x = picture().to(device()).to(format);
        const Tensor expected = net(x);
        const Tensor result = fast(x);
        EXPECT_EQ(result.strides(), expected.strides());
        expect_close(result, expected, 1e-5);
      }
    }
  }
  EXPECT_EQ(fast.compilations(), 2u);  // formats are the runs' own, gradients are not
}

TEST(CompiledFormat, RequestsForAFormatAreMadeInEveryRun) {
  auto fast = graph::compile([](const Tensor& x) {
    return std::vector<Tensor>{x.contiguous(), x.contiguous(kChannelsLast), x.to(kChannelsLast),
                               ops::relu(x), x.clone()};
  });
  for (const MemoryFormat format : {kContiguous, kChannelsLast}) {
    const std::vector<Tensor> inputs{picture().to(format)};
    const std::vector<Tensor> results = fast(inputs);
    EXPECT_TRUE(results[0].is_contiguous());
    EXPECT_TRUE(results[1].is_contiguous(kChannelsLast));
    EXPECT_TRUE(results[2].is_contiguous(kChannelsLast));
    EXPECT_TRUE(results[3].is_contiguous(format));
    EXPECT_TRUE(results[4].is_contiguous(format));
    for (const std::size_t i : {0, 1, 2, 4}) {
      EXPECT_EQ(results[i].to_vector<double>(), inputs[0].to_vector<double>());
    }
  }
  EXPECT_EQ(fast.compilations(), 1u);
}

TEST(CompiledFormat, GradientsPassRequestsForAFormat) {
  const auto function = [](const Tensor& x) {
    return ops::tanh(x.contiguous(kChannelsLast) * 2.0).to(kContiguous);
  };
  const Tensor x = random_leaf({1, 3, 2, 2});
  ops::sum(ops::square(function(x))).backward();
  const std::vector<double> expected = x.grad().to_vector<double>();
  x.set_grad({});
  ops::sum(ops::square(graph::compile(function)(x))).backward();
  EXPECT_EQ(x.grad().to_vector<double>(), expected);
}

TEST(CompiledFormat, StridesAreNotKnownInATrace) {
  const auto asks = [](const auto& question) {
    return [question] {
      graph::compile([&](const Tensor& x) { return question(x) ? x + 1.0 : x; })(picture());
    };
  };
  const std::vector<std::string> parts{"traced", "no strides", "contiguous()"};
  test::expect_error(asks([](const Tensor& x) { return x.is_contiguous(); }), parts);
  test::expect_error(asks([](const Tensor& x) { return x.strides()[0] == 1; }), parts);
}

}  // namespace
}  // namespace tenon
