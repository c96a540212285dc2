#include "tenon/nn/dataloader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <numeric>
#include <set>
#include <thread>

#include "tenon/core/autograd.h"
#include "tenon/core/factories.h"
#include "tenon/core/parallel.h"
#include "tenon/core/random.h"
#include "tenon/tests/support/matchers.h"

namespace tenon {
namespace {

using data::Batch;
using data::collate;
using data::DataLoader;
using data::DataLoaderOptions;
using data::Dataset;
using data::TensorDataset;
using test::counting;
using test::expect_error;
using test::expect_values;

/// What a `CountingDataset` saw, shared with the test.
struct Watch {
  std::atomic<std::int64_t> reads{0};
  std::int64_t fail_at = -1;
  bool random = false;
};

/// Sample i is the number i (or a random number), one at a time through `get`.
class CountingDataset : public Dataset {
 public:
  CountingDataset(std::int64_t size, std::shared_ptr<Watch> watch)
      : size_(size), watch_(std::move(watch)) {}
  std::int64_t size() const override { return size_; }
  Batch get(std::int64_t index) const override {
    ++watch_->reads;
    TENON_CHECK(index != watch_->fail_at, "CountingDataset: sample ", index, " is damaged");
    if (watch_->random) return {rand({2})};
    return {scalar_tensor(index, {.dtype = DType::Int64})};
  }

 private:
  std::int64_t size_;
  std::shared_ptr<Watch> watch_;
};

CountingDataset counted(std::int64_t size, std::shared_ptr<Watch> watch = nullptr) {
  return CountingDataset(size, watch == nullptr ? std::make_shared<Watch>() : watch);
}

/// The numbers of one pass, batch after batch.
std::vector<std::vector<std::int64_t>> pass(DataLoader& loader) {
  std::vector<std::vector<std::int64_t>> result;
  for (auto& batch : loader) result.push_back(batch[0].to_vector<std::int64_t>());
  return result;
}

std::vector<std::int64_t> joined(const std::vector<std::vector<std::int64_t>>& batches) {
  std::vector<std::int64_t> result;
  for (const auto& batch : batches) result.insert(result.end(), batch.begin(), batch.end());
  return result;
}

/// With and without a thread.
class Loader : public testing::TestWithParam<std::int64_t> {
 protected:
  DataLoaderOptions options(DataLoaderOptions base) const {
    base.prefetch = GetParam();
    return base;
  }
};

INSTANTIATE_TEST_SUITE_P(Prefetch, Loader, testing::Values(0, 1, 2, 7),
                         [](const auto& info) { return std::to_string(info.param); });

TEST_P(Loader, YieldsEverySampleInOrder) {
  DataLoader loader(counted(7), options({.batch_size = 3}));
  EXPECT_EQ(loader.size(), 3);
  EXPECT_EQ(pass(loader), (std::vector<std::vector<std::int64_t>>{{0, 1, 2}, {3, 4, 5}, {6}}));
}

TEST_P(Loader, DropsTheLastSmallerBatchWhenAsked) {
  DataLoader loader(counted(7), options({.batch_size = 3, .drop_last = true}));
  EXPECT_EQ(loader.size(), 2);
  EXPECT_EQ(pass(loader), (std::vector<std::vector<std::int64_t>>{{0, 1, 2}, {3, 4, 5}}));
}

TEST_P(Loader, KeepsALastBatchThatIsWhole) {
  for (bool drop_last : {false, true}) {
    DataLoader loader(counted(6), options({.batch_size = 3, .drop_last = drop_last}));
    EXPECT_EQ(pass(loader).size(), 2u);
  }
}

TEST_P(Loader, EmptyDataSetHasNoBatches) {
  DataLoader loader(counted(0), options({.batch_size = 3}));
  EXPECT_EQ(loader.size(), 0);
  EXPECT_TRUE(pass(loader).empty());
}

TEST_P(Loader, BatchLargerThanTheDataSet) {
  DataLoader loader(counted(2), options({.batch_size = 10}));
  EXPECT_EQ(pass(loader), (std::vector<std::vector<std::int64_t>>{{0, 1}}));
  DataLoader dropping(counted(2), options({.batch_size = 10, .drop_last = true}));
  EXPECT_TRUE(pass(dropping).empty());
}

TEST_P(Loader, ShuffleIsAPermutationThatTheSeedAndTheEpochDecide) {
  DataLoader loader(counted(50), options({.batch_size = 8, .shuffle = true, .seed = 5}));
  DataLoader twin(counted(50), options({.batch_size = 3, .shuffle = true, .seed = 5}));
  DataLoader other(counted(50), options({.batch_size = 8, .shuffle = true, .seed = 6}));
  const std::vector<std::int64_t> first = joined(pass(loader));
  const std::vector<std::int64_t> second = joined(pass(loader));
  EXPECT_EQ(std::set<std::int64_t>(first.begin(), first.end()).size(), 50u);
  EXPECT_FALSE(std::is_sorted(first.begin(), first.end()));
  EXPECT_NE(first, second);
  EXPECT_EQ(joined(pass(twin)), first);
  EXPECT_EQ(joined(pass(twin)), second);
  EXPECT_NE(joined(pass(other)), first);
}

TEST_P(Loader, ShuffleLeavesTheDefaultGeneratorAlone) {
  manual_seed(11);
  const double expected = rand({1}).item();
  manual_seed(11);
  DataLoader loader(counted(50), options({.batch_size = 8, .shuffle = true}));
  pass(loader);
  EXPECT_EQ(rand({1}).item(), expected);
}

TEST_P(Loader, SetEpochRepeatsAPassAndSkipsBatches) {
  DataLoader loader(counted(20), options({.batch_size = 3, .shuffle = true}));
  pass(loader);
  EXPECT_EQ(loader.epoch(), 1);
  const auto second = pass(loader);
  loader.set_epoch(1);
  EXPECT_EQ(pass(loader), second);
  loader.set_epoch(1, 4);
  EXPECT_EQ(pass(loader),
            (std::vector<std::vector<std::int64_t>>(second.begin() + 4, second.end())));
  loader.set_epoch(1, loader.size());
  EXPECT_TRUE(pass(loader).empty());
  EXPECT_EQ(pass(loader).size(), 7u);  // the skip was for one pass
}

TEST_P(Loader, RandomNumbersOfSamplesDependOnSeedAndEpochAlone) {
  const auto draw = [&](std::uint64_t seed, std::int64_t epoch, std::int64_t skip) {
    const auto watch = std::make_shared<Watch>();
    watch->random = true;
    manual_seed(static_cast<std::uint64_t>(100 + epoch));  // must not matter
    DataLoader loader(counted(6, watch), options({.batch_size = 2, .seed = seed}));
    loader.set_epoch(epoch, skip);
    std::vector<float> result;
    for (auto& batch : loader) {
      for (float value : batch[0].to_vector<float>()) result.push_back(value);
    }
    return result;
  };
  const std::vector<float> first = draw(1, 0, 0);
  EXPECT_EQ(first.size(), 12u);
  EXPECT_EQ(std::set<float>(first.begin(), first.end()).size(), 12u);
  EXPECT_EQ(draw(1, 0, 0), first);
  EXPECT_EQ(draw(1, 0, 1), std::vector<float>(first.begin() + 4, first.end()));
  EXPECT_NE(draw(1, 1, 0), first);
  EXPECT_NE(draw(2, 0, 0), first);
}

TEST_P(Loader, AnExceptionSurfacesAtItsBatchAndEndsThePass) {
  const auto watch = std::make_shared<Watch>();
  watch->fail_at = 5;
  DataLoader loader(counted(9, watch), options({.batch_size = 2}));
  std::vector<std::int64_t> seen;
  expect_error(
      [&] {
        for (auto& batch : loader) seen.push_back(batch[0].to_vector<std::int64_t>()[0]);
      },
      {"CountingDataset", "sample 5"});
  EXPECT_EQ(seen, (std::vector<std::int64_t>{0, 2}));
  watch->fail_at = -1;
  EXPECT_EQ(pass(loader).size(), 5u);  // the loader itself is as good as new
}

TEST_P(Loader, AnExceptionInTheFirstBatchSurfacesAtBegin) {
  const auto watch = std::make_shared<Watch>();
  watch->fail_at = 0;
  DataLoader loader(counted(9, watch), options({.batch_size = 2}));
  expect_error([&] { loader.begin(); }, {"sample 0"});
}

TEST_P(Loader, AfterAnExceptionTheIteratorIsAtTheEnd) {
  const auto watch = std::make_shared<Watch>();
  watch->fail_at = 2;
  DataLoader loader(counted(9, watch), options({.batch_size = 2}));
  auto iterator = loader.begin();
  EXPECT_THROW(++iterator, Error);
  EXPECT_TRUE(iterator == loader.end());
  ++iterator;
  EXPECT_TRUE(iterator == loader.end());
}

TEST_P(Loader, LeavingAPassEarlyStopsTheReading) {
  const auto watch = std::make_shared<Watch>();
  DataLoader loader(counted(100'000, watch), options({.batch_size = 1}));
  for (auto& batch : loader) {
    if (batch[0].item<std::int64_t>() == 3) break;
  }
  EXPECT_LT(watch->reads, 4 + GetParam() + 2);
}

TEST_P(Loader, APassOutlivesItsLoader) {
  auto loader = std::make_unique<DataLoader>(counted(5), options({.batch_size = 2}));
  auto iterator = loader->begin();
  loader.reset();
  ++iterator;
  EXPECT_EQ((*iterator)[0].to_vector<std::int64_t>(), (std::vector<std::int64_t>{2, 3}));
}

TEST_P(Loader, TwoPassesAtOnceDoNotDisturbEachOther) {
  DataLoader loader(counted(4), options({.batch_size = 2}));
  auto first = loader.begin();
  auto second = loader.begin();
  ++first;
  EXPECT_EQ((*second)[0].to_vector<std::int64_t>(), (std::vector<std::int64_t>{0, 1}));
  EXPECT_EQ((*first)[0].to_vector<std::int64_t>(), (std::vector<std::int64_t>{2, 3}));
}

TEST_P(Loader, ABatchMayBeKeptAndChanged) {
  DataLoader loader(TensorDataset({counting({6, 2})}), options({.batch_size = 2}));
  std::vector<Tensor> kept;
  for (auto& batch : loader) {
    kept.push_back(batch[0]);
    batch[0].fill_(-1);
    batch.clear();
  }
  EXPECT_EQ(kept.size(), 3u);
  for (auto& batch : loader) {
    EXPECT_GE(batch[0].to_vector<double>()[0], 0);  // the data set was not written to
  }
}

TEST_P(Loader, ReadsWhileTheProgramComputes) {
  const Tensor rows = counting({64, 33});
  DataLoader loader(TensorDataset({rows}), options({.batch_size = 4, .shuffle = true}));
  double total = 0;
  for (int epoch = 0; epoch < 3; ++epoch) {
    for (auto& batch : loader) {
      std::atomic<std::int64_t> sum{0};
      const double* values = batch[0].data<double>();
      parallel_for(0, batch[0].numel(), 8, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) sum += static_cast<std::int64_t>(values[i]);
      });
      total += static_cast<double>(sum.load());
    }
  }
  const double n = 64.0 * 33.0;
  EXPECT_EQ(total, 3 * n * (n - 1) / 2);
}

TEST(DataLoader, ReadsAheadNoFurtherThanAsked) {
  const auto watch = std::make_shared<Watch>();
  DataLoader loader(counted(100, watch), {.batch_size = 1, .prefetch = 3});
  auto iterator = loader.begin();
  // One batch is out, three are queued, one waits for room; wait for the thread to get there.
  for (int i = 0; i < 2000 && watch->reads < 5; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(watch->reads, 5);
}

TEST(DataLoader, TakesASharedDataSet) {
  const auto dataset = std::make_shared<const CountingDataset>(counted(3));
  DataLoader loader(dataset, {.batch_size = 3});
  EXPECT_EQ(&loader.dataset(), dataset.get());
  EXPECT_EQ(joined(pass(loader)), (std::vector<std::int64_t>{0, 1, 2}));
}

// ---- data sets ----------------------------------------------------------------------------------

TEST(TensorDataset, BatchGathersTheRowsOfEveryTensor) {
  const TensorDataset dataset(
      {counting({4, 3}), arange(10, 14), counting({4, 2, 2}).permute({0, 2, 1})});
  EXPECT_EQ(dataset.size(), 4);
  const std::vector<std::int64_t> indices = {3, 0, 3};
  const Batch batch = dataset.batch(indices);
  expect_values(batch[0], {3, 3}, {9, 10, 11, 0, 1, 2, 9, 10, 11});
  expect_values(batch[1], {3}, {13, 10, 13});
  expect_values(batch[2], {3, 2, 2}, {12, 14, 13, 15, 0, 2, 1, 3, 12, 14, 13, 15});
  EXPECT_EQ(batch[1].dtype(), DType::Int64);
}

TEST(TensorDataset, BatchAgreesWithCollatingSamples) {
  Generator generator(2);
  const TensorDataset dataset({randn({9, 2, 5}, {}, generator)});
  const std::vector<std::int64_t> indices = {8, 1, 1, 4};
  const Batch gathered = dataset.batch(indices);
  const Batch collated = dataset.Dataset::batch(indices);
  EXPECT_EQ(gathered[0].shape(), collated[0].shape());
  EXPECT_EQ(gathered[0].to_vector<float>(), collated[0].to_vector<float>());
}

TEST(TensorDataset, GetIsAView) {
  const Tensor rows = counting({3, 2});
  const TensorDataset dataset({rows});
  EXPECT_EQ(dataset.get(1)[0].raw_data(), rows.select(0, 1).raw_data());
}

TEST(TensorDataset, RowsWithoutElements) {
  const TensorDataset dataset({zeros({3, 0, 2})});
  const std::vector<std::int64_t> indices = {2, 2};
  EXPECT_EQ(dataset.batch(indices)[0].shape(), (Shape{2, 0, 2}));
}

TEST(Collate, StacksAlongANewDimension) {
  const std::vector<Batch> samples = {{counting({2, 2}), scalar_tensor(1)},
                                      {counting({2, 2}).transpose(0, 1), scalar_tensor(2)}};
  const Batch batch = collate(samples);
  expect_values(batch[0], {2, 2, 2}, {0, 1, 2, 3, 0, 2, 1, 3});
  expect_values(batch[1], {2}, {1, 2});
}

TEST(Collate, HasNoHistory) {
  const std::vector<Batch> samples = {{test::random_leaf({2})}};
  EXPECT_FALSE(collate(samples)[0].requires_grad());
}

// ---- what is refused ----------------------------------------------------------------------------

TEST(DataBadInput, BatchSizeZero) {
  expect_error([] { DataLoader(counted(3), {.batch_size = 0}); },
               {"DataLoader", "batch_size", "got 0"});
}

TEST(DataBadInput, NegativePrefetch) {
  expect_error([] { DataLoader(counted(3), {.prefetch = -1}); }, {"DataLoader", "prefetch", "-1"});
}

TEST(DataBadInput, NullDataSet) {
  expect_error([] { DataLoader(std::shared_ptr<const Dataset>(), {}); }, {"DataLoader", "null"});
}

TEST(DataBadInput, NegativeEpoch) {
  DataLoader loader(counted(3), {});
  expect_error([&] { loader.set_epoch(-2); }, {"DataLoader", "epoch", "-2"});
}

TEST(DataBadInput, SkippingMoreThanThereIs) {
  DataLoader loader(counted(3), {});
  expect_error([&] { loader.set_epoch(0, 4); }, {"DataLoader", "skip 4", "3"});
  EXPECT_EQ(pass(loader).size(), 3u);
}

TEST(DataBadInput, DataSetWithoutTensors) {
  expect_error([] { TensorDataset({}); }, {"TensorDataset", "at least one", "0"});
}

TEST(DataBadInput, RowsThatDoNotMatch) {
  expect_error(
      [] {
        TensorDataset({zeros({3, 2}), zeros({4})});
      },
      {"TensorDataset", "tensor 1", "4 rows", "3"});
}

TEST(DataBadInput, ScalarInADataSet) {
  expect_error([] { TensorDataset({zeros({})}); }, {"TensorDataset", "tensor 0", "0-dimensional"});
}

TEST(DataBadInput, UndefinedTensorInADataSet) {
  expect_error([] { TensorDataset({zeros({1}), Tensor()}); }, {"TensorDataset", "tensor 1"});
}

TEST(DataBadInput, IndexOutsideOfTheDataSet) {
  const TensorDataset dataset({zeros({3})});
  expect_error([&] { dataset.get(3); }, {"TensorDataset", "index 3", "3 samples"});
  const std::vector<std::int64_t> indices = {0, -1};
  expect_error([&] { dataset.batch(indices); }, {"TensorDataset", "index -1"});
}

TEST(DataBadInput, CollatingNothing) {
  expect_error([] { collate({}); }, {"collate", "at least one"});
}

TEST(DataBadInput, SamplesOfDifferentShape) {
  const std::vector<Batch> samples = {{zeros({2})}, {zeros({3})}};
  expect_error([&] { collate(samples); }, {"collate", "sample 1", "float32[3]", "float32[2]"});
}

TEST(DataBadInput, SamplesOfDifferentDtype) {
  const std::vector<Batch> samples = {{zeros({2})}, {zeros({2}, {.dtype = DType::Float64})}};
  expect_error([&] { collate(samples); }, {"collate", "float64[2]", "float32[2]"});
}

TEST(DataBadInput, SamplesOfDifferentCount) {
  const std::vector<Batch> samples = {{zeros({2})}, {}};
  expect_error([&] { collate(samples); }, {"collate", "sample 1", "0 tensors", "1"});
}

TEST(DataBadInput, SamplesOfEightDimensions) {
  const std::vector<Batch> samples = {{zeros({1, 1, 1, 1, 1, 1, 1, 1})}};
  expect_error([&] { collate(samples); }, {"collate", "8 dimensions"});
}

}  // namespace
}  // namespace tenon
