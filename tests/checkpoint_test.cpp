#include "tenon/nn/checkpoint.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "tenon/core/autograd.h"
#include "tenon/graph/compile.h"
#include "tenon/nn/nn.h"
#include "tenon/ops/ops.h"
#include "tenon/tests/support/devices.h"
#include "tenon/tests/support/matchers.h"
#include "tenon/tests/support/temporary_directory.h"

namespace tenon {
namespace {

using nn::load_checkpoint;
using nn::Progress;
using nn::save_checkpoint;
using nn::TensorMap;
using test::expect_error;
using test::TemporaryDirectory;

/// A model with buffers and random numbers of its own.
struct Model : nn::Module {
  nn::Conv2d conv{1, 3, {.kernel = 3, .padding = 1}};
  nn::BatchNorm2d norm{3};
  nn::Dropout dropout{0.3};
  nn::Linear head{3 * 5 * 5, 2};
  Model() {
    add("conv", conv);
    add("norm", norm);
    add("dropout", dropout);
    add("head", head);
  }
  Tensor forward(const Tensor& x) override {
    return head(dropout(ops::mish(norm(conv(x)))).flatten(1));
  }
};

/// Everything of one training run; made in another state than that of any checkpoint.
struct Training {
  using MakeOptimizer = std::function<std::unique_ptr<optim::Optimizer>(const Model&)>;

  explicit Training(std::uint64_t seed, const MakeOptimizer& make, Device on = Device::cpu())
      : device(on) {
    manual_seed(seed);
    model = std::make_unique<Model>();
    model->to(device);
    optimizer = make(*model);
    schedule = std::make_unique<optim::OneCycleLR>(
        *optimizer, optim::OneCycleLROptions{.max_lr = 0.05, .total_steps = 40});
    Generator generator(12);
    images = randn({22, 1, 5, 5}, {}, generator);
    labels = randint(0, 2, {22}, {.dtype = DType::Int64}, generator);
    loader = std::make_unique<data::DataLoader>(
        data::TensorDataset({images, labels}),
        data::DataLoaderOptions{.batch_size = 4, .shuffle = true, .seed = 8});
  }

  nn::TrainingState state() { return {*model, optimizer.get(), schedule.get()}; }

  /// Trains from `from` to before step `to.step` of epoch `to.epoch`.
  void run(Progress from, Progress to) {
    loader->set_epoch(from.epoch, from.step);
    for (Progress now = from; now != to; now = {now.epoch + 1, 0}) {
      for (auto& batch : *loader) {
        if (now == to) return;
        optimizer->zero_grad();
        ops::cross_entropy((*model)(batch[0].to(device)), batch[1].to(device)).backward();
        nn::clip_grad_norm_(model->parameters(), 1.0);
        optimizer->step();
        schedule->step();
        ++now.step;
      }
    }
  }

  Device device;
  std::unique_ptr<Model> model;
  std::unique_ptr<optim::Optimizer> optimizer;
  std::unique_ptr<optim::Schedule> schedule;
  Tensor images, labels;
  std::unique_ptr<data::DataLoader> loader;
};

std::unique_ptr<optim::Optimizer> make_sgd(const Model& model) {
  return std::make_unique<optim::SGD>(
      model.parameters(), optim::SGDOptions{.lr = 0.1, .momentum = 0.9, .nesterov = true});
}

std::unique_ptr<optim::Optimizer> make_adamw(const Model& model) {
  return std::make_unique<optim::AdamW>(model.parameters(), optim::AdamWOptions{.lr = 0.01});
}

void expect_equal_bits(const TensorMap& a, const TensorMap& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& item : a) {
    const Tensor& other = b.at(item.first);
    ASSERT_EQ(item.second.spec(), other.spec()) << item.first;
    const Tensor left = item.second.detach().to(Device::cpu()).contiguous();
    const Tensor right = other.detach().to(Device::cpu()).contiguous();
    EXPECT_EQ(std::memcmp(left.raw_data(), right.raw_data(),
                          static_cast<std::size_t>(other.numel()) * item_size(other.dtype())),
              0)
        << item.first;
  }
}

void expect_equal_training(Training& a, Training& b) {
  expect_equal_bits(a.model->state_dict(), b.model->state_dict());
  expect_equal_bits(a.optimizer->state_dict(), b.optimizer->state_dict());
  expect_equal_bits(a.schedule->state_dict(), b.schedule->state_dict());
}

class Resuming : public testing::TestWithParam<int> {};

TEST_P(Resuming, ReachesTheSameWeightsBitForBit) {
  for (const Device device : test::test_devices()) {
    SCOPED_TRACE(testing::Message() << device);
    const Training::MakeOptimizer make = GetParam() == 0 ? make_sgd : make_adamw;
    const TemporaryDirectory directory;
    const Progress middle = {2, 3};  // within an epoch
    const Progress end = {4, 2};
    Training whole(1, make, device);
    whole.run({}, end);
    const std::uint64_t offset = default_generator().offset();

    Training first(1, make, device);
    first.run({}, middle);
    save_checkpoint(directory / "checkpoint", first.state(), middle);
    Training second(99, make, device);
    second.run({}, {0, 2});
    const Progress progress = load_checkpoint(directory / "checkpoint", second.state());
    EXPECT_EQ(progress, middle);
    expect_equal_training(first, second);
    second.run(progress, end);
    expect_equal_training(whole, second);
    EXPECT_EQ(default_generator().seed(), 1u);
    EXPECT_EQ(default_generator().offset(), offset);
  }
}

TEST(ResumingOnCuda, TakesPart) { TENON_SKIP_WITHOUT_GPU(); }

TEST(Checkpoint, MovesBetweenDevices) {
  for (const Device device : test::test_devices()) {
    SCOPED_TRACE(testing::Message() << device);
    const TemporaryDirectory directory;
    Training saved(1, make_adamw, device);
    saved.run({}, {0, 3});
    save_checkpoint(directory / "checkpoint", saved.state(), {0, 3});
    Training here(99, make_adamw);
    here.run({}, {0, 1});
    load_checkpoint(directory / "checkpoint", here.state());
    for (const auto& [name, tensor] : here.model->state_dict()) {
      EXPECT_TRUE(tensor.device().is_cpu()) << name;
    }
    saved.model->to(Device::cpu());
    expect_equal_bits(saved.model->state_dict(), here.model->state_dict());
    Training there(98, make_adamw, device);
    there.run({}, {0, 1});
    load_checkpoint(directory / "checkpoint", there.state());
    for (const auto& [name, tensor] : there.model->state_dict()) {
      EXPECT_EQ(tensor.device(), device) << name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Optimizers, Resuming, testing::Values(0, 1), [](const auto& info) {
  return info.param == 0 ? "SgdNesterov" : "AdamW";
});

TEST(Checkpoint, SavingDoesNotDisturbTheTraining) {
  const TemporaryDirectory directory;
  Training quiet(1, make_adamw), saving(1, make_adamw);
  manual_seed(4);
  quiet.run({}, {1, 0});
  manual_seed(4);
  saving.run({}, {0, 3});
  save_checkpoint(directory / "checkpoint", saving.state(), {0, 3});
  saving.run({0, 3}, {1, 0});
  expect_equal_training(quiet, saving);
}

TEST(Checkpoint, WithoutOptimizerAndSchedule) {
  const TemporaryDirectory directory;
  Training training(1, make_sgd);
  manual_seed(5);
  rand({9});
  save_checkpoint(directory / "checkpoint", {*training.model}, {7, 0});
  Model other;
  EXPECT_EQ(load_checkpoint(directory / "checkpoint", {other}), (Progress{7, 0}));
  expect_equal_bits(training.model->state_dict(), other.state_dict());
  EXPECT_EQ(default_generator().seed(), 5u);
  EXPECT_EQ(default_generator().offset(), 3u);
}

TEST(Checkpoint, ReplacesTheLastOneAndLeavesNothingElse) {
  const TemporaryDirectory directory;
  Training training(1, make_sgd);
  save_checkpoint(directory / "checkpoint", training.state(), {1, 0});
  save_checkpoint(directory / "checkpoint", training.state(), {2, 0});
  EXPECT_EQ(load_checkpoint(directory / "checkpoint", training.state()).epoch, 2);
  EXPECT_EQ(directory.count(), 1u);
}

TEST(Checkpoint, KeepsASeedAboveTheSignedRange) {
  const TemporaryDirectory directory;
  Model model;
  default_generator().set_state(~std::uint64_t{5}, ~std::uint64_t{0});
  save_checkpoint(directory / "checkpoint", {model}, {});
  manual_seed(0);
  load_checkpoint(directory / "checkpoint", {model});
  EXPECT_EQ(default_generator().seed(), ~std::uint64_t{5});
  EXPECT_EQ(default_generator().offset(), ~std::uint64_t{0});
}

// ---- what is refused ----------------------------------------------------------------------------

/// Loading a checkpoint whose contents `edit` changed must throw with `message` and the file's
/// name, and change nothing.
void expect_refused(const std::function<void(TensorMap&, nn::Metadata&)>& edit,
                    const std::vector<std::string>& message) {
  const TemporaryDirectory directory;
  const std::string path = directory / "checkpoint";
  Training saved(1, make_adamw);
  saved.run({}, {0, 3});
  save_checkpoint(path, saved.state(), {0, 3});
  nn::SafeTensors file = nn::load_safetensors(path);
  edit(file.tensors, file.metadata);
  nn::save_safetensors(path, file.tensors, file.metadata);

  Training training(2, make_adamw), twin(2, make_adamw);
  manual_seed(3);
  training.run({}, {0, 1});
  const std::uint64_t offset = default_generator().offset();
  manual_seed(3);
  twin.run({}, {0, 1});
  std::vector<std::string> parts = message;
  parts.insert(parts.end(), {"load_checkpoint", path});
  expect_error([&] { load_checkpoint(path, training.state()); }, parts);
  expect_equal_training(training, twin);
  EXPECT_EQ(default_generator().seed(), 3u);
  EXPECT_EQ(default_generator().offset(), offset);
}

void set_metadata(nn::Metadata& metadata, const std::string& key, const std::string& value) {
  for (auto& item : metadata) {
    if (item.first == key) item.second = value;
  }
}

TEST(CheckpointBadInput, WeightsOfAnotherShape) {
  expect_refused(
      [](TensorMap& t, nn::Metadata&) {
        t["module.head.weight"] = zeros({2, 3});
      },
      {"'head.weight'", "[2, 3]"});
}

TEST(CheckpointBadInput, MissingWeights) {
  expect_refused([](TensorMap& t, nn::Metadata&) { t.erase("module.norm.running_var"); },
                 {"missing 'norm.running_var'"});
}

TEST(CheckpointBadInput, MissingOptimizerState) {
  expect_refused([](TensorMap& t, nn::Metadata&) { t.erase("optimizer.state.0.exp_avg"); },
                 {"AdamW", "'state.0.exp_avg'", "missing"});
}

TEST(CheckpointBadInput, OptimizerStateOfAnotherDtype) {
  expect_refused(
      [](TensorMap& t, nn::Metadata&) {
        t["optimizer.state.1.exp_avg"] = zeros({3}, {.dtype = DType::Float64});
      },
      {"AdamW", "'state.1.exp_avg'", "float64[3]"});
}

TEST(CheckpointBadInput, ScheduleBeyondItsEnd) {
  expect_refused([](TensorMap& t, nn::Metadata&) { t.at("schedule.step").fill_(41); },
                 {"OneCycleLR", "step 41"});
}

TEST(CheckpointBadInput, MissingProgress) {
  expect_refused([](TensorMap& t, nn::Metadata&) { t.erase("progress.step"); },
                 {"'progress.step'", "missing"});
}

TEST(CheckpointBadInput, NegativeProgress) {
  expect_refused([](TensorMap& t, nn::Metadata&) { t.at("progress.epoch").fill_(-4); },
                 {"'progress.epoch'", "-4"});
}

TEST(CheckpointBadInput, RandomStateOfAnotherDtype) {
  expect_refused([](TensorMap& t, nn::Metadata&) { t["random.seed"] = zeros({}); },
                 {"'random.seed'", "float32[]"});
}

TEST(CheckpointBadInput, UnexpectedEntry) {
  expect_refused([](TensorMap& t, nn::Metadata&) { t["surprise"] = zeros({}); }, {"'surprise'"});
}

TEST(CheckpointBadInput, AnotherOptimizer) {
  expect_refused([](TensorMap&, nn::Metadata& m) { set_metadata(m, "optimizer", "SGD"); },
                 {"optimizer", "'SGD'", "'AdamW'"});
}

TEST(CheckpointBadInput, AnotherSchedule) {
  expect_refused([](TensorMap&, nn::Metadata& m) { set_metadata(m, "schedule", "StepLR"); },
                 {"schedule", "'StepLR'", "'OneCycleLR'"});
}

TEST(CheckpointBadInput, AnotherVersion) {
  expect_refused([](TensorMap&, nn::Metadata& m) { set_metadata(m, "version", "2"); },
                 {"version", "'2'"});
}

TEST(CheckpointBadInput, PlainWeights) {
  expect_refused([](TensorMap&, nn::Metadata& m) { m.clear(); }, {"not a checkpoint"});
}

TEST(CheckpointBadInput, OptimizerInTheFileOnly) {
  const TemporaryDirectory directory;
  Training training(1, make_adamw);
  save_checkpoint(directory / "checkpoint", training.state(), {});
  expect_error([&] { load_checkpoint(directory / "checkpoint", {*training.model}); },
               {"load_checkpoint", "optimizer", "'AdamW'", "''"});
}

TEST(CheckpointBadInput, TruncatedFile) {
  const TemporaryDirectory directory;
  Training training(1, make_adamw);
  save_checkpoint(directory / "checkpoint", training.state(), {});
  const std::string whole = test::read_file(directory / "checkpoint");
  test::write_file(directory / "cut", whole.substr(0, whole.size() - 1));
  expect_error([&] { load_checkpoint(directory / "cut", training.state()); },
               {"load_safetensors", directory / "cut"});
}

TEST(CheckpointBadInput, SavingNegativeProgress) {
  const TemporaryDirectory directory;
  Model model;
  expect_error(
      [&] {
        save_checkpoint(directory / "checkpoint", {model}, {-1, 0});
      },
      {"save_checkpoint", "epoch -1"});
  EXPECT_EQ(directory.count(), 0u);
}

}  // namespace
}  // namespace tenon
