#include "tenon/nn/optim.h"

#include "tenon/core/factories.h"
#include "tenon/ops/optimizer_step.h"

namespace tenon::optim {
namespace {

void check_not_negative(const char* optimizer, const char* option, double value) {
  TENON_CHECK(value >= 0, optimizer, ": ", option, " must not be negative, got ", value);
}

void check(const SGDOptions& options) {
  check_not_negative("SGD", "lr", options.lr);
  check_not_negative("SGD", "momentum", options.momentum);
  check_not_negative("SGD", "weight_decay", options.weight_decay);
  TENON_CHECK(!options.nesterov || (options.momentum > 0 && options.dampening == 0),
              "SGD: nesterov needs a momentum and no dampening, got momentum ", options.momentum,
              " and dampening ", options.dampening);
}

/// `Options` are Adam's or AdamW's, which have the same names.
template <class Options>
void check(const char* optimizer, const Options& options) {
  check_not_negative(optimizer, "lr", options.lr);
  check_not_negative(optimizer, "eps", options.eps);
  check_not_negative(optimizer, "weight_decay", options.weight_decay);
  for (double beta : {options.betas.first, options.betas.second}) {
    TENON_CHECK(beta >= 0 && beta < 1, optimizer, ": betas must be in [0, 1), got ", beta);
  }
}

template <class Group>
std::vector<Group> make_groups(const std::vector<ParameterGroup<SGDOptions>>& groups) {
  std::vector<Group> result;
  for (const ParameterGroup<SGDOptions>& group : groups) {
    const SGDOptions& o = group.options;
    check(o);
    result.push_back({group.parameters,
                      {{"lr", o.lr},
                       {"momentum", o.momentum},
                       {"dampening", o.dampening},
                       {"weight_decay", o.weight_decay},
                       {"nesterov", o.nesterov ? 1.0 : 0.0}}});
  }
  return result;
}

template <class Group, class Options>
std::vector<Group> make_groups(const char* optimizer,
                               const std::vector<ParameterGroup<Options>>& groups) {
  std::vector<Group> result;
  for (const ParameterGroup<Options>& group : groups) {
    const Options& o = group.options;
    check(optimizer, o);
    result.push_back({group.parameters,
                      {{"lr", o.lr},
                       {"beta1", o.betas.first},
                       {"beta2", o.betas.second},
                       {"eps", o.eps},
                       {"weight_decay", o.weight_decay}}});
  }
  return result;
}

/// The state called `name`; undefined before it is kept.
Tensor find_state(const TensorMap& state, const char* name) {
  const auto found = state.find(name);
  return found == state.end() ? Tensor() : found->second;
}

/// The same, or zeros like `parameter` to start from.
Tensor state_or_zeros(const TensorMap& state, const char* name, const Tensor& parameter) {
  const Tensor tensor = find_state(state, name);
  return tensor.defined() ? tensor : zeros_like(parameter);
}

/// One step of Adam; `Group` and `Change` are the optimizer's.
template <class Group, class Change>
void adam_update(std::span<const Change> changes, const Group& group, bool decoupled) {
  std::vector<ops::AdamOperands> operands;
  operands.reserve(changes.size());
  for (const Change& change : changes) {
    const TensorMap& kept = change.state->tensors;
    operands.push_back({.parameter = change.parameter,
                        .grad = change.gradient,
                        .m = state_or_zeros(kept, "exp_avg", change.parameter),
                        .v = state_or_zeros(kept, "exp_avg_sq", change.parameter),
                        .count = change.state->steps + 1});
  }
  ops::adam_step(operands, {.learning_rate = group["lr"],
                            .beta1 = group["beta1"],
                            .beta2 = group["beta2"],
                            .epsilon = group["eps"],
                            .weight_decay = group["weight_decay"],
                            .decoupled = decoupled});
  for (std::size_t i = 0; i < changes.size(); ++i) {
    TensorMap& kept = changes[i].state->tensors;
    kept.try_emplace("exp_avg", operands[i].m);
    kept.try_emplace("exp_avg_sq", operands[i].v);
  }
}

}  // namespace

SGD::SGD(const std::vector<Tensor>& parameters, const SGDOptions& options)
    : SGD(std::vector<ParameterGroup<SGDOptions>>{{parameters, options}}) {}

SGD::SGD(const std::vector<ParameterGroup<SGDOptions>>& groups)
    : Optimizer("SGD", make_groups<Group>(groups), {"momentum_buffer"}, false) {}

void SGD::update(std::span<const Change> changes, const Group& group) {
  const double momentum = group["momentum"];
  std::vector<ops::SgdOperands> operands;
  operands.reserve(changes.size());
  for (const Change& change : changes) {
    ops::SgdOperands one{.parameter = change.parameter, .grad = change.gradient};
    if (momentum != 0) {
      one.momentum_buffer = find_state(change.state->tensors, "momentum_buffer");
      one.first = !one.momentum_buffer.defined();
      if (one.first) one.momentum_buffer = zeros_like(change.parameter);
    }
    operands.push_back(std::move(one));
  }
  ops::sgd_step(operands, {.learning_rate = group["lr"],
                           .momentum = momentum,
                           .dampening = group["dampening"],
                           .weight_decay = group["weight_decay"],
                           .nesterov = group["nesterov"] != 0});
  if (momentum == 0) return;
  for (std::size_t i = 0; i < changes.size(); ++i) {
    changes[i].state->tensors.try_emplace("momentum_buffer", operands[i].momentum_buffer);
  }
}

Adam::Adam(const std::vector<Tensor>& parameters, const AdamOptions& options)
    : Adam(std::vector<ParameterGroup<AdamOptions>>{{parameters, options}}) {}

Adam::Adam(const std::vector<ParameterGroup<AdamOptions>>& groups)
    : Optimizer("Adam", make_groups<Group>("Adam", groups), {"exp_avg", "exp_avg_sq"}, true) {}

void Adam::update(std::span<const Change> changes, const Group& group) {
  adam_update(changes, group, false);
}

AdamW::AdamW(const std::vector<Tensor>& parameters, const AdamWOptions& options)
    : AdamW(std::vector<ParameterGroup<AdamWOptions>>{{parameters, options}}) {}

AdamW::AdamW(const std::vector<ParameterGroup<AdamWOptions>>& groups)
    : Optimizer("AdamW", make_groups<Group>("AdamW", groups), {"exp_avg", "exp_avg_sq"}, true) {}

void AdamW::update(std::span<const Change> changes, const Group& group) {
  adam_update(changes, group, true);
}

}  // namespace tenon::optim
