#include "tenon/ops/fused/training_pays.h"

#include "tenon/core/shape.h"

namespace tenon::ops {
namespace {

// Computing y again costs, for each output, its products and, where an image is more than one tile,
// its share of packing x into columns: a packed element serves one output of each channel and takes
// about as long as 12 products. What fusing saves, traffic and the allocation of intermediates, is
// about the same for every output. Measured on one thread of an EPYC with AVX-512, float32, x of
// 14 x 14, kernel 3 and stride 2, a step through the fused block takes this much of the time of the
// unfused steps, with 16 and with 64 images:
//   16 -> 16 channels (cost 63) 0.75, 0.65; 32 -> 16 (cost 126) 1.07, 0.68; 64 -> 64 (cost 171)
//   0.78, 0.73; 64 -> 32 (cost 198) 1.15, 0.78;
//   64 -> 16 (cost 252) 1.29, 1.14; 64 -> 8 (cost 360) 1.15, 1.14; 64 -> 1 (cost 1872) 1.07, 1.08;
//   on 8 x 8: 128 -> 64 (cost 342) 1.24, 1.23; 256 -> 128 (cost 630) 1.34, 1.09.
// Below the limit, steps whose intermediates all fit into the cache may still take a little longer.
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
