// The fused backward's weight gradient from rows of channels: every kernel with tiles of every
// kind, not only the plan that would be chosen, against float64. And the sums of the bias's.
#include <gtest/gtest.h>

#ifdef TENON_WITH_CUDA

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <sstream>
#include <vector>

#include "fused_kernel_cases.h"
#include "tenon/ops/cuda/fused/bias_sums.h"
#include "tenon/ops/cuda/fused/weight_gradient.h"

namespace tenon {
namespace {

using ops::TransposedShape;
using ops::cuda::ChannelRows;
using ops::cuda::OperandKind;
using ops::cuda::WeightGradientPlan;
using ops::cuda::WeightGradientProblem;
using ops::cuda::WeightGradientRow;
using ops::cuda::WeightGradientTarget;
using ops::cuda::WeightGradientTile;
using test::CoarsePrecision;
using test::Image;
using test::KernelGeometry;
using test::KernelSizes;
using test::operand_of;

WeightGradientProblem problem_of(const TransposedShape& shape, const CoarsePrecision& precision) {
  return {shape, operand_of(precision), test::is_strict(precision)};
}

TransposedShape shape_of(const KernelGeometry& geometry, const KernelSizes& size) {
  return TransposedShape::of(test::x_shape(geometry, size), test::weight_shape(geometry, size),
                             test::z_shape(geometry, size), geometry.options);
}

// ---- rows of channels ------------------------------------------------------------------------

/// To the nearest TF32, ties away from zero.
double tf32(double value) {
  const auto bits = std::bit_cast<std::uint32_t>(static_cast<float>(value));
  return std::bit_cast<float>((bits + 0x1000U) & ~0x1fffU);
}

/// The numbers of `rows` by the definition, of values [N, groups·C, H, W] whose axes have phases of
/// these strides.
std::vector<double> list_rows(const Image& values, const ChannelRows& rows, OperandKind operand,
                              Pair stride) {
  const int row = ops::cuda::row_channels(operand);
  std::vector<double> list(static_cast<std::size_t>(rows.bytes() / 16 * row));
  const std::int64_t channels = values.shape[1] / rows.groups;
  const std::int64_t group_numbers = rows.chunk_rows() * rows.chunks * row;
  std::size_t source = 0;
  for (std::int64_t n = 0; n < values.shape[0]; ++n) {
    for (std::int64_t c = 0; c < values.shape[1]; ++c) {
      for (std::int64_t h = 0; h < values.shape[2]; ++h) {
        for (std::int64_t w = 0; w < values.shape[3]; ++w, ++source) {
          const std::int64_t phase = h % stride.h * stride.w + w % stride.w;
          const std::int64_t position =
              ((n * rows.phases + phase) * rows.rows + h / stride.h) * rows.columns + w / stride.w;
          const std::int64_t chunk = c % channels / row;
          const std::int64_t at = c / channels * group_numbers +
                                  (chunk * rows.chunk_rows() + position) * row + c % channels % row;
          const double value = values.values[source];
          const bool rounds = operand == OperandKind::Tf32 && !rows.exact;
          list.at(static_cast<std::size_t>(at)) = rounds ? tf32(value) : value;
        }
      }
    }
  }
  return list;
}

/// Rows on the GPU and their memory.
struct DeviceRows {
  ChannelRows rows;
  Tensor memory;

  static DeviceRows of_output(const Image& dy, const TransposedShape& shape,
                              const CoarsePrecision& precision) {
    const OperandKind operand = operand_of(precision);
    ChannelRows rows = ops::cuda::output_rows(shape, operand, test::is_strict(precision));
    const std::vector<double> list =
        list_rows(dy, rows, operand, {shape.rows.stride, shape.columns.stride});
    const Tensor memory =
        tensor(list, {static_cast<std::int64_t>(list.size())}).to(Device::cuda(), precision.dtype);
    rows.data = memory.raw_data();
    return {rows, memory};
  }
  /// By the pass, over memory full of NaN.
  static DeviceRows of_input(const Tensor& x, const TransposedShape& shape,
                             const CoarsePrecision& precision) {
    const OperandKind operand = operand_of(precision);
    ChannelRows rows = ops::cuda::input_rows(shape, operand, test::is_strict(precision));
    const auto size = static_cast<std::int64_t>(item_size(precision.dtype));
    const Tensor memory = full({rows.bytes() / size}, std::numeric_limits<double>::quiet_NaN(),
                               {.dtype = precision.dtype, .device = Device::cuda()});
    rows.data = memory.raw_data();
    ops::cuda::pack_channel_rows(x.to(Device::cuda(), precision.dtype), operand, rows);
    return {rows, memory};
  }
};

class ChannelRowsPass : public testing::TestWithParam<CoarsePrecision> {
 protected:
  void SetUp() override { TENON_SKIP_WITHOUT_GPU(); }
};

TEST_P(ChannelRowsPass, GivesTheRowsOfTheDefinition) {
  const KernelGeometry geometry{"", 1, {}, false};
  for (std::int64_t groups : {1, 3}) {
    for (const KernelSizes& size : std::vector<KernelSizes>{
             {1, 1, 1, 1, 1}, {2, 3, 5, 7, 1}, {3, 19, 6, 20, 1}, {2, 64, 17, 33, 1}}) {
      KernelGeometry grouped = geometry;
      grouped.options.groups = groups;
      const TransposedShape shape = shape_of(grouped, size);
      // Numbers that TF32 has to round.
      const CoarsePrecision& precision = GetParam();
      const Tensor x = randn(test::x_shape(grouped, size)).to(precision.dtype);
      const DeviceRows packed = DeviceRows::of_input(x, shape, precision);
      const std::vector<double> wanted =
          list_rows(Image(x), packed.rows, operand_of(precision), {1, 1});
      EXPECT_EQ(packed.memory.to_vector<double>(), wanted);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, ChannelRowsPass, testing::ValuesIn(test::kernel_precisions()),
                         [](const auto& info) { return std::string(info.param.name); });

// ---- problems --------------------------------------------------------------------------------

/// The gradient by the definition, [groups·Cin, Cout, kH, kW].
Image reference(const Image& x, const Image& dy, const TransposedShape& shape) {
  const auto& [rows, columns] = std::tie(shape.rows, shape.columns);
  Image result(Shape{x.shape[1], shape.out_channels, rows.kernel, columns.kernel});
  const std::int64_t y_plane = rows.output * columns.output;
  std::size_t at = 0;
  for (std::int64_t ci = 0; ci < x.shape[1]; ++ci) {
    for (std::int64_t co = 0; co < shape.out_channels; ++co) {
      const std::int64_t channel = ci / shape.in_channels * shape.out_channels + co;
      for (std::int64_t kh = 0; kh < rows.kernel; ++kh) {
        for (std::int64_t kw = 0; kw < columns.kernel; ++kw, ++at) {
          double sum = 0;
          for (std::int64_t n = 0; n < x.shape[0]; ++n) {
            const double* of_dy = dy.values.data() + (n * dy.shape[1] + channel) * y_plane;
            const double* of_x =
                x.values.data() + (n * x.shape[1] + ci) * rows.input * columns.input;
            for (std::int64_t i = 0; i < rows.input; ++i) {
              const std::int64_t h = i * rows.stride - rows.padding + kh * rows.dilation;
              if (h < 0 || h >= rows.output) continue;
              for (std::int64_t j = 0; j < columns.input; ++j) {
                const std::int64_t w = j * columns.stride - columns.padding + kw * columns.dilation;
                if (w < 0 || w >= columns.output) continue;
                sum += of_x[i * columns.input + j] * of_dy[h * columns.output + w];
              }
            }
          }
          result.values[at] = sum;
        }
      }
    }
  }
  return result;
}

/// x and y's gradient.
struct Operands {
  Image x;
  Image dy;
};

/// Small whole numbers, of which all sums are exact at every precision.
Operands whole_numbers(const KernelGeometry& geometry, const KernelSizes& size) {
  const auto draw = [](const Shape& shape) {
    return Image(randint(-3, 4, shape).to(DType::Float64));
  };
  return {draw(test::x_shape(geometry, size)), draw(test::z_shape(geometry, size))};
}

/// What is read on the GPU.
struct Inputs {
  WeightGradientProblem problem;
  Tensor x;
  DeviceRows x_rows;
  DeviceRows dy;

  Inputs(const Operands& operands, const TransposedShape& shape, const CoarsePrecision& precision)
      : problem(problem_of(shape, precision)),
        x(operands.x.tensor().to(Device::cuda(), precision.dtype)),
        x_rows(DeviceRows::of_input(operands.x.tensor(), shape, precision)),
        dy(DeviceRows::of_output(operands.dy, shape, precision)) {}

  /// Slice by slice of so many images, over a workspace full of NaN and into a gradient that is.
  Tensor run(const WeightGradientPlan& plan, const std::vector<int>& slices,
             bool beside = false) const {
    constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
    const TransposedShape& s = problem.shape;
    const TensorOptions options{.device = Device::cuda()};
    const Tensor workspace = full({plan.workspace_floats()}, kNan, options);
    const Tensor gradient = full(
        {std::int64_t{s.groups} * s.in_channels, s.out_channels, s.rows.kernel, s.columns.kernel},
        kNan, options);
    int first = 0;
    for (const int count : slices) {
      if (beside) synchronize(Device::cuda());  // there is nothing that it would have to wait for
      accumulate_weight_gradient(plan, x.narrow(0, first, count), x_rows.rows.part(first, count),
                                 dy.rows.part(first, count), workspace, first > 0, beside);
      first += count;
    }
    finish_weight_gradient(plan, workspace, gradient);
    return gradient;
  }
  Tensor run(const WeightGradientPlan& plan) const { return run(plan, {problem.shape.images}); }
};

/// `images` in slices of `most`, the last one smaller where they do not come out even.
std::vector<int> slices_of(int images, int most) {
  std::vector<int> slices;
  for (int first = 0; first < images; first += most) {
    slices.push_back(std::min(most, images - first));
  }
  return slices;
}

/// The plans of all kernels for `problem`, with tiles of every kind, for large and for small shared
/// memory.
std::vector<WeightGradientPlan> all_plans(const WeightGradientProblem& problem) {
  const std::vector<WeightGradientTile> tiles{
      {2, 16, 4, 1, 1}, {2, 8, 3, 2, 1}, {8, 8, 2, 1, 2},  {1, 32, 2, 2, 1}, {4, 16, 3, 1, 4},
      {1, 16, 4, 2, 2}, {4, 8, 3, 1, 1}, {1, 32, 4, 1, 1}, {1, 64, 2, 1, 1}, {2, 16, 3, 1, 1}};
  std::vector<WeightGradientPlan> plans;
  for (const WeightGradientRow& row : ops::cuda::weight_gradient_rows()) {
    if (row.operand != problem.operand || row.config.split != problem.split) continue;
    for (const WeightGradientTile& tile : tiles) {
      for (const int shared_kb : {227, 99}) {
        const WeightGradientTarget target{
            .multiprocessors = 132,
            .shared_bytes = shared_kb * 1024,
            .architecture = WeightGradientTarget::of(Device::cuda()).architecture};
        WeightGradientPlan plan;
        if (!make_weight_gradient_plan(problem, target, row, tile, 0, plan)) continue;
        EXPECT_LE(plan.shared_bytes(), target.shared_bytes);
        plans.push_back(plan);
      }
    }
  }
  return plans;
}

std::string describe(const WeightGradientPlan& plan) {
  const WeightGradientTile& tile = plan.tiling.tile;
  const ops::cuda::WeightGradientConfig& config = plan.row->config;
  std::ostringstream out;
  if (config.warpgroups > 0) {
    out << config.warpgroups << " warpgroups with runs of " << config.first_run << " and "
        << config.second_run << ", ";
  }
  out << 16 * config.m_tiles << " x " << 8 * config.n_tiles << " by " << config.consumers
      << " warps; tile " << tile.rows << " x " << tile.columns << ", " << tile.stages << " stages, "
      << tile.out_warps << " x " << tile.parts << " warps a tap, " << plan.tiling.tap_units
      << " tap units, " << plan.tiling.splits << " splits";
  return out.str();
}

// ---- results ---------------------------------------------------------------------------------

class WeightGradient : public testing::TestWithParam<KernelGeometry> {
 protected:
  void SetUp() override { TENON_SKIP_WITHOUT_GPU(); }
};

TEST_P(WeightGradient, OfWholeNumbersIsExactWithEveryPlan) {
  manual_seed(3);
  const std::vector<KernelSizes> sizes{{1, 1, 1, 1, 1},    {2, 3, 5, 7, 5},   {3, 19, 9, 13, 33},
                                       {2, 70, 6, 20, 3},  {5, 9, 3, 35, 70}, {1, 130, 8, 8, 96},
                                       {3, 21, 7, 24, 66}, {2, 65, 5, 72, 9}};
  for (const KernelSizes& size : sizes) {
    if (!test::exists(GetParam(), size)) continue;
    const TransposedShape shape = shape_of(GetParam(), size);
    const Operands operands = whole_numbers(GetParam(), size);
    const std::vector<double> wanted = reference(operands.x, operands.dy, shape).values;
    for (const CoarsePrecision& precision : test::kernel_precisions()) {
      const Inputs inputs(operands, shape, precision);
      const std::vector<WeightGradientPlan> plans = all_plans(inputs.problem);
      EXPECT_FALSE(plans.empty());
      for (const WeightGradientPlan& plan : plans) {
        const Tensor got = inputs.run(plan);
        ASSERT_EQ(test::wrong_elements(got, tensor(wanted, got.shape()), 0), "")
            << precision.name << ", " << describe(plan) << ", x " << test::x_shape(GetParam(), size)
            << ", " << size.out << " output channels";
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Table, WeightGradient, testing::ValuesIn(test::table_geometries()),
                         [](const auto& info) { return std::string(info.param.name); });
INSTANTIATE_TEST_SUITE_P(Other, WeightGradient, testing::ValuesIn(test::other_geometries()),
                         [](const auto& info) { return std::string(info.param.name); });
INSTANTIATE_TEST_SUITE_P(
    FarTaps, WeightGradient,
    testing::Values(KernelGeometry{"k3_s1_p40_d40", 3, {.padding = 40, .dilation = 40}, false},
                    KernelGeometry{
                        "k7_s2_p90_d31", 7, {.stride = 2, .padding = 90, .dilation = 31}, false}),
    [](const auto& info) { return std::string(info.param.name); });

/// The norm of a - b over that of b.
double distance(const std::vector<double>& a, const std::vector<double>& b) {
  double error = 0;
  double norm = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    error += std::pow(a[i] - b[i], 2);
    norm += std::pow(b[i], 2);
  }
  return std::sqrt(error / norm);
}

class WeightGradientAccuracy : public testing::TestWithParam<CoarsePrecision> {
 protected:
  void SetUp() override { TENON_SKIP_WITHOUT_GPU(); }
};

// All of one sign too, where sums that only cut digits off drift.
TEST_P(WeightGradientAccuracy, IsThatOfThePrecision) {
  manual_seed(4);
  const CoarsePrecision& precision = GetParam();
  const KernelGeometry geometry{"", 3, {.stride = 2, .padding = 1, .output_padding = 1}, true};
  for (const KernelSizes& size :
       std::vector<KernelSizes>{{2, 17, 20, 20, 35}, {16, 3, 64, 64, 5}}) {
    for (const bool positive : {false, true}) {
      const auto draw = [&](const Shape& shape) {
        const Tensor values = randn(shape, {.dtype = DType::Float64});
        const Tensor drawn = positive ? ops::abs(values) : values;
        return Image(test::is_strict(precision) ? drawn.to(DType::Float32)
                                                : precision.round(drawn));
      };
      const Operands operands{draw(test::x_shape(geometry, size)),
                              draw(test::z_shape(geometry, size))};
      const TransposedShape shape = shape_of(geometry, size);
      const Image wanted = reference(operands.x, operands.dy, shape);
      const Inputs inputs(operands, shape, precision);
      const int images = shape.images;
      for (const WeightGradientPlan& plan : all_plans(inputs.problem)) {
        for (const int most : {images, (images + 2) / 3}) {
          const Tensor got = inputs.run(plan, slices_of(images, most));
          EXPECT_LE(distance(got.to_vector<double>(), wanted.values), precision.tolerance)
              << describe(plan) << ", slices of " << most;
        }
      }
    }
  }
}

TEST_P(WeightGradientAccuracy, BitsDependOnThePlanAndTheSlicesAlone) {
  manual_seed(5);
  const KernelGeometry geometry{"", 4, {.stride = 2, .padding = 1}, true};
  const KernelSizes size{7, 70, 9, 17, 40};
  const CoarsePrecision& precision = GetParam();
  const Operands operands{Image(precision.round(randn(test::x_shape(geometry, size)))),
                          Image(precision.round(randn(test::z_shape(geometry, size))))};
  const Inputs inputs(operands, shape_of(geometry, size), precision);
  for (const WeightGradientPlan& plan : all_plans(inputs.problem)) {
    SCOPED_TRACE(describe(plan));
    test::expect_same_bits(inputs.run(plan), inputs.run(plan));
    test::expect_same_bits(inputs.run(plan, {3, 3, 1}), inputs.run(plan, {3, 3, 1}));
  }
}

// Parts of x and dy that lie in memory for the whole batch. The plans are for the first slices: of
// the last one there are fewer tiles than blocks.
TEST_P(WeightGradientAccuracy, SlicesOfTheBatchAddUp) {
  manual_seed(7);
  const CoarsePrecision& precision = GetParam();
  const KernelGeometry geometry{"", 3, {.stride = 2, .padding = 1, .groups = 2}, true};
  const KernelSizes size{5, 20, 9, 11, 45};
  const TransposedShape shape = shape_of(geometry, size);
  const Operands operands = whole_numbers(geometry, size);
  const std::vector<double> wanted = reference(operands.x, operands.dy, shape).values;
  const Inputs inputs(operands, shape, precision);
  WeightGradientProblem slice = inputs.problem;
  slice.shape.images = 2;
  std::vector<WeightGradientPlan> plans = all_plans(slice);
  plans.push_back(plan_weight_gradient(slice, WeightGradientTarget::of(Device::cuda())));
  for (const WeightGradientPlan& plan : plans) {
    for (const bool beside : {false, true}) {
      const Tensor got = inputs.run(plan, {2, 2, 1}, beside);
      ASSERT_EQ(test::wrong_elements(got, tensor(wanted, got.shape()), 0), "")
          << describe(plan) << ", beside: " << beside;
    }
  }
}

TEST_P(WeightGradientAccuracy, IsThatOfThePlanThatIsChosen) {
  manual_seed(6);
  const CoarsePrecision& precision = GetParam();
  for (const KernelGeometry& geometry : test::table_geometries()) {
    const KernelSizes size{3, 40, 17, 33, 70};
    const TransposedShape shape = shape_of(geometry, size);
    const Operands operands = whole_numbers(geometry, size);
    const std::vector<double> wanted = reference(operands.x, operands.dy, shape).values;
    const Inputs inputs(operands, shape, precision);
    const WeightGradientPlan plan =
        plan_weight_gradient(inputs.problem, WeightGradientTarget::of(Device::cuda()));
    EXPECT_EQ(inputs.run(plan).to_vector<double>(), wanted) << geometry.name << describe(plan);
    EXPECT_LE(plan.workspace_floats(), 26 << 18);
  }
}

INSTANTIATE_TEST_SUITE_P(All, WeightGradientAccuracy, testing::ValuesIn(test::kernel_precisions()),
                         [](const auto& info) { return std::string(info.param.name); });

// ---- sums for the bias -----------------------------------------------------------------------

// Whole numbers, of which all sums are exact.
TEST(BiasSums, OfSlicesAreThoseOfAllRows) {
  TENON_SKIP_WITHOUT_GPU();
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  manual_seed(8);
  const TensorOptions options{.device = Device::cuda()};
  for (const int columns : {1, 5, 32, 70}) {
    for (const int slice : {1, 127, 128, 129, 20000}) {
      const int count = 2 * slice + (slice + 1) / 2;  // the last slice is smaller
      const Tensor values = randint(-8, 9, {count, columns}).to(DType::Float64);
      const Tensor rows = values.to(Device::cuda(), DType::Float32);
      const std::int64_t of_slice = ops::cuda::bias_rows_of_sums(slice);
      const Tensor sums = full(
          {2 * of_slice + ops::cuda::bias_rows_of_sums(count - 2 * slice), columns}, kNan, options);
      for (int i = 0; i < 3; ++i) {
        const int first = i * slice;
        ops::cuda::add_bias_rows(rows.narrow(0, first, std::min(slice, count - first)), sums,
                                 i * of_slice);
      }
      const Tensor gradient = full({columns}, kNan, options);
      ops::cuda::finish_bias_gradient(sums, gradient);
      EXPECT_EQ(gradient.to_vector<double>(), ops::sum(values, {0}).to_vector<double>())
          << slice << " rows of " << columns;
    }
  }
}

}  // namespace
}  // namespace tenon

#else

TEST(WeightGradient, IsThereWithCudaOnly) { GTEST_SKIP() << "built without CUDA: nothing was run"; }

#endif
