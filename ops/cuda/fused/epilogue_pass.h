// The pointwise chain as a pass of its own over a convolution's result: the second half of the
// fused block where one kernel for both does not pay.
#pragma once

#include "tenon/ops/fused/conv_transpose2d_epilogue.h"

namespace tenon::ops::cuda {

/// data = epilogue(data + bias) in place: data [N, C, H, W] contiguous, bias [C] or undefined.
void epilogue_pass(const Tensor& data, const Tensor& bias, const Epilogue& epilogue);

/// data, which holds y without the bias, becomes the gradient of y; `grad_out` is that of z. The
/// bias's gradient [C], the sum over everything but the channel, is written where `grad_bias` is
/// defined, in an order that the shape alone decides.
void epilogue_gradient_pass(const Tensor& data, const Tensor& bias, const Tensor& grad_out,
                            const Epilogue& epilogue, const Tensor& grad_bias);

}  // namespace tenon::ops::cuda
