// Batches of a data set, shuffled and read ahead on a thread of their own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <type_traits>
#include <utility>

#include "tenon/nn/dataset.h"

namespace tenon::data {

/// How a `DataLoader` walks its data set.
struct DataLoaderOptions {
  std::int64_t batch_size = 1;
  bool shuffle = false;
  std::uint64_t seed = 0;     ///< of the shuffle and of random numbers that samples draw
  bool drop_last = false;     ///< leave out a last batch that would be smaller
  std::int64_t prefetch = 2;  ///< batches read ahead; 0 reads each when it is asked for
};

/// Yields the batches of a data set: `for (auto& batch : loader)` is one pass over it, and each
/// pass is the next epoch. The order depends on the seed and the epoch's number alone, and so do
/// the numbers that samples draw from the default generator. An exception of the data set is
/// thrown where the loop asks for the batch; leaving the loop early stops the reading.
class DataLoader {
  class Pass;

 public:
  /// Takes over (a copy of) `dataset`, of a class derived from `Dataset`. Throws `Error` on a
  /// batch size below 1 or a negative prefetch.
  template <class D>
  requires std::is_base_of_v<Dataset, D>
  explicit DataLoader(D dataset, const DataLoaderOptions& options = {})
      : DataLoader(std::shared_ptr<const Dataset>(std::make_shared<const D>(std::move(dataset))),
                   options) {}
  explicit DataLoader(std::shared_ptr<const Dataset> dataset,
                      const DataLoaderOptions& options = {});

  /// Where a pass stands; ends when compared with `end()`.
  class Iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using value_type = Batch;
    using difference_type = std::ptrdiff_t;
    using pointer = Batch*;
    using reference = Batch&;

    Batch& operator*() const;
    Batch* operator->() const { return &**this; }
    Iterator& operator++();
    bool operator==(std::default_sentinel_t) const;

   private:
    friend class DataLoader;
    explicit Iterator(std::shared_ptr<Pass> pass) : pass_(std::move(pass)) {}

    std::shared_ptr<Pass> pass_;
  };

  /// Begins a pass and advances `epoch()`.
  Iterator begin();
  std::default_sentinel_t end() const { return {}; }

  /// Batches of a whole pass.
  std::int64_t size() const;
  /// The number of the next pass, 0 at first.
  std::int64_t epoch() const { return epoch_; }
  /// Makes the next pass that of `epoch`, without its first `skip` batches: how training goes on
  /// from a checkpoint. Throws `Error` when a number is negative or `skip` exceeds `size()`.
  void set_epoch(std::int64_t epoch, std::int64_t skip = 0);
  const Dataset& dataset() const { return *dataset_; }
  const DataLoaderOptions& options() const { return options_; }

 private:
  std::shared_ptr<const Dataset> dataset_;
  DataLoaderOptions options_;
  std::int64_t epoch_ = 0;
  std::int64_t skip_ = 0;
};

}  // namespace tenon::data
