// Problems for the tests of the fused CUDA kernels, their results in float64, and running a plan.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>
#include <string>
#include <tuple>
#include <vector>

#include "fused_block_reference.h"
#include "support/environment.h"
#include "tenon/core/precision.h"
#include "tenon/ops/cuda/fused/kernel_choice.h"
#include "tenon/ops/ops.h"

namespace tenon::test {

// ---- problems --------------------------------------------------------------------------------

/// A kernel's size and the options of its convolution.
struct KernelGeometry {
  const char* name;
  Pair kernel;
  ops::ConvTranspose2dOptions options;
  bool table;  ///< the table has rows of this geometry
};

inline void PrintTo(const KernelGeometry& geometry, std::ostream* out) { *out << geometry.name; }

/// Those that the table has rows of: with other output paddings too.
inline std::vector<KernelGeometry> table_geometries() {
  return {
      {"k3_s2_p1_op1", 3, {.stride = 2, .padding = 1, .output_padding = 1}, true},
      {"k3_s2_p1", 3, {.stride = 2, .padding = 1}, true},
      {"k4_s2_p1", 4, {.stride = 2, .padding = 1}, true},
      {"k2_s2", 2, {.stride = 2}, true},
      {"k2_s2_op1", 2, {.stride = 2, .output_padding = 1}, true},
      {"k5_s2_p2_op1", 5, {.stride = 2, .padding = 2, .output_padding = 1}, true},
      {"k3_s1_p1", 3, {.padding = 1}, true},
      {"k5_s1_p2", 5, {.padding = 2}, true},
      {"k6_s2_p2", 6, {.stride = 2, .padding = 2}, true},
      {"k7_s2_p3_op1", 7, {.stride = 2, .padding = 3, .output_padding = 1}, true},
      {"k3_s3", 3, {.stride = 3}, true},
      {"k4_s4", 4, {.stride = 4}, true},
      {"groups2_k3_s2_p1_op1",
       3,
       {.stride = 2, .padding = 1, .output_padding = 1, .groups = 2},
       true},
      {"groups3_k3_s1_p1", 3, {.padding = 1, .groups = 3}, true},
  };
}

/// Rectangles, other strides and kernels, dilation, phases without a tap.
inline std::vector<KernelGeometry> other_geometries() {
  return {
      {"k1_s1", 1, {}, false},
      {"k1_s2", 1, {.stride = 2}, false},
      {"k1_s3_p1_op2", 1, {.stride = 3, .padding = 1, .output_padding = 2}, false},
      {"k2_s1", 2, {}, false},
      {"k2_s3", 2, {.stride = 3}, false},
      {"k3_s1_p0", 3, {}, false},
      {"k3_s1_p3", 3, {.padding = 3}, false},
      {"k3_s2_p2", 3, {.stride = 2, .padding = 2}, false},
      {"k3_s3_p1", 3, {.stride = 3, .padding = 1}, false},
      {"k5_s3_p2_op1", 5, {.stride = 3, .padding = 2, .output_padding = 1}, false},
      {"k7_s1_p3", 7, {.padding = 3}, false},
      {"k7_s4_p2_op3", 7, {.stride = 4, .padding = 2, .output_padding = 3}, false},
      {"k3x5_s2x1", {3, 5}, {.stride = {2, 1}, .padding = {1, 2}}, false},
      {"k5x2_s1x2", {5, 2}, {.stride = {1, 2}, .padding = {2, 0}}, false},
      {"k4x3_s2x4_op1x3", {4, 3}, {.stride = {2, 4}, .output_padding = {1, 3}}, false},
      {"k3x4_s4x2", {3, 4}, {.stride = {4, 2}, .padding = {0, 1}}, false},
      {"k3_s3x2_p1x0", 3, {.stride = {3, 2}, .padding = {1, 0}}, false},
      {"k2x7_s2x3_p0x3", {2, 7}, {.stride = {2, 3}, .padding = {0, 3}}, false},
      {"k1x4_s1x4", {1, 4}, {.stride = {1, 4}}, false},
      {"k3_s1_p2_d2", 3, {.padding = 2, .dilation = 2}, false},
      {"k3_s2_p2_d2_op1",
       3,
       {.stride = 2, .padding = 2, .output_padding = 1, .dilation = 2},
       false},
      {"k3_s3_p1_d2", 3, {.stride = 3, .padding = 1, .dilation = 2}, false},
      {"k2x3_s2_d1x2", {2, 3}, {.stride = 2, .padding = {0, 1}, .dilation = {1, 2}}, false},
      {"groups2_k4_s2_p0", 4, {.stride = 2, .groups = 2}, false},
      {"groups3_k3_s3_d2", 3, {.stride = 3, .dilation = 2, .groups = 3}, false},
  };
}

/// Of x and the output channels; channels are those of one group.
struct KernelSizes {
  std::int64_t batch, in, height, width, out;
};

/// One element, edges of every kind, whole tiles, one and several stages and tiles of channels, and
/// at the end more tiles than a GPU has multiprocessors.
inline std::vector<KernelSizes> sizes_of(const KernelGeometry& geometry) {
  if (!geometry.table) {
    return {{1, 1, 1, 1, 1},   {2, 3, 5, 7, 5},  {1, 19, 9, 33, 33}, {3, 8, 6, 20, 32},
            {2, 64, 4, 8, 70}, {5, 9, 3, 66, 3}, {2, 9, 33, 70, 40}};
  }
  return {{1, 1, 1, 1, 1},     {2, 3, 5, 7, 5},    {1, 8, 9, 33, 32},   {3, 19, 17, 20, 33},
          {5, 64, 7, 8, 64},   {2, 64, 6, 64, 64}, {1, 70, 3, 70, 70},  {4, 8, 11, 13, 64},
          {1, 19, 3, 66, 5},   {2, 70, 33, 6, 32}, {5, 3, 8, 12, 70},   {8, 64, 8, 8, 64},
          {1, 64, 4, 129, 64}, {1, 200, 5, 9, 40}, {3, 19, 45, 70, 70}, {5, 19, 64, 64, 70}};
}

inline Shape x_shape(const KernelGeometry& geometry, const KernelSizes& s) {
  return {s.batch, s.in * geometry.options.groups, s.height, s.width};
}
inline Shape weight_shape(const KernelGeometry& geometry, const KernelSizes& s) {
  return {s.in * geometry.options.groups, s.out, geometry.kernel.h, geometry.kernel.w};
}
/// Of z; may have sizes below 1, where there is no such convolution.
inline Shape z_shape(const KernelGeometry& geometry, const KernelSizes& s) {
  return transposed_shape(x_shape(geometry, s), weight_shape(geometry, s), geometry.options);
}
inline bool exists(const KernelGeometry& geometry, const KernelSizes& s) {
  const Shape z = z_shape(geometry, s);
  return z[2] > 0 && z[3] > 0;
}

// ---- precisions ------------------------------------------------------------------------------

/// The arithmetics that there are rows for.
inline std::vector<CoarsePrecision> kernel_precisions() {
  return {{"tf32", DType::Float32, 11, 1e-3},
          {"float32", DType::Float32, 24, 2e-6},
          {"bfloat16", DType::BFloat16, 8, 1e-2},
          {"float16", DType::Float16, 11, 2e-3}};
}
inline bool is_strict(const CoarsePrecision& precision) { return precision.bits == 24; }
inline Float32Precision float32_mode(const CoarsePrecision& precision) {
  return is_strict(precision) ? Float32Precision::Float32 : Float32Precision::Tf32;
}

/// What tensors of that precision are on the tensor cores.
inline ops::cuda::OperandKind operand_of(const CoarsePrecision& precision) {
  switch (precision.dtype) {
    case DType::Float16:
      return ops::cuda::OperandKind::Float16;
    case DType::BFloat16:
      return ops::cuda::OperandKind::BFloat16;
    default:
      return ops::cuda::OperandKind::Tf32;
  }
}

/// The name of a test of a geometry in an arithmetic.
inline std::string kernel_test_name(
    const testing::TestParamInfo<std::tuple<KernelGeometry, CoarsePrecision>>& info) {
  return std::string(std::get<0>(info.param).name) + "_" + std::get<1>(info.param).name;
}

// ---- blocks ----------------------------------------------------------------------------------

/// Neither bound hides most of the values, and z is never near 0: mish is above -0.31.
inline constexpr ops::Epilogue kKernelChain{.add = 0.5, .min = -2, .max = 3, .scale = 2};

/// Inputs on the CPU that `precision` holds exactly; a third of the sizes has no bias.
inline BlockCase kernel_block(const KernelGeometry& geometry, const KernelSizes& s,
                              const CoarsePrecision& precision) {
  const double terms = static_cast<double>(s.in * geometry.kernel.h * geometry.kernel.w) /
                       static_cast<double>(geometry.options.stride.h * geometry.options.stride.w);
  const auto draw = [&](const Shape& shape, std::uint64_t seed, double spread) {
    return precision.round(normal(shape, DType::Float64, seed) * spread);
  };
  BlockCase block;
  block.options = geometry.options;
  block.epilogue = kKernelChain;
  block.x = draw(x_shape(geometry, s), 1, 1);
  block.weight = draw(weight_shape(geometry, s), 2, 1 / std::sqrt(std::max(terms, 1.0)));
  if ((s.width + s.out) % 3 != 0) block.bias = draw({z_shape(geometry, s)[1]}, 3, 0.5);
  return block;
}

/// z in float64 by the unfused ops on the CPU.
inline Tensor kernel_reference(const BlockCase& block) {
  const Tensor y = ops::conv_transpose2d(block.x, block.weight, block.bias, block.options);
  const ops::Epilogue& e = block.epilogue;
  return ops::hardtanh(ops::mish(y) + e.add, e.min, e.max) * e.scale;
}

/// A block's inputs on the GPU.
struct KernelInputs {
  Tensor x, weight, bias;
  ops::ConvTranspose2dOptions options;
  ops::Epilogue epilogue;
  Shape z;

  KernelInputs(const BlockCase& block, const CoarsePrecision& precision)
      : x(block.x.to(Device::cuda(), precision.dtype)),
        weight(block.weight.to(Device::cuda(), precision.dtype)),
        bias(block.bias.defined() ? block.bias.to(Device::cuda(), precision.dtype) : Tensor()),
        options(block.options),
        epilogue(block.epilogue),
        z(transposed_shape(x.shape(), weight.shape(), options)) {}

  ops::cuda::BlockProblem problem() const {
    return ops::cuda::BlockProblem::of(x.spec(), weight.shape(), z, options, epilogue);
  }
  /// z by `plan`, over memory that holds `poison` everywhere.
  Tensor run(const ops::cuda::KernelPlan& plan,
             double poison = std::numeric_limits<double>::quiet_NaN()) const {
    const Tensor result = full(z, poison, {.dtype = x.dtype(), .device = x.device()});
    run_kernel_plan(plan, x, weight, bias, options, epilogue, result);
    return result;
  }
  Tensor run_op() const {
    return ops::conv_transpose2d_epilogue(x, weight, bias, options, epilogue);
  }
};

// ---- comparing -------------------------------------------------------------------------------

/// What is wrong where `value` differs from `reference` by more than `bound`, NaN and infinities
/// included; empty where nothing is.
inline std::string wrong_elements(const Tensor& value, const Tensor& reference, double bound) {
  const std::vector<double> got = value.to_vector<double>();
  const std::vector<double> wanted = reference.to_vector<double>();
  std::size_t count = 0;
  std::size_t first = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const bool both_nan = std::isnan(got[i]) && std::isnan(wanted[i]);
    if (both_nan || got[i] == wanted[i] || std::abs(got[i] - wanted[i]) <= bound) continue;
    if (count++ == 0) first = i;
  }
  if (count == 0) return "";
  std::ostringstream out;
  out << count << " of " << got.size() << " elements are wrong, first [";
  auto rest = static_cast<std::int64_t>(first);
  std::int64_t size = reference.numel();
  for (const std::int64_t dim : reference.shape()) {
    size /= dim;
    out << ' ' << rest / size;
    rest %= size;
  }
  out << " ] of " << reference.shape() << ": " << got[first] << ", should be " << wanted[first];
  return out.str();
}

/// Compares on the GPU: ‖value - reference‖ / ‖reference‖ with `tolerance`, and each element with a
/// bound that one misplaced number exceeds, however many right ones there are.
inline void expect_near(const Tensor& value, const Tensor& reference, double tolerance) {
  const Tensor difference = value.to(DType::Float64) - reference;
  const double error =
      std::sqrt(ops::sum(ops::square(difference)).item() / ops::sum(ops::square(reference)).item());
  const double worst = ops::max(ops::abs(difference)).item();
  const double bound = 16 * tolerance;
  // A NaN is not at most anything.
  EXPECT_LE(error, tolerance) << wrong_elements(value, reference, bound);
  EXPECT_LE(worst, bound) << wrong_elements(value, reference, bound);
}

}  // namespace tenon::test
