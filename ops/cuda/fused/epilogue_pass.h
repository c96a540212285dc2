// The pointwise chain as a pass of its own over a convolution's result: the second half of the
// fused block where one kernel for both does not pay.
#pragma once

#include "tenon/ops/fused/conv_transpose2d_epilogue.h"

namespace tenon::ops::cuda {

/// data = epilogue(data + bias) in place: data [N, C, H, W] contiguous or channels-last, bias [C]
/// or undefined.
void epilogue_pass(const Tensor& data, const Tensor& bias, const Epilogue& epilogue);

/// data, which holds y without the bias, becomes the gradient of y; `grad_out` is that of z, in the
/// same memory format. The bias's gradient [C], the sum over everything but the channel, is written
/// where `grad_bias` is defined, in an order that the shape alone decides.
void epilogue_gradient_pass(const Tensor& data, const Tensor& bias, const Tensor& grad_out,
                            const Epilogue& epilogue, const Tensor& grad_bias);

/// The same from channels-last memory: z = epilogue(y + bias), y [N, C, H, W] channels-last and z
/// contiguous, so that the pass is also the conversion. What y holds afterwards is undefined: the
/// pass is its last reader and spares the device writing it back from its cache.
void epilogue_pass_from_channels_last(const Tensor& y, const Tensor& bias, const Epilogue& epilogue,
                                      const Tensor& z);

/// The gradient pass where `data` is channels-last and `grad_out` contiguous.
void epilogue_gradient_pass_channels_last(const Tensor& data, const Tensor& bias,
                                          const Tensor& grad_out, const Epilogue& epilogue,
                                          const Tensor& grad_bias);

}  // namespace tenon::ops::cuda
