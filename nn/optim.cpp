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

/// The state called `name`, zeros like `parameter` at first.
Tensor& zeros_at_first(TensorMap& state, const char* name, const Tensor& parameter) {
  Tensor& tensor = state[name];
  if (!tensor.defined()) tensor = zeros_like(parameter);
  return tensor;
}

/// One step of Adam; `Group` and `State` are the optimizer's.
template <class Group, class State>
void adam_update(const Tensor& parameter, const Tensor& gradient, const Group& group, State& state,
                 bool decoupled) {
  const Tensor mean = zeros_at_first(state.tensors, "exp_avg", parameter);
  const Tensor square = zeros_at_first(state.tensors, "exp_avg_sq", parameter);
  ops::adam_step(parameter, gradient, mean, square,
                 {.learning_rate = group["lr"],
                  .beta1 = group["beta1"],
                  .beta2 = group["beta2"],
                  .epsilon = group["eps"],
                  .weight_decay = group["weight_decay"],
                  .decoupled = decoupled,
                  .count = state.steps});
}

}  // namespace

SGD::SGD(const std::vector<Tensor>& parameters, const SGDOptions& options)
    : SGD(std::vector<ParameterGroup<SGDOptions>>{{parameters, options}}) {}

SGD::SGD(const std::vector<ParameterGroup<SGDOptions>>& groups)
    : Optimizer("SGD", make_groups<Group>(groups), {"momentum_buffer"}, false) {}

void SGD::update(const Tensor& parameter, const Tensor& gradient, const Group& group,
                 State& state) {
  const double momentum = group["momentum"];
  Tensor buffer;
  bool first = false;
  if (momentum != 0) {
    first = state.tensors.count("momentum_buffer") == 0;
    buffer = zeros_at_first(state.tensors, "momentum_buffer", parameter);
  }
  ops::sgd_step(parameter, gradient, buffer,
                {.learning_rate = group["lr"],
                 .momentum = momentum,
                 .dampening = group["dampening"],
                 .weight_decay = group["weight_decay"],
                 .nesterov = group["nesterov"] != 0,
                 .first = first});
}

Adam::Adam(const std::vector<Tensor>& parameters, const AdamOptions& options)
    : Adam(std::vector<ParameterGroup<AdamOptions>>{{parameters, options}}) {}

Adam::Adam(const std::vector<ParameterGroup<AdamOptions>>& groups)
    : Optimizer("Adam", make_groups<Group>("Adam", groups), {"exp_avg", "exp_avg_sq"}, true) {}

void Adam::update(const Tensor& parameter, const Tensor& gradient, const Group& group,
                  State& state) {
  adam_update(parameter, gradient, group, state, false);
}

AdamW::AdamW(const std::vector<Tensor>& parameters, const AdamWOptions& options)
    : AdamW(std::vector<ParameterGroup<AdamWOptions>>{{parameters, options}}) {}

AdamW::AdamW(const std::vector<ParameterGroup<AdamWOptions>>& groups)
    : Optimizer("AdamW", make_groups<Group>("AdamW", groups), {"exp_avg", "exp_avg_sq"}, true) {}

void AdamW::update(const Tensor& parameter, const Tensor& gradient, const Group& group,
                   State& state) {
  adam_update(parameter, gradient, group, state, true);
}

}  // namespace tenon::optim
