// The three convolutions through cuDNN, with a cache of plans and a tuner.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tenon/core/precision.h"
#include "tenon/core/tensor.h"
#include "tenon/ops/conv.h"

namespace tenon::ops::cuda {

class Plan;

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
  /// One line that names the problem: in messages, and in the cache on disk.
  std::string key() const;

  bool operator==(const ConvolutionProblem&) const = default;
};

/// Computes the tensor that `problem.kind` names from the other two, on the image's device. The
/// plan is the heuristics' first, or the fastest of all listed ones when tuning is on
/// (core/tuning.h). Either is kept for the next call with the same problem, the fastest also for
/// the next run of the program: in cudnn_plans.json of the cache directory (ops/tuning_cache.h), by
/// GPU, version of cuDNN and problem.
void run_convolution(const ConvolutionProblem& problem, const Tensor& image, const Tensor& filter,
                     const Tensor& response);

/// Names the plan that `run_convolution` last took for `problem` on this thread; empty when it was
/// not called.
std::string plan_in_use(const ConvolutionProblem& problem, Device device);

/// Every plan that cuDNN lists for `problem` and that can run, cuDNN's favourite first; for
/// benchmarks.
std::vector<std::unique_ptr<Plan>> convolution_plans(const ConvolutionProblem& problem,
                                                     Device device);

/// `run_convolution` by a plan of `convolution_plans`.
void run_plan(const Plan& plan, const Tensor& image, const Tensor& filter, const Tensor& response);

}  // namespace tenon::ops::cuda
