// Learning-rate schedules: PyTorch's names, defaults and formulas.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "tenon/nn/optimizer.h"

namespace tenon::optim {

/// The base of all schedules. Construction sets the rate of step 0; `step()` goes on to the next.
/// The rate is a function of the step and of the rates that the optimizer had when the schedule
/// was made. The optimizer must outlive its schedule.
class Schedule {
 public:
  virtual ~Schedule() = default;
  Schedule(const Schedule&) = delete;
  Schedule& operator=(const Schedule&) = delete;

  /// "StepLR", …
  virtual std::string_view name() const = 0;
  /// Sets the options of the next step. PyTorch's place for it: after the optimizer's step (or the
  /// epoch, whichever the schedule counts).
  void step();
  /// How often `step()` was called.
  std::int64_t step_count() const { return step_; }
  double lr(std::size_t group = 0) const { return optimizer_.lr(group); }

  /// "step" (int64) and "base_lr" (float64, [groups]).
  TensorMap state_dict() const;
  /// Restores it, and sets the optimizer's options for that step. Throws `Error` naming the entry,
  /// before anything is changed.
  void load_state_dict(const TensorMap& state);
  /// The checks of `load_state_dict` alone.
  void check_state_dict(const TensorMap& state) const;

 protected:
  explicit Schedule(Optimizer& optimizer);
  Optimizer& optimizer() { return optimizer_; }
  const std::vector<double>& base_lrs() const { return base_lrs_; }
  /// Sets the optimizer's options for `step`. Called by the constructor of each schedule with 0.
  virtual void set(std::int64_t step) = 0;
  /// Throws `Error` when there is no such step.
  virtual void check_step(std::int64_t /*step*/) const {}

 private:
  Optimizer& optimizer_;
  std::vector<double> base_lrs_;  // of each group
  std::int64_t step_ = 0;
};

struct StepLROptions {
  std::int64_t step_size = 30;
  double gamma = 0.1;
};

/// torch.optim.lr_scheduler.StepLR: base·gamma^floor(t / step_size).
class StepLR : public Schedule {
 public:
  /// Throws `Error` when step_size is below 1.
  StepLR(Optimizer& optimizer, const StepLROptions& options);
  std::string_view name() const override { return "StepLR"; }

 protected:
  void set(std::int64_t step) override;

 private:
  StepLROptions options_;
};

struct CosineAnnealingLROptions {
  std::int64_t t_max = 1;
  double eta_min = 0.0;
};

/// torch.optim.lr_scheduler.CosineAnnealingLR, its closed form:
/// eta_min + (base − eta_min)·(1 + cos(π·t / t_max)) / 2 (Loshchilov and Hutter 2017,
/// arXiv:1608.03983, without restarts).
class CosineAnnealingLR : public Schedule {
 public:
  /// Throws `Error` when t_max is below 1.
  CosineAnnealingLR(Optimizer& optimizer, const CosineAnnealingLROptions& options);
  std::string_view name() const override { return "CosineAnnealingLR"; }

 protected:
  void set(std::int64_t step) override;

 private:
  CosineAnnealingLROptions options_;
};

/// The curve between two values of a phase.
enum class Anneal { Cosine, Linear };

struct OneCycleLROptions {
  double max_lr = 1e-2;
  std::int64_t total_steps = 1;
  double pct_start = 0.3;  ///< part of the steps in which the rate rises
  Anneal anneal = Anneal::Cosine;
  bool cycle_momentum = true;     ///< let the momentum (Adam: beta1) run against the rate
  double base_momentum = 0.85;    ///< at the highest rate
  double max_momentum = 0.95;     ///< at the lowest
  double div_factor = 25.0;       ///< the first rate is max_lr / div_factor
  double final_div_factor = 1e4;  ///< the last rate is the first / final_div_factor
  bool three_phase = false;  ///< fall back to the first rate as fast as it rose, then to the last
};

/// torch.optim.lr_scheduler.OneCycleLR (Smith and Topin 2017, arXiv:1708.07120): rises from
/// max_lr/div_factor to max_lr, then falls to the last rate at step total_steps − 1. One step more
/// is allowed, as in PyTorch, so that a loop may call `step` after each of its total_steps batches.
class OneCycleLR : public Schedule {
 public:
  /// Throws `Error` when total_steps is below 1, pct_start outside [0, 1], a factor not positive,
  /// or the optimizer has no momentum to cycle.
  OneCycleLR(Optimizer& optimizer, const OneCycleLROptions& options);
  std::string_view name() const override { return "OneCycleLR"; }

 protected:
  void set(std::int64_t step) override;
  void check_step(std::int64_t step) const override;

 private:
  OneCycleLROptions options_;
};

}  // namespace tenon::optim
