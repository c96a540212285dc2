#include "tenon/ops/cuda/fused/conv_transpose2d_epilogue.h"

#include "tenon/core/tensor_body.h"
#include "tenon/ops/cuda/conv.h"
#include "tenon/ops/cuda/fused/epilogue_pass.h"

namespace tenon::ops::cuda {

void conv_transpose2d_epilogue(const Tensor& x, const Tensor& weight, const Tensor& bias,
                               const ConvTranspose2dOptions& options, const Epilogue& epilogue,
                               const Tensor& z) {
  conv_transpose2d(x, weight, {}, options, z);
  epilogue_pass(z, bias, epilogue);
}

void conv_transpose2d_epilogue_backward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                                        const Tensor& grad_out,
                                        const ConvTranspose2dOptions& options,
                                        const Epilogue& epilogue, const Tensor& grad_x,
                                        const Tensor& grad_weight, const Tensor& grad_bias) {
  const Tensor y = tenon::detail::make_empty(grad_out.spec());
  conv_transpose2d(x, weight, {}, options, y);
  epilogue_gradient_pass(y, bias, grad_out, epilogue, grad_bias);
  const Conv2dOptions adjoint{options.stride, options.padding, options.dilation, options.groups};
  if (grad_x.defined()) conv2d(y, weight, {}, adjoint, grad_x);
  if (grad_weight.defined()) conv2d_weight_grad(y, x, adjoint, grad_weight);
}

}  // namespace tenon::ops::cuda
