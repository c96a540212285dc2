// The batch normalisation layer.
#pragma once

#include <optional>

#include "tenon/nn/module.h"

namespace tenon::nn {

/// PyTorch's names and defaults.
struct BatchNorm2dOptions {
  double eps = 1e-5;
  /// Weight of a batch in the running statistics; without one they are the mean over all batches.
  std::optional<double> momentum = 0.1;
  bool affine = true;               ///< learn a weight and a bias for each channel
  bool track_running_stats = true;  ///< otherwise evaluation uses the batch's statistics too
};

/// ops::batch_norm over [N, C, H, W]: by the batch's statistics in training, by the running ones in
/// evaluation.
class BatchNorm2d : public Module {
 public:
  /// Throws `Error` when there is no channel, or eps or momentum is negative.
  explicit BatchNorm2d(std::int64_t num_features, const BatchNorm2dOptions& options = {});

  Tensor forward(const Tensor& x) override;
  std::string extra_repr() const override;
  const BatchNorm2dOptions& options() const { return options_; }

  Tensor weight;               ///< [C], starts as 1; undefined unless affine
  Tensor bias;                 ///< [C], starts as 0; undefined unless affine
  Tensor running_mean;         ///< [C], starts as 0; undefined unless tracked
  Tensor running_var;          ///< [C], starts as 1; undefined unless tracked
  Tensor num_batches_tracked;  ///< [], int64; undefined unless tracked

 private:
  std::int64_t num_features_;
  BatchNorm2dOptions options_;
};

}  // namespace tenon::nn
