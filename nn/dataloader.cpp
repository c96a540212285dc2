#include "tenon/nn/dataloader.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "tenon/core/autograd.h"
#include "tenon/core/factories.h"
#include "tenon/core/random.h"

namespace tenon::data {
namespace {

/// Makes this thread's default generator another one for the scope's lifetime.
class GeneratorScope {
 public:
  explicit GeneratorScope(const Generator& generator)
      : previous_(std::exchange(default_generator(), generator)) {}
  ~GeneratorScope() { default_generator() = previous_; }
  GeneratorScope(const GeneratorScope&) = delete;
  GeneratorScope& operator=(const GeneratorScope&) = delete;

 private:
  Generator previous_;
};

/// A generator for `epoch`, and within it for `stream`: the seed is run through Philox, so that
/// neither epochs nor streams share numbers, with each other or with a model drawn from the seed.
Generator generator_for(std::uint64_t seed, std::uint64_t epoch, std::uint64_t stream) {
  const auto low = [](std::uint64_t value) { return static_cast<std::uint32_t>(value); };
  const auto high = [](std::uint64_t value) { return static_cast<std::uint32_t>(value >> 32); };
  const auto words =
      philox4x32({low(epoch), high(epoch), low(stream), high(stream)}, {low(seed), high(seed)});
  return Generator(std::uint64_t{words[1]} << 32 | words[0]);
}

/// The stream of the shuffle; batch b of the epoch uses stream b.
constexpr std::uint64_t kShuffleStream = ~std::uint64_t{0};

}  // namespace

/// One walk over the data set. With prefetch, a thread reads the batches in order into a bounded
/// queue; an exception ends the walk and travels through the queue like a batch.
class DataLoader::Pass {
 public:
  Pass(std::shared_ptr<const Dataset> dataset, const DataLoaderOptions& options, std::int64_t epoch,
       std::int64_t first, std::int64_t batches)
      : dataset_(std::move(dataset)),
        options_(options),
        epoch_(static_cast<std::uint64_t>(epoch)),
        next_(first),
        batches_(batches) {
    const std::int64_t samples = dataset_->size();
    if (options_.shuffle) {
      Generator generator = generator_for(options_.seed, epoch_, kShuffleStream);
      order_ = randperm(samples, generator).to_vector<std::int64_t>();
    } else {
      order_.resize(static_cast<std::size_t>(samples));
      for (std::size_t i = 0; i < order_.size(); ++i) order_[i] = static_cast<std::int64_t>(i);
    }
    if (options_.prefetch > 0) worker_ = std::thread([this] { read_ahead(); });
    advance();
  }

  ~Pass() { stop(); }
  Pass(const Pass&) = delete;
  Pass& operator=(const Pass&) = delete;

  bool at_end() const { return !current_.has_value(); }
  Batch& current() { return *current_; }

  /// Waits for the next batch. Throws what the data set threw while reading it.
  void advance() {
    current_.reset();
    Item item = options_.prefetch > 0 ? take() : read(next_++);
    if (item.error != nullptr) {
      stop();
      next_ = batches_;
      std::rethrow_exception(item.error);
    }
    current_ = std::move(item.batch);
  }

 private:
  /// What came of reading one batch; neither part for the end of the walk.
  struct Item {
    std::optional<Batch> batch;
    std::exception_ptr error;
  };

  Item read(std::int64_t number) {
    if (number >= batches_) return {};
    const NoGradGuard no_history;
    const GeneratorScope scope(
        generator_for(options_.seed, epoch_, static_cast<std::uint64_t>(number)));
    const auto begin = static_cast<std::size_t>(number * options_.batch_size);
    const std::size_t count =
        std::min(static_cast<std::size_t>(options_.batch_size), order_.size() - begin);
    try {
      return {dataset_->batch(std::span<const std::int64_t>(&order_[begin], count)), nullptr};
    } catch (...) {
      return {std::nullopt, std::current_exception()};
    }
  }

  /// The worker's work.
  void read_ahead() {
    for (std::int64_t number = next_;; ++number) {
      Item item = read(number);
      const bool last = !item.batch.has_value();
      std::unique_lock lock(mutex_);
      space_.wait(lock, [this] {
        return stopping_ || static_cast<std::int64_t>(queue_.size()) < options_.prefetch;
      });
      if (stopping_) return;
      queue_.push_back(std::move(item));
      lock.unlock();
      items_.notify_one();
      if (last) return;
    }
  }

  Item take() {
    if (ended_) return {};
    std::unique_lock lock(mutex_);
    items_.wait(lock, [this] { return !queue_.empty(); });
    Item item = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    space_.notify_one();
    ended_ = !item.batch.has_value();
    return item;
  }

  void stop() {
    if (!worker_.joinable()) return;
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    space_.notify_one();
    worker_.join();
  }

  const std::shared_ptr<const Dataset> dataset_;
  const DataLoaderOptions options_;
  const std::uint64_t epoch_;
  std::vector<std::int64_t> order_;
  std::int64_t next_;  // without prefetch: the batch to read; with it: the worker's first
  const std::int64_t batches_;
  std::optional<Batch> current_;
  bool ended_ = false;

  std::mutex mutex_;  // guards the queue and the flag
  std::condition_variable items_;
  std::condition_variable space_;
  std::deque<Item> queue_;
  bool stopping_ = false;
  std::thread worker_;
};

DataLoader::DataLoader(std::shared_ptr<const Dataset> dataset, const DataLoaderOptions& options)
    : dataset_(std::move(dataset)), options_(options) {
  TENON_CHECK(dataset_ != nullptr, "DataLoader: the data set is null");
  TENON_CHECK(options_.batch_size >= 1, "DataLoader: batch_size must be at least 1, got ",
              options_.batch_size);
  TENON_CHECK(options_.prefetch >= 0, "DataLoader: prefetch must be at least 0, got ",
              options_.prefetch);
}

std::int64_t DataLoader::size() const {
  const std::int64_t samples = dataset_->size();
  const std::int64_t whole = samples / options_.batch_size;
  return options_.drop_last || samples % options_.batch_size == 0 ? whole : whole + 1;
}

void DataLoader::set_epoch(std::int64_t epoch, std::int64_t skip) {
  TENON_CHECK(epoch >= 0, "DataLoader: epoch must be at least 0, got ", epoch);
  TENON_CHECK(skip >= 0 && skip <= size(), "DataLoader: cannot skip ", skip,
              " batches of a pass of ", size());
  epoch_ = epoch;
  skip_ = skip;
}

DataLoader::Iterator DataLoader::begin() {
  const std::int64_t first = std::exchange(skip_, 0);
  return Iterator(std::make_shared<Pass>(dataset_, options_, epoch_++, first, size()));
}

Batch& DataLoader::Iterator::operator*() const { return pass_->current(); }

DataLoader::Iterator& DataLoader::Iterator::operator++() {
  pass_->advance();
  return *this;
}

bool DataLoader::Iterator::operator==(std::default_sentinel_t) const { return pass_->at_end(); }

}  // namespace tenon::data
