#include "tenon/ops/fused/training_pays.h"

#include "tenon/core/shape.h"
#include "tenon/ops/conv_rules.h"
#include "tenon/ops/cpu/fused/conv_transpose2d_epilogue.h"
#include "tenon/ops/cpu/winograd/plan.h"

namespace tenon::ops {
namespace {

// Computing y again costs, for each output, its products and its share of handling x, which serves
// one output of each channel: copying x together and adding up products where a tile is whole
// images, packing x into columns where images are cut into tiles. What fusing saves, traffic and
// the allocation of intermediates, is about the same for every output. How much that is depends on
// the allocator: it is most where freed memory goes back to the system and comes again page by
// page, as glibc does in a program that only runs the block, and least where it all stays in the
// process.
//
// Measured in CPU time on one thread of an EPYC with AVX-512, float32; a step through the fused
// block takes this much of the time of the unfused steps in a program of its own, and with an
// allocator that gives nothing back. In brackets the estimate that follows from the numbers below.
//   whole images, kernel 3, stride 2, 16 of them where nothing else is said:
//     14 x 14: 16 -> 16 channels (54) 0.87, 0.88; 32 -> 8 (144) 0.70, 1.00; 48 -> 24 (144) 0.60,
//       0.99; 64 -> 32 (180) 0.83, 1.02; 64 -> 64 (162) 0.62, 1.04; 64 -> 8 (288) 1.02, 1.02;
//       64 -> 1 (1296) 1.05, 1.09
//     7 x 7: 32 -> 16 (108) 0.76, 1.00, of 64 images 0.63, 0.97; 64 -> 32 (180) 0.93, 1.06, of 64
//       images 0.89, 1.02; 32 -> 4 (216) 1.04, 1.02; 64 -> 8 (288) 1.02, 1.06
//     kernel 4, 8 x 8: 128 -> 64 (576) 1.11, 1.26
//   images cut into tiles, 4 of them:
//     28 x 28: 16 -> 16 (77) 0.84, 0.85; 32 -> 16 (153) 0.51, 0.97; 64 -> 32 (225) 0.72, 1.17
//     kernel 4, 64 x 64: 16 -> 8 (208) 0.74, 1.07
// Since then products run at twice the rate on both sides and freed memory stays in the process, so
// that less is saved, and less lost. Fused by unfused in wall time on two threads, one process, the
// machine quiet:
//   whole images, kernel 3, stride 2: 16 of 7 x 7, 64 -> 32 (180) 1.00, 32 -> 16 (108) 0.93; 64 of
//     them 1.01 and 0.97; 16 of 14 x 14, 64 -> 32 (180) 0.97, 16 -> 16 (54) 1.00; 64 of 14 x 14,
//     32 -> 16 (108) 1.01; but 2 of 7 x 7, 64 -> 32, a step of 0.4 ms, 1.18
//   images cut into tiles: 4 of 28 x 28, 64 -> 32 (225, large or not) 1.00, 32 -> 16 (153) 0.99; 16
//     of 28 x 28, 16 -> 16 (77) 0.92, 64 -> 64 (185) 0.96; 4 of 128 x 128, 64 -> 64 (184) 0.85; 16
//     of 56 x 56, 32 -> 32 0.86; kernel 4, 16 of 64 x 64, 16 -> 8 (208) 1.04
// So the bounds below still stand.
constexpr double kHandlingInProducts = 8;
constexpr double kPackingInProducts = 18;
constexpr double kMostRecomputed = 180;

/// Results of so many elements go through the main memory, and their memory back to the system: 16
/// images of 56 x 56, 64 -> 32 channels (225) 0.74; 64 of 28 x 28, 64 -> 64 (185) 0.61.
constexpr double kLargeResult = 1 << 21;
constexpr double kMostRecomputedOfLarge = 250;

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
  // Every element of x takes part in as many products as it has output channels and taps.
  const double all =
      static_cast<double>(x.shape.numel()) * static_cast<double>(weight[1] * weight[2] * weight[3]);
  if (all < kSmallConvolution) return true;
  const TensorSpec inputs[] = {x, {.shape = weight, .dtype = x.dtype, .device = x.device}};
  const Shape y = infer_conv_transpose2d("conv_transpose2d", options, inputs).shape;
  // Both directions by minimal filtering, which the unfused gradients are not.
  if (x.dtype == DType::Float32 && cpu::winograd::suits(x.shape, weight, y, options)) return true;
  const double products = products_per_output(weight, x.shape, options);
  const double shared = cpu::backward_keeps_images_whole(x.shape, weight, y, options)
                            ? kHandlingInProducts
                            : kPackingInProducts;
  const double recomputed = products + shared * products / static_cast<double>(weight[1]);
  const bool large = static_cast<double>(y.numel()) >= kLargeResult;
  return recomputed <= (large ? kMostRecomputedOfLarge : kMostRecomputed);
}

}  // namespace tenon::ops
