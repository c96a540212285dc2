#include "tenon/nn/schedule.h"

#include <array>
#include <cmath>
#include <numbers>
#include <span>

#include "tenon/core/factories.h"

namespace tenon::optim {
namespace {

/// The part of `state` called `key`, checked.
Tensor entry(std::string_view schedule, const TensorMap& state, const std::string& key,
             const TensorSpec& spec) {
  const auto found = state.find(key);
  TENON_CHECK(found != state.end() && found->second.defined(), schedule, ": state '", key,
              "' is missing");
  TENON_CHECK(found->second.shape() == spec.shape && found->second.dtype() == spec.dtype, schedule,
              ": state '", key, "' is ", found->second.spec(), ", must be ", spec);
  return found->second;
}

}  // namespace

Schedule::Schedule(Optimizer& optimizer) : optimizer_(optimizer) {
  for (std::size_t group = 0; group < optimizer.group_count(); ++group) {
    base_lrs_.push_back(optimizer.lr(group));
  }
}

void Schedule::step() {
  check_step(step_ + 1);
  set(++step_);
}

TensorMap Schedule::state_dict() const {
  return {{"step", scalar_tensor(step_, {.dtype = DType::Int64})},
          {"base_lr", tensor(base_lrs_, {static_cast<std::int64_t>(base_lrs_.size())})}};
}

void Schedule::check_state_dict(const TensorMap& state) const {
  const auto groups = static_cast<std::int64_t>(base_lrs_.size());
  entry(name(), state, "base_lr", {.shape = {groups}, .dtype = DType::Float64});
  const auto step =
      entry(name(), state, "step", {.shape = {}, .dtype = DType::Int64}).item<std::int64_t>();
  TENON_CHECK(step >= 0, name(), ": state 'step' must be at least 0, got ", step);
  check_step(step);
  for (const std::pair<const std::string, Tensor>& item : state) {
    TENON_CHECK(item.first == "step" || item.first == "base_lr", name(), ": unexpected state '",
                item.first, "'");
  }
}

void Schedule::load_state_dict(const TensorMap& state) {
  check_state_dict(state);
  base_lrs_ = state.at("base_lr").to_vector<double>();
  step_ = state.at("step").item<std::int64_t>();
  set(step_);
}

// ---- StepLR -------------------------------------------------------------------------------------

StepLR::StepLR(Optimizer& optimizer, const StepLROptions& options)
    : Schedule(optimizer), options_(options) {
  TENON_CHECK(options.step_size >= 1, "StepLR: step_size must be at least 1, got ",
              options.step_size);
  StepLR::set(0);
}

void StepLR::set(std::int64_t step) {
  const double factor = std::pow(options_.gamma, static_cast<double>(step / options_.step_size));
  for (std::size_t group = 0; group < base_lrs().size(); ++group) {
    optimizer().set_option(group, "lr", base_lrs()[group] * factor);
  }
}

// ---- CosineAnnealingLR --------------------------------------------------------------------------

CosineAnnealingLR::CosineAnnealingLR(Optimizer& optimizer, const CosineAnnealingLROptions& options)
    : Schedule(optimizer), options_(options) {
  TENON_CHECK(options.t_max >= 1, "CosineAnnealingLR: t_max must be at least 1, got ",
              options.t_max);
  CosineAnnealingLR::set(0);
}

void CosineAnnealingLR::set(std::int64_t step) {
  const double angle =
      std::numbers::pi * static_cast<double>(step) / static_cast<double>(options_.t_max);
  for (std::size_t group = 0; group < base_lrs().size(); ++group) {
    const double range = base_lrs()[group] - options_.eta_min;
    optimizer().set_option(group, "lr", options_.eta_min + range * (1.0 + std::cos(angle)) / 2.0);
  }
}

// ---- OneCycleLR ---------------------------------------------------------------------------------

namespace {

/// One stretch of the cycle: from where the last one ended to `end_step`.
struct Phase {
  double end_step;
  double start_lr;
  double end_lr;
  double start_momentum;
  double end_momentum;
};

double anneal(Anneal curve, double start, double end, double part) {
  if (curve == Anneal::Linear) return start + (end - start) * part;
  return end + (start - end) / 2.0 * (1.0 + std::cos(std::numbers::pi * part));
}

}  // namespace

OneCycleLR::OneCycleLR(Optimizer& optimizer, const OneCycleLROptions& options)
    : Schedule(optimizer), options_(options) {
  TENON_CHECK(options.total_steps >= 1, "OneCycleLR: total_steps must be at least 1, got ",
              options.total_steps);
  TENON_CHECK(options.pct_start >= 0 && options.pct_start <= 1,
              "OneCycleLR: pct_start must be in [0, 1], got ", options.pct_start);
  TENON_CHECK(options.div_factor > 0 && options.final_div_factor > 0,
              "OneCycleLR: div_factor and final_div_factor must be positive, got ",
              options.div_factor, " and ", options.final_div_factor);
  TENON_CHECK(
      !options.cycle_momentum || optimizer.has_option("momentum") || optimizer.has_option("beta1"),
      "OneCycleLR: ", optimizer.name(), " has no momentum; set cycle_momentum to false");
  OneCycleLR::set(0);
}

void OneCycleLR::check_step(std::int64_t step) const {
  TENON_CHECK(step <= options_.total_steps, "OneCycleLR: step ", step,
              " is beyond the last of total_steps ", options_.total_steps);
}

void OneCycleLR::set(std::int64_t step) {
  const OneCycleLROptions& o = options_;
  const double first = o.max_lr / o.div_factor;
  const double last = first / o.final_div_factor;
  const auto total = static_cast<double>(o.total_steps);
  const double peak = o.pct_start * total - 1.0;
  const Phase up{peak, first, o.max_lr, o.max_momentum, o.base_momentum};
  const Phase down{2.0 * peak, o.max_lr, first, o.base_momentum, o.max_momentum};
  const Phase out{total - 1.0, first, last, o.max_momentum, o.max_momentum};
  const Phase down_and_out{total - 1.0, o.max_lr, last, o.base_momentum, o.max_momentum};
  const std::array<Phase, 3> three = {up, down, out};
  const std::array<Phase, 2> two = {up, down_and_out};
  const std::span<const Phase> phases =
      o.three_phase ? std::span<const Phase>(three) : std::span<const Phase>(two);

  const auto now = static_cast<double>(step);
  double start = 0.0;
  std::size_t i = 0;
  for (; i + 1 < phases.size() && now > phases[i].end_step; ++i) start = phases[i].end_step;
  const Phase& phase = phases[i];
  // A cycle of one step has a phase of no length: it is at its start.
  const double length = phase.end_step - start;
  const double part = length != 0.0 ? (now - start) / length : 0.0;
  const double lr = anneal(o.anneal, phase.start_lr, phase.end_lr, part);
  const double momentum = anneal(o.anneal, phase.start_momentum, phase.end_momentum, part);
  const char* const momentum_name = optimizer().has_option("momentum") ? "momentum" : "beta1";
  for (std::size_t group = 0; group < base_lrs().size(); ++group) {
    optimizer().set_option(group, "lr", lr);
    if (o.cycle_momentum) optimizer().set_option(group, momentum_name, momentum);
  }
}

}  // namespace tenon::optim
