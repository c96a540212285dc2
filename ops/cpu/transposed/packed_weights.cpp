#include "tenon/ops/cpu/transposed/packed_weights.h"

#include <string>

#include "tenon/core/derived.h"
#include "tenon/core/factories.h"

namespace tenon::ops::cpu {
namespace {

/// One block of channels of one phase; `weight` is the group's
/// [input channel, output channel, kernel]. All taps of an input channel one after another, because
/// they share lines of the cache.
void pack_block(const TransposedPlan& plan, const Phase& phase, const float* weight,
                std::int64_t first, int size, float* target) {
  const std::int64_t taps = plan.kernel.h * plan.kernel.w;
  const std::int64_t tap_size = plan.in_channels * size;
  for (std::int64_t ci = 0; ci < plan.in_channels; ++ci, target += size) {
    const float* source = weight + (ci * plan.out_channels + first) * taps;
    float* tap = target;
    for (std::int64_t ty = 0; ty < phase.row_taps; ++ty) {
      const std::int64_t ky = phase.row_tap + ty * plan.row_step;
      for (std::int64_t tx = 0; tx < phase.column_taps; ++tx, tap += tap_size) {
        const std::int64_t kx = phase.column_tap + tx * plan.column_step;
        for (std::int64_t c = 0; c < size; ++c) {
          tap[c] = source[c * taps + ky * plan.kernel.w + kx];
        }
      }
    }
  }
}

/// The order of packed weights follows from these numbers and the weight's shape.
std::string name_of(std::string name, const TransposedPlan& plan, const simd::Kernels& kernels) {
  for (const std::int64_t number :
       {plan.groups, plan.stride.h, plan.stride.w, plan.rows.padding, plan.columns.padding,
        plan.rows.dilation, plan.columns.dilation, std::min(plan.stride.h, plan.rows.output),
        std::min(plan.stride.w, plan.columns.output), std::int64_t{kernels.channels}}) {
    name += ' ' + std::to_string(number);
  }
  return name;
}

}  // namespace

Tensor packed_weights(const TransposedPlan& plan, const simd::Kernels& kernels,
                      const Tensor& weight) {
  return derived(weight, name_of("transposed convolution", plan, kernels), [&] {
    const Tensor packed = empty({plan.groups * plan.group_weights()}, {.dtype = DType::Float32});
    const simd::ChannelBlocks blocks(plan.out_channels, kernels.channels);
    const auto phases = static_cast<std::int64_t>(plan.phases.size());
    parallel_for(
        0, plan.groups * phases * blocks.count, 4, [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t i = begin; i < end; ++i) {
            const std::int64_t group = i / (phases * blocks.count);
            const Phase& phase = plan.phases[static_cast<std::size_t>(i / blocks.count % phases)];
            const std::int64_t first = blocks.first(i % blocks.count);
            pack_block(plan, phase, weight.data<float>() + group * plan.group_weights(), first,
                       blocks.size(i % blocks.count),
                       packed.data<float>() + group * plan.group_weights() + phase.weights +
                           first * phase.depth);
          }
        });
    return packed;
  });
}

Tensor packed_gradient_weights(const TransposedPlan& plan, const simd::Kernels& kernels,
                               const std::vector<GradientTap>& taps, const Tensor& weight) {
  return derived(weight, name_of("transposed convolution's data gradient", plan, kernels), [&] {
    const Tensor packed = empty({plan.groups * plan.group_weights()}, {.dtype = DType::Float32});
    const simd::ChannelBlocks blocks(plan.in_channels, kernels.channels);
    const std::int64_t depth = static_cast<std::int64_t>(taps.size()) * plan.out_channels;
    const std::int64_t all_taps = plan.kernel.h * plan.kernel.w;
    const std::int64_t channel_step = plan.out_channels * all_taps;
    parallel_for(0, plan.groups * blocks.count, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t first = blocks.first(i % blocks.count);
        const std::int64_t group = i / blocks.count * plan.group_weights();
        const float* source = weight.data<float>() + group + first * channel_step;
        float* target = packed.data<float>() + group + first * depth;
        const int size = blocks.size(i % blocks.count);
        for (std::int64_t co = 0; co < plan.out_channels; ++co, target += size) {
          float* place = target;
          for (const GradientTap& tap : taps) {
            for (std::int64_t c = 0; c < size; ++c) {
              place[c] = source[c * channel_step + co * all_taps + tap.kernel];
            }
            place += plan.out_channels * size;
          }
        }
      }
    });
    return packed;
  });
}

}  // namespace tenon::ops::cpu
