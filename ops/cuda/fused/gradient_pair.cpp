#include "tenon/ops/cuda/fused/gradient_pair.h"

#include <algorithm>
#include <cmath>

#include "tenon/ops/fused/ceil_div.h"

namespace tenon::ops::cuda {
namespace {

/// Of dx for so many images.
int tiles_of(const KernelPlan& plan, int images) {
  const Tiling& t = plan.tiling;
  return t.tiles() / t.image_tiles * ceil_div(images, t.tile.images);
}

/// Cycles of dx's kernel on one multiprocessor for so many images: of each stage the products of 64
/// positions with a tap, or its bytes on their way from the L2 cache, whichever takes longer. From
/// times of pairs on an H100 (docs/performance.md).
double data_cycles(const KernelPlan& plan, int images) {
  const KernelConfig& config = plan.row->config;
  const bool wide = plan.row->operand == OperandKind::Tf32;
  // At float32 accuracy three of them, which are all that a stage takes there (244 cycles,
  // measured); with fewer channels than 64 they are narrower.
  const double products = config.split ? 2.5 * config.channels / 64 : 1.0;
  const double product = (wide ? 97 : 115) * products;
  const double bytes_a_cycle = wide && config.blocks == 1 ? 33 : 25;
  const Tiling& t = plan.tiling;
  const SharedLayout layout(config, t, plan.slots, plan.raw, plan.gradient_slots);
  const int bytes = layout.x_bytes + (config.resident ? 0 : layout.weight_bytes);
  const double stage = std::max(product * t.most_taps() * config.blocks, bytes / bytes_a_cycle);
  const double batch = static_cast<double>(images) / t.shape.images;
  return batch * t.tiles() * t.stages * stage;
}

}  // namespace

std::optional<GradientPair> pair_gradients(const KernelPlan& data, const WeightGradientPlan& alone,
                                           const WeightGradientProblem& problem,
                                           const WeightGradientTarget& target) {
  constexpr double kGain = 0.95;  // that a prediction is good for
  // Of dx on the whole device, whose memory is too slow for it then.
  constexpr double kMemory = 1.4;
  constexpr int kLeast = 8;  // multiprocessors of each
  // dw that follows dx must not be what dx waits for.
  constexpr double kFollower = 1.15;
  const int all = target.multiprocessors;
  if (data.row->architecture < 90 || all < 2 * kLeast) return std::nullopt;
  const auto with_shares = [&](int data_multiprocessors) {
    const int others = all - data_multiprocessors;
    return GradientPair{
        data_multiprocessors,
        plan_weight_gradient(problem, {others, target.shared_bytes, target.architecture})};
  };
  const double data_work = data_cycles(data, problem.shape.images);
  GradientPair pair{0, alone};
  // Work is what one multiprocessor would take for it. That of dw depends a little on how many
  // there are, so its plan is made again for the share that the last one suggests.
  double weight_work = alone.cycles * all;
  for (int i = 0; i < 3; ++i) {
    const double follower = weight_work / (pair.weight.reads_planes() ? kFollower : 1.0);
    const double share = data_work / (data_work + follower);
    pair =
        with_shares(std::clamp(static_cast<int>(std::lround(share * all)), kLeast, all - kLeast));
    weight_work = pair.weight.cycles * (all - pair.data_multiprocessors);
  }
  const double at_once = std::max(data_work / pair.data_multiprocessors, pair.weight.cycles);
  if (at_once > kGain * (kMemory * data_work / all + alone.cycles)) return std::nullopt;
  // dx takes whole rounds of tiles: what does not save one is better given to dw.
  const int tiles = tiles_of(data, problem.shape.images);
  const int rounds = ceil_div(tiles, pair.data_multiprocessors);
  return with_shares(std::max(kLeast, ceil_div(tiles, rounds)));
}

}  // namespace tenon::ops::cuda
