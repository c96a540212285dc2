// The CUDA kernels of the fused backward, each row of their tables that fits: dy, the sums for the
// bias and dx, against float64.
#include <gtest/gtest.h>

#ifdef TENON_WITH_CUDA

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <optional>
#include <tuple>

#include "fused_kernel_cases.h"
#include "tenon/ops/cuda/fused/backward_kernels.h"
#include "tenon/ops/cuda/fused/channel_rows_ops.h"

namespace tenon {
namespace {

using ops::TransposedShape;
using ops::cuda::ChannelRows;
using ops::cuda::KernelPlan;
using ops::cuda::OperandKind;
using ops::cuda::Work;
using test::BlockCase;
using test::CoarsePrecision;
using test::EnvironmentGuard;
using test::expect_near;
using test::KernelGeometry;
using test::KernelInputs;
using test::KernelSizes;

using Parameters = std::tuple<KernelGeometry, CoarsePrecision>;

/// Rows with memory, all of whose bytes make a NaN.
struct Rows {
  ChannelRows rows;
  Tensor buffer;

  explicit Rows(const ChannelRows& sizes) : rows(sizes) {
    buffer = ops::cuda::allocate_rows(rows, Device::cuda());
    buffer.copy_(full(buffer.shape(), 255, {.dtype = DType::UInt8, .device = buffer.device()}));
  }

  /// Number `channel` (of all groups, padding included) of a phase's position.
  static double number(const ChannelRows& rows, DType dtype, const std::vector<std::uint8_t>& bytes,
                       std::int64_t chunk, int within, std::int64_t image, std::int64_t position) {
    const std::int64_t row = chunk * rows.chunk_rows() + image * rows.image_rows() + position;
    const std::uint8_t* at = bytes.data() + 16 * row + within * item_size(dtype);
    if (dtype == DType::Float32) {
      float value;
      std::memcpy(&value, at, sizeof(value));
      return value;
    }
    std::uint16_t bits;
    std::memcpy(&bits, at, sizeof(bits));
    return dtype == DType::BFloat16
               ? static_cast<double>(static_cast<float>(std::bit_cast<bfloat16>(bits)))
               : static_cast<double>(static_cast<float>(std::bit_cast<float16>(bits)));
  }

  /// The tensor [N, C, Hout, Wout] that the rows of `shape`'s y stand for; fails where what is
  /// beyond it is not zero.
  Tensor to_planes(const TransposedShape& shape, DType dtype) const {
    const std::vector<std::uint8_t> bytes = buffer.to_vector<std::uint8_t>();
    const std::int64_t height = shape.rows.output;
    const std::int64_t width = shape.columns.output;
    const int across = dtype == DType::Float32 ? 4 : 8;
    std::vector<double> values(static_cast<std::size_t>(shape.images * shape.groups *
                                                        shape.out_channels * height * width));
    std::int64_t not_zero = 0;
    for (std::int64_t image = 0; image < rows.images; ++image) {
      for (std::int64_t c = 0; c < rows.groups * rows.chunks * across; ++c) {
        const std::int64_t group = c / (rows.chunks * across);
        const std::int64_t channel = c % (rows.chunks * across);
        for (std::int64_t position = 0; position < rows.image_rows(); ++position) {
          const std::int64_t phase = position / (rows.rows * rows.columns);
          const std::int64_t row = position / rows.columns % rows.rows * shape.rows.stride +
                                   phase / shape.columns.stride;
          const std::int64_t column =
              position % rows.columns * shape.columns.stride + phase % shape.columns.stride;
          const double value =
              number(rows, dtype, bytes, c / across, static_cast<int>(c % across), image, position);
          if (channel < shape.out_channels && row < height && column < width) {
            const std::int64_t plane =
                (image * shape.groups + group) * shape.out_channels + channel;
            values[static_cast<std::size_t>((plane * height + row) * width + column)] = value;
          } else if (value != 0) {
            ++not_zero;
          }
        }
      }
    }
    EXPECT_EQ(not_zero, 0) << "numbers beyond the tensor";
    return tensor(values, Shape{shape.images, shape.groups * shape.out_channels, height, width});
  }
};

/// dy, dx and the bias's gradient by the unfused ops in float64 on the CPU.
struct Reference {
  Tensor grad_y, grad_x, grad_bias;
  // Of each number the norm of the terms that it is a sum of.
  Tensor grad_x_terms, grad_bias_terms;

  explicit Reference(const BlockCase& block) {
    const Tensor x = test::leaf(block.x, DType::Float64);
    const Tensor y = ops::conv_transpose2d(x, block.weight, block.bias, block.options);
    const Tensor leaf = test::leaf(y, DType::Float64);
    const Tensor z = (ops::mish(leaf) + block.epilogue.add) * block.epilogue.scale;
    z.backward(block.grad_out);
    grad_y = leaf.grad();
    y.backward(grad_y);
    grad_x = x.grad();
    grad_bias = ops::sum(grad_y, {0, 2, 3});
    grad_bias_terms = ops::sqrt(ops::sum(ops::square(grad_y), {0, 2, 3}));
    // dx with all terms squared.
    const Tensor squares = test::leaf(block.x, DType::Float64);
    ops::conv_transpose2d(squares, ops::square(block.weight), {}, block.options)
        .backward(ops::square(grad_y));
    grad_x_terms = ops::sqrt(squares.grad());
  }
};

/// Compares sums. A sum whose terms cancel is as inexact as they are: with few elements that is
/// what remains to compare with.
void expect_sums_near(const Tensor& value, const Tensor& reference, const Tensor& terms,
                      double tolerance) {
  const auto norm = [](const Tensor& t) { return std::sqrt(ops::sum(ops::square(t)).item()); };
  const Tensor difference = value.to(DType::Float64) - reference;
  const double bound = 16 * tolerance * std::max(1.0, ops::max(terms).item());
  const std::string wrong = test::wrong_elements(value, reference, bound);
  EXPECT_LE(norm(difference), tolerance * std::max(norm(reference), norm(terms))) << wrong;
  EXPECT_EQ(wrong, "");
}

class BackwardKernels : public testing::TestWithParam<Parameters> {
 protected:
  BackwardKernels() : mode_(test::float32_mode(precision())) {}
  void SetUp() override { TENON_SKIP_WITHOUT_GPU(); }

  const KernelGeometry& geometry() const { return std::get<0>(GetParam()); }
  const CoarsePrecision& precision() const { return std::get<1>(GetParam()); }

  /// Without bounds, on whose other side a value in another precision may lie.
  BlockCase block(const KernelSizes& size) const {
    BlockCase block = test::kernel_block(geometry(), size, precision());
    block.epilogue = {.mish = true, .add = 0.5, .scale = 2};
    block.grad_out =
        precision().round(test::normal(test::z_shape(geometry(), size), DType::Float64, 4));
    return block;
  }

 private:
  Float32PrecisionGuard mode_;
};

/// A problem's operands on the GPU, as the kernels take them.
class Operands {
 public:
  Operands(const BlockCase& block, const CoarsePrecision& precision)
      : inputs(block, precision),
        grad_out(block.grad_out.to(Device::cuda(), precision.dtype)),
        shape(
            TransposedShape::of(inputs.x.shape(), inputs.weight.shape(), inputs.z, inputs.options)),
        kind(test::operand_of(precision)),
        exact(test::is_strict(precision)),
        x_rows(ops::cuda::input_rows(shape, kind, exact)) {
    ops::cuda::pack_channel_rows(inputs.x, kind, x_rows.rows);
  }

  /// dy by `plan`, and the gradient of the bias.
  std::pair<Rows, Tensor> sum_gradient(const KernelPlan& plan) const {
    Rows rows(ops::cuda::output_rows(shape, kind, exact));
    const std::int64_t channels = std::int64_t{shape.groups} * shape.out_channels;
    const Tensor sums = full({bias_sum_rows(plan.row->config, plan.tiling), channels}, NAN,
                             {.dtype = DType::Float32, .device = Device::cuda()});
    // Who reads planes must not need rows.
    run_sum_gradient(plan, inputs.x, takes_rows(plan) ? x_rows.rows : ChannelRows{}, inputs.weight,
                     inputs.bias, grad_out, inputs.epilogue, rows.rows, sums);
    return {rows, ops::sum(sums, {0})};
  }
  Tensor data_gradient(const KernelPlan& plan, const Rows& grad_y, int multiprocessors) const {
    const Tensor grad_x =
        full(inputs.x.shape(), NAN, {.dtype = inputs.x.dtype(), .device = inputs.x.device()});
    run_data_gradient(plan, grad_y.rows, inputs.weight, grad_x, multiprocessors);
    return grad_x;
  }

  KernelInputs inputs;
  Tensor grad_out;
  TransposedShape shape;
  OperandKind kind;
  bool exact;
  Rows x_rows;
};

TEST_P(BackwardKernels, OfEveryRowAreNearFloat64) {
  int rows = 0;
  for (const KernelSizes& size : test::sizes_of(geometry())) {
    if (!test::exists(geometry(), size)) continue;
    const BlockCase block = BackwardKernels::block(size);
    const Reference reference(block);
    const Operands operands(block, precision());
    const DType dtype = precision().dtype;
    for (const std::string architecture : {"", "89", "80"}) {
      const EnvironmentGuard forced("TENON_FORCE_ARCH", architecture);
      SCOPED_TRACE("TENON_FORCE_ARCH=" + architecture + ", " + testing::PrintToString(block));
      std::optional<Rows> grad_y;
      for (const KernelPlan& plan : kernel_plans(operands.inputs.problem(), Work::SumGradient)) {
        SCOPED_TRACE(plan.row->name);
        const auto [result, grad_bias] = operands.sum_gradient(plan);
        expect_near(result.to_planes(operands.shape, dtype), reference.grad_y,
                    precision().tolerance);
        expect_sums_near(grad_bias.to(Device::cpu()), reference.grad_bias,
                         reference.grad_bias_terms, precision().tolerance);
        if (HasFailure()) return;
        grad_y = result;
        ++rows;
      }
      if (!grad_y) continue;
      for (const KernelPlan& plan : kernel_plans(operands.inputs.problem(), Work::DataGradient)) {
        SCOPED_TRACE(plan.row->name);
        // Many multiprocessors or few, for tiles that are the same.
        const Tensor grad_x = operands.data_gradient(plan, *grad_y, 132);
        expect_sums_near(grad_x.to(Device::cpu()), reference.grad_x, reference.grad_x_terms,
                         precision().tolerance);
        test::expect_same_bits(operands.data_gradient(plan, *grad_y, 3), grad_x);
        if (HasFailure()) return;
        ++rows;
      }
    }
  }
  if (rows == 0) GTEST_SKIP() << "no row fits: left to cuDNN and a pass";
}

INSTANTIATE_TEST_SUITE_P(Table, BackwardKernels,
                         testing::Combine(testing::ValuesIn(test::table_geometries()),
                                          testing::ValuesIn(test::kernel_precisions())),
                         test::kernel_test_name);
INSTANTIATE_TEST_SUITE_P(Other, BackwardKernels,
                         testing::Combine(testing::ValuesIn(test::other_geometries()),
                                          testing::ValuesIn(test::kernel_precisions())),
                         test::kernel_test_name);

}  // namespace
}  // namespace tenon

#else

TEST(BackwardKernels, NeedCuda) { GTEST_SKIP() << "built without CUDA"; }

#endif
