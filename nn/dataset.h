// Data sets: numbered samples, each a few tensors.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tenon/core/tensor.h"

namespace tenon::data {

/// One sample, or one batch of them: an image and its label, say.
using Batch = std::vector<Tensor>;

/// Samples by number. `get` and `batch` run on the data loader's thread while the program computes
/// on others; they must not change what others read.
class Dataset {
 public:
  virtual ~Dataset() = default;

  virtual std::int64_t size() const = 0;
  /// Sample `index`, 0 <= index < size(): tensors whose number, shapes and dtypes are the same for
  /// all samples.
  virtual Batch get(std::int64_t index) const = 0;
  /// The samples of `indices` stacked along a new first dimension. Override it where that is
  /// faster in one go.
  virtual Batch batch(std::span<const std::int64_t> indices) const;
};

/// The rows of tensors of equal first dimension: sample i is row i of each.
class TensorDataset : public Dataset {
 public:
  /// Throws `Error` when there is none, one is 0-dimensional or off the CPU, or the first
  /// dimensions differ.
  explicit TensorDataset(std::vector<Tensor> tensors);

  std::int64_t size() const override { return tensors_[0].size(0); }
  /// Views, no copies.
  Batch get(std::int64_t index) const override;
  /// Copies the rows.
  Batch batch(std::span<const std::int64_t> indices) const override;
  const std::vector<Tensor>& tensors() const { return tensors_; }

 private:
  std::vector<Tensor> tensors_;  // contiguous
};

/// Stacks samples along a new first dimension. Throws `Error` when there is none, or their
/// tensors differ in number, shape or dtype.
Batch collate(std::span<const Batch> samples);

}  // namespace tenon::data
