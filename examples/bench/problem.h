// What is to be timed: a block with its precision, device and inputs.
#pragma once

#include <string>
#include <vector>

#include "shapes.h"
#include "tenon/core/precision.h"
#include "tenon/core/tensor.h"
#include "tenon/ops/fused/conv_transpose2d_epilogue.h"

namespace bench {

/// The operands of one call; `grad_out` only where a backward is timed.
struct InputSet {
  tenon::Tensor x;
  tenon::Tensor weight;
  tenon::Tensor bias;
  tenon::Tensor grad_out;
};

/// tf32, float32, bfloat16 or float16.
struct Precision {
  std::string name;
  tenon::DType dtype;
  tenon::Float32Precision float32;
};
/// Throws `tenon::Error` for any other name.
Precision parse_precision(const std::string& name);

class Problem {
 public:
  /// Draws the inputs from the normal distribution, the weights scaled so that the convolution's
  /// result has a variance near one; as many sets as `rotation` asks for.
  Problem(const BlockShape& shape, const Precision& precision, tenon::Device device, bool train);

  const BlockShape& shape() const { return shape_; }
  const Precision& precision() const { return precision_; }
  tenon::Device device() const { return device_; }
  /// Whether the backward is timed too.
  bool train() const { return train_; }
  const tenon::ops::Epilogue& epilogue() const { return epilogue_; }
  const std::vector<InputSet>& sets() const { return sets_; }
  const InputSet& set(std::size_t i) const { return sets_[i % sets_.size()]; }

  /// The fewest bytes that a call can move: x, weight and bias read, z written; for training x,
  /// weight, bias and z's gradient read again and three gradients written, with y recomputed.
  std::int64_t floor_bytes() const;
  /// Useful operations of a call: one convolution, three for training. A recomputed y is not
  /// useful.
  double flop() const;
  std::int64_t bytes_of(const tenon::Shape& shape) const;

 private:
  BlockShape shape_;
  Precision precision_;
  tenon::Device device_;
  bool train_;
  tenon::ops::Epilogue epilogue_;
  std::vector<InputSet> sets_;
};

}  // namespace bench
