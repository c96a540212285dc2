// Optimizers: PyTorch's names, defaults and formulas.
#pragma once

#include <span>
#include <utility>
#include <vector>

#include "tenon/nn/optimizer.h"

namespace tenon::optim {

struct SGDOptions {
  double lr = 1e-3;
  double momentum = 0.0;
  double dampening = 0.0;
  double weight_decay = 0.0;
  bool nesterov = false;
};

/// torch.optim.SGD: g += weight_decay·p; b = momentum·b + (1 − dampening)·g, in the first step
/// b = g; p −= lr·(nesterov ? g + momentum·b : b).
class SGD : public Optimizer {
 public:
  /// Throws `Error` on a negative number, or nesterov without momentum or with dampening.
  explicit SGD(const std::vector<Tensor>& parameters, const SGDOptions& options = {});
  explicit SGD(const std::vector<ParameterGroup<SGDOptions>>& groups);
  std::string_view name() const override { return "SGD"; }

 protected:
  void update(std::span<const Change> changes, const Group& group) override;
};

/// The decay rates of Adam's means of the gradient and of its square.
using Betas = std::pair<double, double>;

struct AdamOptions {
  double lr = 1e-3;
  Betas betas = {0.9, 0.999};
  double eps = 1e-8;
  double weight_decay = 0.0;
};

/// torch.optim.Adam (Kingma and Ba 2015, arXiv:1412.6980): g += weight_decay·p;
/// m = β1·m + (1 − β1)·g; v = β2·v + (1 − β2)·g²;
/// p −= lr/(1 − β1^t) · m / (sqrt(v/(1 − β2^t)) + eps) in step t.
class Adam : public Optimizer {
 public:
  /// Throws `Error` on a negative number or a beta outside [0, 1).
  explicit Adam(const std::vector<Tensor>& parameters, const AdamOptions& options = {});
  explicit Adam(const std::vector<ParameterGroup<AdamOptions>>& groups);
  std::string_view name() const override { return "Adam"; }

 protected:
  void update(std::span<const Change> changes, const Group& group) override;
};

struct AdamWOptions {
  double lr = 1e-3;
  Betas betas = {0.9, 0.999};
  double eps = 1e-8;
  double weight_decay = 1e-2;
};

/// torch.optim.AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101): Adam, but the decay does not
/// pass through the means: first p −= lr·weight_decay·p.
class AdamW : public Optimizer {
 public:
  /// Throws `Error` as `Adam`.
  explicit AdamW(const std::vector<Tensor>& parameters, const AdamWOptions& options = {});
  explicit AdamW(const std::vector<ParameterGroup<AdamWOptions>>& groups);
  std::string_view name() const override { return "AdamW"; }

 protected:
  void update(std::span<const Change> changes, const Group& group) override;
};

}  // namespace tenon::optim
