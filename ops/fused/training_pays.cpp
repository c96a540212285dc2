#include "tenon/ops/fused/training_pays.h"

#include "tenon/core/shape.h"

namespace tenon::ops {
namespace {

// Computing y again costs, for each output, its products and its share of packing x into columns:
// a packed element serves one output of each channel and takes about as long as 12 products. What
// fusing saves, traffic and the allocation of intermediates, is about the same for every output.
// Measured on one thread of an EPYC with AVX-512, in float32 on x [16, Cin, 14, 14] and
// [64, Cin, 14, 14], kernel 3 and stride 2, this is what a step through the fused block takes,
// relative to the unfused steps: 16 -> 16 channels (cost 63) 1.21 and 1.11, 64 -> 64 (cost 171)
// 1.30 and 0.86, 64 -> 8 (cost 360) 1.53 and 1.48, 64 -> 1 (cost 1872) 1.76 and 1.84; on 8 x 8,
// 128 -> 64 (cost 342) 1.43 and 1.36. Below the limit a step may still be slower while all
// intermediates fit into the cache, and is faster, with the memory of all but the ends saved, once
// they do not.
constexpr double kPackingInProducts = 12;
constexpr double kMostRecomputed = 200;

/// Below so many multiply-adds a step is over in microseconds, and calling one op instead of five
/// is what counts.
constexpr double kSmallConvolution = 1e5;

}  // namespace

double products_per_output(const Shape& weight, const Shape& x,
                           const ConvTranspose2dOptions& options) {
  const double channels = static_cast<double>(x[1]) / static_cast<double>(options.groups);
  return channels * static_cast<double>(weight[2] * weight[3]) /
         static_cast<double>(options.stride.h) / static_cast<double>(options.stride.w);
}

bool fused_training_pays(const TensorSpec& x, const Shape& weight,
                         const ConvTranspose2dOptions& options) {
  if (!x.device.is_cpu()) return true;
  const double products = products_per_output(weight, x.shape, options);
  // Every element of x takes part in as many products as it has output channels and taps.
  const double all =
      static_cast<double>(x.shape.numel()) * static_cast<double>(weight[1] * weight[2] * weight[3]);
  if (all < kSmallConvolution) return true;
  const double packing = kPackingInProducts * products / static_cast<double>(weight[1]);
  return products + packing <= kMostRecomputed;
}

}  // namespace tenon::ops
