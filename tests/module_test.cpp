#include "tenon/nn/module.h"

#include <gtest/gtest.h>

#include <sstream>

#include "tenon/core/autograd.h"
#include "tenon/nn/nn.h"
#include "tenon/ops/ops.h"
#include "tenon/tests/support/matchers.h"
#include "tenon/tests/support/temporary_directory.h"

namespace tenon {
namespace {

using test::expect_error;
using test::expect_values;
using test::TemporaryDirectory;

const std::string kGolden = std::string(TENON_TEST_DATA) + "/golden/";

/// Two layers and a module of two layers, all members.
struct Inner : nn::Module {
  nn::Linear first{3, 4};
  nn::BatchNorm2d norm{2};
  Inner() {
    add("first", first);
    add("norm", norm);
  }
  Tensor forward(const Tensor& x) override { return first(x); }
};

struct Outer : nn::Module {
  Tensor scale;
  Tensor count;
  Inner inner;
  nn::Linear last{4, 2, {.bias = false}};
  Outer() {
    scale = add_parameter("scale", ones({2}));
    count = add_buffer("count", zeros({}, {.dtype = DType::Int64}));
    add("inner", inner);
    add("last", last);
  }
  Tensor forward(const Tensor& x) override { return last(inner(x)) * scale; }
};

/// A module whose registrations the test makes.
struct Bare : nn::Module {
  using Module::add;
  using Module::add_buffer;
  using Module::add_parameter;
};

std::vector<std::string> names(const std::vector<nn::NamedTensor>& tensors) {
  std::vector<std::string> result;
  for (const nn::NamedTensor& item : tensors) result.push_back(item.name);
  return result;
}

using Names = std::vector<std::string>;

// ---- registration and listing -------------------------------------------------------------------

TEST(Module, ParametersHavePyTorchsNestedNamesAndOrder) {
  Outer outer;
  EXPECT_EQ(names(outer.named_parameters()),
            (Names{"scale", "inner.first.weight", "inner.first.bias", "inner.norm.weight",
                   "inner.norm.bias", "last.weight"}));
  EXPECT_EQ(names(outer.named_buffers()),
            (Names{"count", "inner.norm.running_mean", "inner.norm.running_var",
                   "inner.norm.num_batches_tracked"}));
  EXPECT_EQ(outer.parameters().size(), 6u);
  EXPECT_TRUE(outer.parameters()[1].is_same(outer.inner.first.weight));
  EXPECT_EQ(outer.state_dict().size(), 10u);
}

TEST(Module, ListsModulesParentsFirst) {
  Outer outer;
  Names found;
  for (const nn::NamedModule& item : outer.named_modules()) found.push_back(item.name);
  EXPECT_EQ(found, (Names{"", "inner", "inner.first", "inner.norm", "last"}));
  EXPECT_EQ(outer.named_modules()[0].module, &outer);
  ASSERT_EQ(outer.named_children().size(), 2u);
  EXPECT_EQ(outer.named_children()[0].module, &outer.inner);
}

TEST(Module, ParametersRequireGradientsAndBuffersDoNot) {
  Outer outer;
  for (const Tensor& parameter : outer.parameters()) EXPECT_TRUE(parameter.requires_grad());
  for (const nn::NamedTensor& item : outer.named_buffers()) {
    EXPECT_FALSE(item.tensor.requires_grad());
  }
}

TEST(Module, ASharedParameterIsListedOnceButSavedUnderEachName) {
  nn::Linear a{2, 2};
  Bare parent;
  parent.add("a", a);
  parent.add("again", a);
  parent.add_parameter("tied", a.weight);
  EXPECT_EQ(names(parent.named_parameters()), (Names{"tied", "a.bias"})) << "the first name wins";
  EXPECT_EQ(parent.parameters().size(), 2u);
  EXPECT_EQ(parent.state_dict().size(), 5u);
}

TEST(Module, ApplyVisitsChildrenBeforeTheirParents) {
  Outer outer;
  std::vector<nn::Module*> order;
  outer.apply([&](nn::Module& module) { order.push_back(&module); });
  EXPECT_EQ(order, (std::vector<nn::Module*>{&outer.inner.first, &outer.inner.norm, &outer.inner,
                                             &outer.last, &outer}));
}

TEST(Module, TrainAndEvalReachAllBelow) {
  Outer outer;
  EXPECT_TRUE(outer.training() && outer.inner.norm.training());
  outer.eval();
  for (const nn::NamedModule& item : outer.named_modules()) EXPECT_FALSE(item.module->training());
  outer.train();
  for (const nn::NamedModule& item : outer.named_modules()) EXPECT_TRUE(item.module->training());
}

TEST(Module, ZeroGradForgetsTheGradients) {
  Outer outer;
  ops::sum(outer(ones({2, 3}))).backward();
  EXPECT_TRUE(outer.last.weight.grad().defined());
  EXPECT_TRUE(outer.scale.grad().defined());
  outer.zero_grad();
  for (const Tensor& parameter : outer.parameters()) EXPECT_FALSE(parameter.grad().defined());
}

TEST(Module, RequiresGradCanBeSwitchedOff) {
  Outer outer;
  outer.requires_grad_(false);
  EXPECT_FALSE(outer(ones({2, 3})).requires_grad());
  outer.requires_grad_();
  EXPECT_TRUE(outer(ones({2, 3})).requires_grad());
}

TEST(Module, ConvertingKeepsTheTensorsTheirGradientsAndTheIntegers) {
  Outer outer;
  const std::vector<Tensor> before = outer.parameters();
  ops::sum(outer(ones({2, 3}))).backward();
  const std::vector<float> gradient = outer.scale.grad().to_vector<float>();
  outer.to(DType::Float64);
  for (std::size_t i = 0; i < before.size(); ++i) {
    EXPECT_TRUE(outer.parameters()[i].is_same(before[i]));
    EXPECT_EQ(before[i].dtype(), DType::Float64);
    EXPECT_TRUE(before[i].requires_grad() && before[i].is_leaf());
  }
  EXPECT_EQ(outer.scale.grad().dtype(), DType::Float64);
  EXPECT_EQ(outer.scale.grad().to_vector<float>(), gradient);
  EXPECT_EQ(outer.count.dtype(), DType::Int64);
  EXPECT_EQ(outer.inner.norm.running_var.dtype(), DType::Float64);
  EXPECT_EQ(outer(ones({2, 3}, {.dtype = DType::Float64})).dtype(), DType::Float64);
}

TEST(Module, ConvertingASharedParameterKeepsItShared) {
  nn::Linear a{2, 2};
  Bare parent;
  parent.add("a", a);
  parent.add_parameter("tied", a.weight);
  parent.to(DType::Float64);
  EXPECT_EQ(a.weight.dtype(), DType::Float64);
  EXPECT_TRUE(parent.parameters()[0].is_same(a.weight));
}

TEST(Module, BackwardWorksAfterConverting) {
  Outer outer;
  ops::sum(outer(ones({2, 3}))).backward();
  outer.to(DType::Float64);
  outer.zero_grad();
  ops::sum(outer(ones({2, 3}, {.dtype = DType::Float64}))).backward();
  EXPECT_EQ(outer.last.weight.grad().dtype(), DType::Float64);
}

TEST(Module, MovingToItsOwnDeviceChangesNothing) {
  Outer outer;
  const void* const data = outer.scale.raw_data();
  outer.to(Device::cpu());
  EXPECT_EQ(outer.scale.raw_data(), data);
}

TEST(Module, PrintsItsTree) {
  nn::Sequential net(nn::Conv2d(1, 8, {.kernel = {3, 5}, .stride = 2, .bias = false}), nn::ReLU(),
                     nn::Sequential(nn::Dropout(0.25), nn::Hardtanh(-1, 2)));
  std::ostringstream out;
  out << net;
  EXPECT_EQ(out.str(),
            "Sequential(\n"
            "  (0): Conv2d(1, 8, kernel=(3, 5), stride=(2, 2), bias=false)\n"
            "  (1): ReLU()\n"
            "  (2): Sequential(\n"
            "    (0): Dropout(p=0.25)\n"
            "    (1): Hardtanh(min=-1, max=2)\n"
            "  )\n"
            ")");
}

// ---- moving -------------------------------------------------------------------------------------

static_assert(!std::is_copy_constructible_v<nn::Linear>);
static_assert(!std::is_copy_assignable_v<nn::Linear>);

TEST(Module, AModuleWithoutMemberChildrenCanBeMoved) {
  nn::Linear linear{2, 3};
  const Tensor weight = linear.weight;
  linear.eval();
  nn::Linear moved = std::move(linear);
  EXPECT_TRUE(moved.weight.is_same(weight));
  EXPECT_EQ(moved.parameters().size(), 2u);
  EXPECT_FALSE(moved.training());
}

TEST(Module, ASequentialCanBeMovedWithItsModules) {
  nn::Sequential net(nn::Linear(2, 3), nn::ReLU(), nn::Linear(3, 1));
  const Tensor x = ones({4, 2});
  const std::vector<float> expected = net(x).to_vector<float>();
  nn::Sequential moved = std::move(net);
  EXPECT_EQ(moved(x).to_vector<float>(), expected);
  EXPECT_EQ(moved.size(), 3u);
  EXPECT_EQ(moved.named_parameters()[2].name, "2.weight");
}

TEST(ModuleBadInput, MovingOneWithMemberChildren) {
  Inner inner;
  expect_error([&] { Inner moved = std::move(inner); },
               {"Module", "Inner", "'first'", "construct it in place"});
  EXPECT_EQ(inner.parameters().size(), 4u);  // the failed move took nothing
  expect_error([] { nn::Sequential net(nn::ReLU{}, Inner{}); }, {"Inner", "emplace<Inner>"});
}

// ---- Sequential ---------------------------------------------------------------------------------

TEST(Sequential, RunsOneAfterAnother) {
  nn::Sequential net(nn::Hardtanh(-1, 1), nn::Flatten(0, 1), nn::ReLU());
  EXPECT_EQ(net(tensor<float>({-3, 0.5, 3, 1}).reshape({2, 2})).to_vector<float>(),
            (std::vector<float>{0, 0.5, 1, 1}));
}

TEST(Sequential, AnEmptyOneIsTheIdentity) {
  nn::Sequential net;
  const Tensor x = ones({2});
  EXPECT_TRUE(net(x).is_same(x));
  EXPECT_EQ(net.size(), 0u);
}

TEST(Sequential, EmplaceConstructsWhatCannotBeMoved) {
  nn::Sequential net;
  Inner& inner = net.emplace<Inner>();
  net.emplace<nn::Linear>(4, 1, nn::LinearOptions{.bias = false});
  EXPECT_EQ(&net[0], &inner);
  EXPECT_EQ(net.named_parameters()[0].name, "0.first.weight");
  EXPECT_EQ(net(ones({2, 3})).shape(), (Shape{2, 1}));
}

TEST(ModuleBadInput, SequentialIndex) {
  nn::Sequential net(nn::ReLU{});
  expect_error([&] { net[1]; }, {"Sequential", "no module 1", "it has 1"});
}

// ---- refused registrations ----------------------------------------------------------------------

TEST(ModuleBadInput, NameWithADot) {
  Bare module;
  expect_error([&] { module.add_parameter("a.b", zeros({1})); }, {"Module", "'a.b'", "dot"});
}

TEST(ModuleBadInput, EmptyName) {
  Bare module;
  expect_error([&] { module.add_buffer("", zeros({1})); }, {"Module", "Bare", "empty"});
}

TEST(ModuleBadInput, NameTwice) {
  Bare module;
  nn::ReLU child;
  module.add_parameter("x", zeros({1}));
  expect_error([&] { module.add_parameter("x", zeros({1})); }, {"Module", "'x'", "taken"});
  expect_error([&] { module.add_buffer("x", zeros({1})); }, {"Module", "'x'", "taken"});
  expect_error([&] { module.add("x", child); }, {"Module", "'x'", "taken", "Bare"});
}

TEST(ModuleBadInput, ItselfAsAChild) {
  Bare module;
  expect_error([&] { module.add("self", module); }, {"Module", "'self'", "contains its parent"});
  Bare outer;
  outer.add("inner", module);
  expect_error([&] { module.add("outer", outer); }, {"Module", "'outer'", "contains its parent"});
}

TEST(ModuleBadInput, NullChild) {
  Bare module;
  expect_error([&] { module.add("x", std::unique_ptr<nn::Module>()); }, {"Module", "'x'", "null"});
}

TEST(ModuleBadInput, UndefinedParameterAndBuffer) {
  Bare module;
  expect_error([&] { module.add_parameter("w", {}); }, {"Module", "'w'", "undefined"});
  expect_error([&] { module.add_buffer("b", {}); }, {"Module", "'b'", "undefined"});
}

TEST(ModuleBadInput, ComputedParameter) {
  Bare module;
  const Tensor leaf = ones({2}, {.requires_grad = true});
  expect_error([&] { module.add_parameter("w", leaf * 2); }, {"Module", "'w'", "leaf"});
}

TEST(ModuleBadInput, IntegerParameter) {
  Bare module;
  expect_error([&] { module.add_parameter("w", arange(0, 3)); }, {"Module", "'w'", "int64"});
}

TEST(ModuleBadInput, BufferWithAGradient) {
  Bare module;
  const Tensor leaf = ones({2}, {.requires_grad = true});
  expect_error([&] { module.add_buffer("b", leaf); }, {"Module", "'b'", "gradient"});
}

TEST(ModuleBadInput, ModuleWithoutForward) {
  Bare module;
  expect_error([&] { module(ones({1})); }, {"forward", "Bare"});
}

TEST(ModuleBadInput, IntegerDtype) {
  nn::Linear linear{2, 2};
  expect_error([&] { linear.to(DType::Int64); }, {"to", "floating", "int64"});
}

// ---- state --------------------------------------------------------------------------------------

TEST(Module, LoadStateDictCopiesIntoTheSameTensors) {
  Outer a, b;
  a.count.fill_(7);
  const void* const data = b.scale.raw_data();
  b.load_state_dict(a.state_dict());
  EXPECT_EQ(b.scale.raw_data(), data);
  for (const auto& item : a.state_dict()) {
    EXPECT_EQ(item.second.to_vector<double>(), b.state_dict().at(item.first).to_vector<double>());
  }
  EXPECT_EQ(b.count.item<std::int64_t>(), 7);
}

TEST(Module, LoadingIsSeenByAutogradAsAChangeInPlace) {
  nn::Linear linear{2, 2};
  const Tensor x = ones({1, 2}, {.requires_grad = true});
  const Tensor y = ops::sum(linear(x));
  linear.load_state_dict(nn::Linear(2, 2).state_dict());
  EXPECT_THROW(y.backward(), Error);
}

/// Loading `state` must throw with `message` and leave `module` as it was.
void expect_refused(nn::Module& module, const nn::TensorMap& state,
                    const std::vector<std::string>& message) {
  std::vector<std::vector<double>> before;
  for (const auto& item : module.state_dict()) before.push_back(item.second.to_vector<double>());
  expect_error([&] { module.load_state_dict(state); }, message);
  std::size_t i = 0;
  for (const auto& item : module.state_dict()) {
    EXPECT_EQ(item.second.to_vector<double>(), before[i++]) << item.first;
  }
}

TEST(ModuleBadInput, LoadingWithAMissingName) {
  Outer module, other;
  nn::TensorMap state = other.state_dict();
  state.erase("inner.first.bias");
  expect_refused(module, state, {"load_state_dict", "missing 'inner.first.bias'", "Outer"});
  module.load_state_dict(state, false);
  EXPECT_EQ(module.last.weight.to_vector<float>(), other.last.weight.to_vector<float>());
}

TEST(ModuleBadInput, LoadingWithAnUnexpectedName) {
  Outer module, other;
  nn::TensorMap state = other.state_dict();
  state.emplace("zzz", zeros({1}));
  expect_refused(module, state, {"load_state_dict", "unexpected 'zzz'"});
  module.load_state_dict(state, false);
  EXPECT_EQ(module.last.weight.to_vector<float>(), other.last.weight.to_vector<float>());
}

TEST(ModuleBadInput, LoadingManyMissingNamesListsSome) {
  Outer module;
  expect_refused(module, {{"x", zeros({1})}}, {"missing 'count'", "and 5 more", "unexpected 'x'"});
}

TEST(ModuleBadInput, LoadingAnotherShape) {
  Outer module, other;
  nn::TensorMap state = other.state_dict();
  state["last.weight"] = zeros({4, 2});  // as many elements, the other way round
  expect_refused(module, state, {"load_state_dict", "'last.weight'", "[4, 2]", "[2, 4]"});
  EXPECT_THROW(module.load_state_dict(state, false), Error);
}

TEST(ModuleBadInput, LoadingAShapeThatWouldBroadcast) {
  Outer module, other;
  nn::TensorMap state = other.state_dict();
  state["scale"] = zeros({1});
  expect_refused(module, state, {"'scale'", "[1]", "[2]"});
}

TEST(ModuleBadInput, LoadingAnotherDtype) {
  Outer module, other;
  nn::TensorMap state = other.state_dict();
  state["scale"] = zeros({2}, {.dtype = DType::Float64});
  expect_refused(module, state, {"load_state_dict", "'scale'", "float64", "float32"});
}

TEST(ModuleBadInput, LoadingAnUndefinedTensor) {
  Outer module, other;
  nn::TensorMap state = other.state_dict();
  state["scale"] = Tensor();
  expect_refused(module, state, {"load_state_dict", "'scale'", "undefined"});
}

// ---- files --------------------------------------------------------------------------------------

nn::Sequential golden_model() {
  return nn::Sequential(
      nn::Conv2d(2, 4, {.kernel = 3, .stride = 2, .padding = 1}), nn::BatchNorm2d(4), nn::Mish(),
      nn::ConvTranspose2d(4, 3, {.kernel = 3, .stride = 2, .padding = 1, .output_padding = 1}),
      nn::Flatten(), nn::Linear(3 * 8 * 6, 5));
}

TEST(Save, AModelOfPyTorchGivesPyTorchsResult) {
  nn::Sequential model = golden_model();
  nn::load(model, kGolden + "model.safetensors");
  model.eval();
  const nn::TensorMap golden = nn::load_safetensors(kGolden + "model_output.safetensors").tensors;
  const std::vector<float> y = model(golden.at("model/x")).to_vector<float>();
  const std::vector<float> expected = golden.at("model/y").to_vector<float>();
  ASSERT_EQ(y.size(), expected.size());
  for (std::size_t i = 0; i < y.size(); ++i) EXPECT_NEAR(y[i], expected[i], 2e-6) << i;
}

TEST(Save, WritesPyTorchsFileByteForByte) {
  const TemporaryDirectory directory;
  nn::Sequential model = golden_model();
  nn::load(model, kGolden + "model.safetensors");
  nn::save(model, directory / "model");
  EXPECT_TRUE(test::read_file(directory / "model") ==
              test::read_file(kGolden + "model.safetensors"));
}

TEST(Save, AFailedLoadNamesTheFileAndChangesNothing) {
  const TemporaryDirectory directory;
  nn::save(nn::Linear(3, 3), directory / "linear");
  nn::Linear module{2, 3};
  const std::vector<float> before = module.weight.to_vector<float>();
  expect_error([&] { nn::load(module, directory / "linear"); },
               {"load", directory / "linear", "'weight'", "[3, 3]", "[3, 2]"});
  EXPECT_EQ(module.weight.to_vector<float>(), before);
}

TEST(Save, ATruncatedFileChangesNothing) {
  const TemporaryDirectory directory;
  nn::save(nn::Linear(2, 3), directory / "linear");
  const std::string whole = test::read_file(directory / "linear");
  nn::Linear module{2, 3};
  const std::vector<float> before = module.weight.to_vector<float>();
  for (std::size_t length = 0; length < whole.size(); length += 7) {
    test::write_file(directory / "cut", whole.substr(0, length));
    EXPECT_THROW(nn::load(module, directory / "cut"), Error);
  }
  EXPECT_EQ(module.weight.to_vector<float>(), before);
}

TEST(Save, NotStrictLoadsWhatThereIs) {
  const TemporaryDirectory directory;
  nn::Linear other{2, 3, {.bias = false}};
  nn::save(other, directory / "linear");
  nn::Linear module{2, 3};
  expect_error([&] { nn::load(module, directory / "linear"); }, {"missing 'bias'"});
  nn::load(module, directory / "linear", {.strict = false});
  EXPECT_EQ(module.weight.to_vector<float>(), other.weight.to_vector<float>());
}

}  // namespace
}  // namespace tenon
