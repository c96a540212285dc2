// The three convolutions through cuDNN, with a cache of plans and a tuner.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tenon/core/precision.h"
#include "tenon/core/tensor.h"
#include "tenon/ops/conv.h"

namespace tenon::ops::cuda {

/// Which of the three bilinear maps.
enum class ConvolutionKind : std::uint8_t { Forward, DataGradient, WeightGradient };

/// All that a plan depends on. The tensors are named by their roles in conv2d(image, filter) ->
/// response, whichever of them is computed: image [N, C, H, W], filter [K, C/groups, R, S],
/// response [N, K, P, Q].
struct ConvolutionProblem {
  ConvolutionKind kind;
  DType dtype;
  Float32Precision precision;
  Shape image;
  Strides image_strides;
  Shape filter;
  Strides filter_strides;
  Shape response;
  Strides response_strides;
  Pair stride;
  Pair padding;
  Pair dilation;

  /// The problem of these tensors, with this thread's precision.
  static ConvolutionProblem of(ConvolutionKind kind, const Tensor& image, const Tensor& filter,
                               const Tensor& response, const Conv2dOptions& options);
  /// One line that names the problem: the key of the plan caches.
  std::string key() const;
};

/// Computes the tensor that `problem.kind` names from the other two, on the image's device. The
/// plan is the heuristics' first, or the fastest of all listed ones when tuning is on
/// (ops/tuning.h); either is kept for the next call with the same problem.
void run_convolution(const ConvolutionProblem& problem, const Tensor& image, const Tensor& filter,
                     const Tensor& response);

/// What one plan took; for benchmarks.
struct PlanTiming {
  std::string plan;
  double milliseconds;
  std::int64_t workspace_bytes;
};

/// Times every plan that cuDNN lists for `problem` (median of `repeats` after a warm-up), fastest
/// first. The computed tensor is overwritten.
std::vector<PlanTiming> time_all_plans(const ConvolutionProblem& problem, const Tensor& image,
                                       const Tensor& filter, const Tensor& response, int repeats);

}  // namespace tenon::ops::cuda
