#include "tenon/ops/cpu/fused/conv_transpose2d_epilogue.h"

#include "tenon/ops/cpu/conv_transpose_tiles.h"
#include "tenon/ops/cpu/fused/epilogue.h"
#include "tenon/ops/cpu/fused/epilogue_backward.h"
#include "tenon/ops/cpu/transposed/backward.h"
#include "tenon/ops/cpu/transposed/forward.h"

namespace tenon::ops::cpu {
namespace {

template <class T>
const T* data_or_null(const Tensor& tensor) {
  return tensor.defined() ? tensor.data<T>() : nullptr;
}

template <class T>
T* result_or_null(const Tensor& tensor) {
  return tensor.defined() ? tensor.data<T>() : nullptr;
}

}  // namespace

void conv_transpose2d_epilogue(const Tensor& x, const Tensor& weight, const Tensor& bias,
                               const ConvTranspose2dOptions& options, const Epilogue& epilogue,
                               const Tensor& z) {
  if (z.numel() == 0) return;
  if (z.dtype() == DType::Float32) {
    const simd::Chain chain = chain_of(epilogue);
    transposed_forward(x, weight, bias, options, &chain, z);
    return;
  }
  const TransposedPlan plan(x.shape(), weight.shape(), z.shape(), options);
  visit_floating(x.dtype(), "conv_transpose2d_epilogue", [&]<class T>() {
    const EpilogueFunction<compute_type<T>> function(epilogue);
    run_tiles<T>(
        plan, x.data<T>(), weight.data<T>(), data_or_null<T>(bias),
        [&](compute_type<T>* values, std::int64_t count) { function.apply(values, count); },
        z.data<T>());
  });
}

void conv_transpose2d_epilogue_backward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                                        const Tensor& grad_out,
                                        const ConvTranspose2dOptions& options,
                                        const Epilogue& epilogue, const Tensor& grad_x,
                                        const Tensor& grad_weight, const Tensor& grad_bias) {
  if (x.dtype() == DType::Float32 && x.numel() > 0 && grad_out.numel() > 0 &&
      transposed_backward_pays(weight.shape())) {
    transposed_backward(x, weight, bias, grad_out, options, chain_of(epilogue), grad_x, grad_weight,
                        grad_bias);
    return;
  }
  const TransposedPlan plan(x.shape(), weight.shape(), grad_out.shape(), options);
  visit_floating(x.dtype(), "conv_transpose2d_epilogue_backward", [&]<class T>() {
    using Function = EpilogueFunction<compute_type<T>>;
    const Function function(epilogue);
    EpilogueBackward<T, Function>(plan, function,
                                  {.x = x.data<T>(),
                                   .weight = weight.data<T>(),
                                   .bias = data_or_null<T>(bias),
                                   .grad_out = grad_out.data<T>(),
                                   .grad_x = result_or_null<T>(grad_x),
                                   .grad_weight = result_or_null<T>(grad_weight),
                                   .grad_bias = result_or_null<T>(grad_bias)})
        .run();
  });
}

bool backward_keeps_images_whole(const Shape& x, const Shape& weight, const Shape& y,
                                 const ConvTranspose2dOptions& options) {
  return BackwardTiles(TransposedPlan(x, weight, y, options)).whole();
}

}  // namespace tenon::ops::cpu
