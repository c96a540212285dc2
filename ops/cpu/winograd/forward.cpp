#include <algorithm>

#include "tenon/core/parallel.h"
#include "tenon/ops/cpu/winograd/block.h"
#include "tenon/ops/cpu/winograd/outputs.h"

namespace tenon::ops::cpu {
namespace winograd {
namespace {

/// Channels below which the sums and differences cost more than the products that they save.
constexpr std::int64_t kLeastChannels = 32;
/// Floats of an image and of its result, at most: the backward lays out whole images.
constexpr std::int64_t kMostElements = 1 << 19;
/// At least so many pieces of work for each thread.
constexpr std::int64_t kItemsOfThread = 2;

}  // namespace

bool suits(const Shape& x, const Shape& weight, const Shape& y,
           const ConvTranspose2dOptions& options) {
  const std::int64_t lanes = simd::kernels().lanes;
  if (options.groups != 1 || options.dilation != Pair(1) || weight[2] != 2 * options.stride.h ||
      weight[3] != 2 * options.stride.w || y.numel() == 0 || x.numel() == 0) {
    return false;
  }
  for (const std::int64_t channels : {x[1], weight[1]}) {
    if (channels < kLeastChannels || channels % lanes != 0) return false;
  }
  // Results that pairs compute and that are not there: an odd row, phases that end early.
  const auto pairs = [](const Axis& axis) { return (axis.phase_axis.output_count(0) + 1) / 2; };
  const Plan plan(x, weight, y, options);
  const std::int64_t results = plan.output_rows() * plan.output_columns();
  if (16 * plan.phases() * pairs(plan.rows) * pairs(plan.columns) > 5 * results) return false;
  return (x[2] + 2) * (x[3] + 2) * x[1] + results * weight[1] <= kMostElements;
}

namespace {

class Forward {
 public:
  Forward(const Plan& plan, const simd::Kernels& kernels, const Tensor& weight, const Tensor& bias,
          const simd::Chain* chain)
      : plan_(plan), kernels_(kernels), outputs_(plan, kernels, weight, bias), chain_(chain) {
    rows_ = std::min(outputs_.tile_rows_at_once(), plan.rows.tiles);
    if (rows_ == plan.rows.tiles) {
      images_ = std::clamp<std::int64_t>(outputs_.tile_rows_at_once() / rows_, 1, plan.batch);
    }
    row_blocks_ = (plan.rows.tiles + rows_ - 1) / rows_;
  }

  void run(const float* x, float* z) const {
    const std::int64_t blocks = (plan_.batch + images_ - 1) / images_ * row_blocks_;
    const std::int64_t wanted = kItemsOfThread * num_threads();
    // Where there are few blocks, their channels are shared out as well.
    const std::int64_t strips = outputs_.filters().strips().count;
    const std::int64_t parts = std::clamp<std::int64_t>((wanted + blocks - 1) / blocks, 1, strips);
    const std::int64_t grain = std::max<std::int64_t>(1, blocks * parts / (4 * wanted));
    parallel_for(0, blocks * parts, grain, [&](std::int64_t begin, std::int64_t end) {
      const Window window = outputs_.window(rows_);
      const Scratch<float> input(images_ * window.image_size());
      const Scratch<float> factors(outputs_.factors_size());
      const Scratch<float> products(outputs_.products_size());
      const Outputs::Buffers buffers(outputs_, factors.data(), products.data());
      for (std::int64_t item = begin; item < end; ++item) {
        const std::int64_t part = item % parts;
        run_block(item / parts, strips * part / parts, strips * (part + 1) / parts, x, z, input,
                  buffers);
      }
    });
  }

 private:
  void run_block(std::int64_t index, std::int64_t first, std::int64_t last, const float* x,
                 float* z, const Scratch<float>& input, const Outputs::Buffers& buffers) const {
    const std::int64_t image = index / row_blocks_ * images_;
    const std::int64_t row = index % row_blocks_ * rows_;
    const Block block{image, std::min(images_, plan_.batch - image), row,
                      std::min(rows_, plan_.rows.tiles - row)};
    const std::int64_t plane = plan_.rows.phase_axis.input * plan_.columns.phase_axis.input;
    outputs_.window(block.rows)
        .pack(x + image * plan_.in_channels * plane, block.images,
              plan_.rows.form.tile * row + plan_.rows.first, plan_.columns.first, input.data());
    const std::int64_t lanes = kernels_.lanes;
    const std::int64_t channel = outputs_.filters().strips().first(first) * lanes;
    const std::int64_t channels =
        (last < outputs_.filters().strips().count ? outputs_.filters().strips().first(last) * lanes
                                                  : plan_.out_channels) -
        channel;
    const std::int64_t width = plan_.output_columns();
    const std::int64_t plane_out = plan_.output_rows() * width;
    outputs_.compute(
        block, input.data(), first, last, buffers,
        [&](const Outputs::Run& run, float* y) {
          if (chain_ != nullptr) kernels_.apply(*chain_, y, run.columns * channels);
          kernels_.transpose(y, channels, run.columns, channels,
                             z + (run.image * plan_.out_channels + channel) * plane_out +
                                 run.row * width + run.column,
                             plane_out);
        },
        [&](std::int64_t i, std::int64_t r, LinesAhead& ahead) {
          ahead.add(z + (i * plan_.out_channels + channel) * plane_out + r * width, channels,
                    plane_out, width);
        });
  }

  const Plan& plan_;
  const simd::Kernels& kernels_;
  Outputs outputs_;
  const simd::Chain* chain_;
  std::int64_t rows_, images_ = 1;  // of tiles, of a block
  std::int64_t row_blocks_;
};

}  // namespace
}  // namespace winograd

bool winograd_transposed(const Tensor& x, const Tensor& weight, const Tensor& bias,
                         const ConvTranspose2dOptions& options, const simd::Chain* chain,
                         const Tensor& z) {
  if (!winograd::suits(x.shape(), weight.shape(), z.shape(), options)) return false;
  const winograd::Plan plan(x.shape(), weight.shape(), z.shape(), options);
  winograd::Forward(plan, simd::kernels(), weight, bias, chain)
      .run(x.data<float>(), z.data<float>());
  return true;
}

}  // namespace tenon::ops::cpu
