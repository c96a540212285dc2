// The whole block as one graph for cuDNN's runtime fusion: convolution, bias, softplus, tanh,
// product, sum, maximum, minimum, product.
#pragma once

#include <memory>
#include <vector>

#include "problem.h"
#include "tenon/ops/cuda/cudnn_graph.h"

namespace bench {

/// The block fused by cuDNN. Channels last only: it has no kernels for the other format.
class CudnnFusion {
 public:
  explicit CudnnFusion(const Problem& problem);

  /// The plans that cuDNN lists and can build, its favourite first; may be none. Building one
  /// compiles a kernel, which takes up to seconds: at most `most` are tried, all when that is 0.
  std::vector<std::unique_ptr<tenon::ops::cuda::Plan>> plans(std::size_t most) const;
  /// z = block(x, weight, bias), tensors laid out with channels last.
  void run(const tenon::ops::cuda::Plan& plan, const tenon::Tensor& x, const tenon::Tensor& weight,
           const tenon::Tensor& bias, const tenon::Tensor& z) const;

 private:
  const Problem& problem_;
  std::vector<tenon::Tensor> numbers_;  // add, min, max, scale; one element each
};

}  // namespace bench
