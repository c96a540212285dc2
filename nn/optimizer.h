// The base of all optimizers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tenon/nn/named_tensors.h"

namespace tenon::optim {

using nn::TensorMap;

/// Some parameters and the options for them.
template <class Options>
struct ParameterGroup {
  std::vector<Tensor> parameters;
  Options options;
};

/// Changes parameters by their gradients. Parameters are in groups, each with options of its own.
/// The tensors are the module's own, so that `Module::to` is followed.
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  /// Changes every parameter that has a gradient, in place and without history.
  void step();
  /// Forgets all gradients.
  void zero_grad();
  /// "SGD", "Adam" or "AdamW".
  virtual std::string_view name() const = 0;

  std::size_t group_count() const { return groups_.size(); }
  const std::vector<Tensor>& parameters(std::size_t group = 0) const;
  /// The option `name` of a group: "lr", "momentum", "beta1", …: what schedules change. Throws
  /// `Error` when there is none.
  double option(std::size_t group, std::string_view name) const;
  void set_option(std::size_t group, std::string_view name, double value);
  bool has_option(std::string_view name) const;
  double lr(std::size_t group = 0) const { return option(group, "lr"); }
  /// Sets it for all groups.
  void set_lr(double lr);

  /// Everything that `step` depends on besides the parameters and gradients: of group g its
  /// options as "groups.g.lr" (float64) and the number of its parameters, of parameter i (counted
  /// through all groups) "state.i.step" (int64), "state.i.exp_avg" and the like. Copies.
  TensorMap state_dict() const;
  /// Restores it. Throws `Error` naming the entry, before anything is changed, when one is missing
  /// or unexpected, or has a shape or dtype that does not fit the parameters.
  void load_state_dict(const TensorMap& state);
  /// The checks of `load_state_dict` alone.
  void check_state_dict(const TensorMap& state) const;

 protected:
  struct Option {
    std::string name;
    double value;
  };

  struct Group {
    std::vector<Tensor> parameters;
    std::vector<Option> options;

    double operator[](std::string_view name) const;
  };

  /// What an optimizer remembers of one parameter: how many steps it made, and tensors like it.
  struct State {
    std::int64_t steps = 0;
    TensorMap tensors;
  };

  /// `state_names` are the tensors that a `State` may hold, and must after the first step if they
  /// are required. Throws `Error` when there is no parameter, or one is undefined, not a floating
  /// leaf, or comes twice.
  Optimizer(std::string_view name, std::vector<Group> groups, std::vector<std::string> state_names,
            bool state_required);

  /// A parameter that has a gradient, which has its spec.
  struct Change {
    Tensor parameter;
    Tensor gradient;
    State* state;  // with the steps before this one; never null
  };

  /// Changes parameters of `group`, all that have a gradient: together, because on a GPU a launch
  /// for each would cost more than the work. Where it throws, no state must have been added.
  virtual void update(std::span<const Change> changes, const Group& group) = 0;

 private:
  class StateReader;
  void check_parameter(std::size_t i, const Tensor& parameter, StateReader& reader) const;

  std::vector<Group> groups_;
  std::vector<std::string> state_names_;
  bool state_required_;
  std::vector<State> states_;  // of every parameter, group after group
};

}  // namespace tenon::optim
