#include "tenon/nn/dataset.h"

#include <cstddef>
#include <cstring>
#include <utility>

#include "tenon/core/autograd.h"
#include "tenon/core/factories.h"

namespace tenon::data {
namespace {

Shape with_rows(std::int64_t rows, const Shape& row) {
  TENON_CHECK(row.size() < kMaxDims, "collate: samples of shape ", row, " have ", row.size(),
              " dimensions, a batch of them would have more than ", kMaxDims);
  Shape shape = row;
  shape.insert(0, rows);
  return shape;
}

void check_index(std::int64_t index, std::int64_t size) {
  TENON_CHECK(index >= 0 && index < size, "TensorDataset: index ", index,
              " is outside of the data set of ", size, " samples");
}

}  // namespace

Batch Dataset::batch(std::span<const std::int64_t> indices) const {
  std::vector<Batch> samples;
  samples.reserve(indices.size());
  for (std::int64_t index : indices) samples.push_back(get(index));
  return collate(samples);
}

TensorDataset::TensorDataset(std::vector<Tensor> tensors) : tensors_(std::move(tensors)) {
  TENON_CHECK(!tensors_.empty(), "TensorDataset: needs at least one tensor, got 0");
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    Tensor& tensor = tensors_[i];
    TENON_CHECK(tensor.defined(), "TensorDataset: tensor ", i, " is undefined");
    TENON_CHECK(tensor.dim() >= 1, "TensorDataset: tensor ", i,
                " is 0-dimensional; its first dimension must number the samples");
    TENON_CHECK(tensor.device().is_cpu(), "TensorDataset: tensor ", i, " is on ", tensor.device(),
                ", must be on the CPU");
    TENON_CHECK(tensor.size(0) == tensors_[0].size(0), "TensorDataset: tensor ", i, " has ",
                tensor.size(0), " rows but tensor 0 has ", tensors_[0].size(0));
    tensor = tensor.detach().contiguous();
  }
}

Batch TensorDataset::get(std::int64_t index) const {
  check_index(index, size());
  Batch sample;
  for (const Tensor& tensor : tensors_) sample.push_back(tensor.select(0, index));
  return sample;
}

Batch TensorDataset::batch(std::span<const std::int64_t> indices) const {
  for (std::int64_t index : indices) check_index(index, size());
  Batch result;
  for (const Tensor& tensor : tensors_) {
    Shape shape = tensor.shape();
    shape[0] = static_cast<std::int64_t>(indices.size());
    result.push_back(empty(shape, {.dtype = tensor.dtype()}));
    std::size_t row_bytes = item_size(tensor.dtype());
    for (std::size_t d = 1; d < shape.size(); ++d) row_bytes *= static_cast<std::size_t>(shape[d]);
    const auto* source = static_cast<const std::byte*>(tensor.raw_data());
    auto* target = static_cast<std::byte*>(result.back().raw_data());
    for (std::int64_t index : indices) {
      std::memcpy(target, source + static_cast<std::size_t>(index) * row_bytes, row_bytes);
      target += row_bytes;
    }
  }
  return result;
}

Batch collate(std::span<const Batch> samples) {
  TENON_CHECK(!samples.empty(), "collate: needs at least one sample, got 0");
  const NoGradGuard no_history;
  const Batch& first = samples[0];
  Batch result;
  for (const Tensor& tensor : first) {
    const Shape shape = with_rows(static_cast<std::int64_t>(samples.size()), tensor.shape());
    result.push_back(empty(shape, {.dtype = tensor.dtype(), .device = tensor.device()}));
  }
  for (std::size_t row = 0; row < samples.size(); ++row) {
    TENON_CHECK(samples[row].size() == first.size(), "collate: sample ", row, " has ",
                samples[row].size(), " tensors but sample 0 has ", first.size());
    for (std::size_t k = 0; k < first.size(); ++k) {
      TENON_CHECK(samples[row][k].spec() == first[k].spec(), "collate: tensor ", k, " of sample ",
                  row, " is ", samples[row][k].spec(), " but that of sample 0 is ",
                  first[k].spec());
      result[k].select(0, static_cast<std::int64_t>(row)).copy_(samples[row][k]);
    }
  }
  return result;
}

}  // namespace tenon::data
