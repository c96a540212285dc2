#include "tenon/ops/cpu/transposed/forward.h"

#include <algorithm>

#include "tenon/ops/cpu/batched/convolution.h"
#include "tenon/ops/cpu/transposed/packed_weights.h"
#include "tenon/ops/cpu/transposed/tile_input.h"
#include "tenon/ops/cpu/winograd/block.h"

namespace tenon::ops::cpu {
namespace {

/// At least so many pieces of work for each thread.
constexpr std::int64_t kItemsOfThread = 4;

class Forward {
 public:
  Forward(const TransposedPlan& plan, const simd::Kernels& kernels, const Tensor& weight,
          const Tensor& bias, const simd::Chain* chain)
      : plan_(plan),
        kernels_(kernels),
        input_(plan, kernels),
        blocks_(plan.out_channels, kernels.channels),
        weights_(packed_weights(plan, kernels, weight)),
        bias_(plan.groups * plan.out_channels),
        chain_(chain) {
    bias_.fill_zero();
    if (bias.defined()) std::copy_n(bias.data<float>(), bias_.size(), bias_.data());
  }

  void run(const float* x, float* z) const {
    const std::int64_t slices = input_.tiles() * plan_.groups;
    const std::int64_t wanted = kItemsOfThread * num_threads();
    // Where there are few tiles, their channels are shared out as well.
    const std::int64_t parts = std::clamp<std::int64_t>(wanted / slices, 1, blocks_.count);
    const std::int64_t grain = std::max<std::int64_t>(1, slices * parts / (2 * wanted));
    parallel_for(0, slices * parts, grain, [&](std::int64_t begin, std::int64_t end) {
      Buffers buffers(*this);
      for (std::int64_t item = begin; item < end; ++item) {
        const std::int64_t group = item / parts % plan_.groups;
        const PositionBlock block = input_.block(item / (parts * plan_.groups));
        const std::int64_t part = item % parts;
        run_block(block, group, blocks_.count * part / parts, blocks_.count * (part + 1) / parts, x,
                  z, buffers);
      }
    });
  }

 private:
  /// A thread's memory.
  struct Buffers {
    explicit Buffers(const Forward& f)
        : input(f.input_.size()),
          window(f.input_.scratch_size()),
          sums(f.plan_.stride.w * f.kernels_.channels * f.kernels_.vectors * f.kernels_.lanes) {}
    Scratch<float> input, window;
    Scratch<float> sums;  // [column phase][channel][position of the strip]
    Strips strips{};
  };

  void run_block(const PositionBlock& block, std::int64_t group, std::int64_t first_block,
                 std::int64_t last_block, const float* x, float* z, Buffers& buffers) const {
    input_.pack(block, group, x, buffers.input.data(), buffers.window.data());
    buffers.strips.cut(block, kernels_, input_.pitch());
    const auto column_phases =
        static_cast<std::size_t>(std::min(plan_.stride.w, plan_.columns.output));
    for (const Strip& strip : buffers.strips.strips) {
      for (std::size_t phase = 0; phase < plan_.phases.size(); phase += column_phases) {
        for (std::int64_t b = first_block; b < last_block; ++b) {
          for (std::size_t p = 0; p < column_phases; ++p) {
            multiply(strip, phase + p, group, b, buffers.input.data(),
                     buffers.sums.data() + static_cast<std::int64_t>(p) * phase_stride(b, strip));
          }
          store(strip, plan_.phases[phase].row, group, b, z, buffers);
        }
      }
    }
  }

  std::int64_t width(const Strip& strip) const { return strip.vectors * kernels_.lanes; }
  std::int64_t phase_stride(std::int64_t block, const Strip& strip) const {
    return blocks_.size(block) * width(strip);
  }

  void multiply(const Strip& strip, std::size_t index, std::int64_t group, std::int64_t block,
                const float* input, float* sums) const {
    const Phase& phase = plan_.phases[index];
    const std::int64_t first = blocks_.first(block);
    simd::Product product{.vectors = {},
                          .vector_count = strip.vectors,
                          .channels = blocks_.size(block),
                          .depth = phase.depth,
                          .offsets = input_.offsets(index),
                          .weights = weights_.data<float>() + group * plan_.group_weights() +
                                     phase.weights + first * phase.depth,
                          .start = bias_.data() + group * plan_.out_channels + first,
                          .sums = sums,
                          .sums_stride = width(strip)};
    for (int v = 0; v < strip.vectors; ++v) product.vectors[v] = input + strip.starts[v];
    simd::sum_products(kernels_, product);
  }

  /// Applies the chain to the sums of all column phases of a row phase, and writes them.
  void store(const Strip& strip, std::int64_t row_phase, std::int64_t group, std::int64_t block,
             float* z, Buffers& buffers) const {
    const std::int64_t step = plan_.stride.w;
    const std::int64_t stride = phase_stride(block, strip);
    if (chain_ != nullptr) {
      kernels_.apply(*chain_, buffers.sums.data(), std::min(step, plan_.columns.output) * stride);
    }
    const std::int64_t width_out = plan_.columns.output;
    for (std::size_t i = strip.first_run; i < strip.last_run; ++i) {
      const PositionRun& run = buffers.strips.runs[i];
      const std::int64_t row = row_phase + run.row * plan_.stride.h;
      if (row >= plan_.rows.output) continue;
      const std::int64_t count = std::min(run.count * step, width_out - run.column * step);
      float* target = z + (run.image * plan_.groups + group) * plan_.output_size() +
                      (blocks_.first(block) * plan_.rows.output + row) * width_out +
                      run.column * step;
      for (int c = 0; c < blocks_.size(block); ++c) {
        kernels_.interleave(buffers.sums.data() + c * width(strip) + run.place, stride, step, count,
                            target + c * plan_.rows.output * width_out);
      }
    }
  }

  const TransposedPlan& plan_;
  const simd::Kernels& kernels_;
  TileInput input_;
  simd::ChannelBlocks blocks_;
  Tensor weights_;
  Scratch<float> bias_;
  const simd::Chain* chain_;
};

}  // namespace

void transposed_forward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                        const ConvTranspose2dOptions& options, const simd::Chain* chain,
                        const Tensor& z) {
  if (winograd_transposed(x, weight, bias, options, chain, z)) return;
  if (batched_transposed(x, weight, bias, options, chain, z)) return;
  const TransposedPlan plan(x.shape(), weight.shape(), z.shape(), options);
  Forward(plan, simd::kernels(), weight, bias, chain).run(x.data<float>(), z.data<float>());
}

}  // namespace tenon::ops::cpu
