#include "tenon/nn/optimizer.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "tenon/core/autograd.h"
#include "tenon/core/factories.h"

namespace tenon::optim {
namespace {

std::string state_key(std::size_t parameter, std::string_view name) {
  return "state." + std::to_string(parameter) + "." + std::string(name);
}

std::string group_key(std::size_t group, std::string_view name) {
  return "groups." + std::to_string(group) + "." + std::string(name);
}

Tensor number(double value) { return scalar_tensor(value, {.dtype = DType::Float64}); }
Tensor number(std::int64_t value) { return scalar_tensor(value, {.dtype = DType::Int64}); }

}  // namespace

/// Looks entries up, checks their specs, and knows at the end which nobody asked for.
class Optimizer::StateReader {
 public:
  StateReader(std::string_view optimizer, const TensorMap& state)
      : optimizer_(optimizer), state_(state) {}

  /// Entry `key`, which must have that shape and dtype, or an undefined tensor.
  Tensor find(const std::string& key, const Shape& shape, DType dtype) {
    const auto found = state_.find(key);
    if (found == state_.end()) return {};
    used_.insert(key);
    const Tensor& tensor = found->second;
    TENON_CHECK(tensor.defined(), optimizer_, ": state '", key, "' is undefined");
    TENON_CHECK(tensor.shape() == shape && tensor.dtype() == dtype, optimizer_, ": state '", key,
                "' is ", tensor.spec(), ", must be ", TensorSpec{shape, dtype, Device::cpu()});
    return tensor;
  }

  Tensor require(const std::string& key, const Shape& shape, DType dtype) {
    const Tensor tensor = find(key, shape, dtype);
    TENON_CHECK(tensor.defined(), optimizer_, ": state '", key, "' is missing");
    return tensor;
  }

  void finish() const {
    for (const std::pair<const std::string, Tensor>& item : state_) {
      TENON_CHECK(used_.count(item.first) == 1, optimizer_, ": unexpected state '", item.first,
                  "'");
    }
  }

 private:
  std::string_view optimizer_;
  const TensorMap& state_;
  std::unordered_set<std::string> used_;
};

double Optimizer::Group::operator[](std::string_view name) const {
  for (const Option& item : options) {
    if (item.name == name) return item.value;
  }
  detail::fail(detail::concat("Optimizer: there is no option '", name, "'"));
}

Optimizer::Optimizer(std::string_view name, std::vector<Group> groups,
                     std::vector<std::string> state_names, bool state_required)
    : groups_(std::move(groups)),
      state_names_(std::move(state_names)),
      state_required_(state_required) {
  std::unordered_set<const void*> seen;
  for (const Group& group : groups_) {
    for (const Tensor& parameter : group.parameters) {
      const std::size_t i = seen.size();
      TENON_CHECK(parameter.defined(), name, ": parameter ", i, " is undefined");
      TENON_CHECK(parameter.is_leaf(), name, ": parameter ", i,
                  " was computed by an op; only leaves can be trained");
      TENON_CHECK(is_floating(parameter.dtype()), name, ": parameter ", i,
                  " must have a floating dtype, got ", parameter.spec());
      TENON_CHECK(seen.insert(parameter.body().get()).second, name, ": parameter ", i,
                  " comes twice");
    }
  }
  TENON_CHECK(!seen.empty(), name, ": there are no parameters (0 tensors in ", groups_.size(),
              " groups)");
  states_.resize(seen.size());
}

const std::vector<Tensor>& Optimizer::parameters(std::size_t group) const {
  TENON_CHECK(group < groups_.size(), name(), ": there is no group ", group, ", only ",
              groups_.size());
  return groups_[group].parameters;
}

bool Optimizer::has_option(std::string_view name) const {
  const std::vector<Option>& options = groups_[0].options;
  return std::any_of(options.begin(), options.end(),
                     [&](const Option& item) { return item.name == name; });
}

double Optimizer::option(std::size_t group, std::string_view name) const {
  TENON_CHECK(group < groups_.size(), this->name(), ": there is no group ", group, ", only ",
              groups_.size());
  return groups_[group][name];
}

void Optimizer::set_option(std::size_t group, std::string_view name, double value) {
  TENON_CHECK(group < groups_.size(), this->name(), ": there is no group ", group, ", only ",
              groups_.size());
  for (Option& item : groups_[group].options) {
    if (item.name == name) {
      item.value = value;
      return;
    }
  }
  detail::fail(detail::concat(this->name(), ": there is no option '", name, "'"));
}

void Optimizer::set_lr(double lr) {
  for (std::size_t group = 0; group < groups_.size(); ++group) set_option(group, "lr", lr);
}

void Optimizer::step() {
  const NoGradGuard no_history;
  std::vector<Change> changes;
  std::size_t i = 0;
  for (const Group& group : groups_) {
    changes.clear();
    for (const Tensor& parameter : group.parameters) {
      State& state = states_[i++];
      Tensor gradient = parameter.grad();
      if (gradient.defined()) changes.push_back({parameter, std::move(gradient), &state});
    }
    if (changes.empty()) continue;
    update(changes, group);
    for (const Change& change : changes) ++change.state->steps;
  }
}

void Optimizer::zero_grad() {
  for (const Group& group : groups_) {
    for (const Tensor& parameter : group.parameters) parameter.set_grad({});
  }
}

TensorMap Optimizer::state_dict() const {
  TensorMap result;
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    for (const Option& item : groups_[g].options) {
      result.emplace(group_key(g, item.name), number(item.value));
    }
    result.emplace(group_key(g, "parameters"),
                   number(static_cast<std::int64_t>(groups_[g].parameters.size())));
  }
  for (std::size_t i = 0; i < states_.size(); ++i) {
    if (states_[i].steps == 0) continue;
    result.emplace(state_key(i, "step"), number(states_[i].steps));
    for (const std::pair<const std::string, Tensor>& item : states_[i].tensors) {
      result.emplace(state_key(i, item.first), item.second.detach().clone());
    }
  }
  return result;
}

void Optimizer::check_state_dict(const TensorMap& state) const {
  StateReader reader(name(), state);
  std::size_t i = 0;
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    for (const Option& item : groups_[g].options) {
      reader.require(group_key(g, item.name), {}, DType::Float64);
    }
    const std::string count_key = group_key(g, "parameters");
    const auto count = reader.require(count_key, {}, DType::Int64).item<std::int64_t>();
    TENON_CHECK(count == static_cast<std::int64_t>(groups_[g].parameters.size()), name(),
                ": state '", count_key, "' is ", count, " but the group has ",
                groups_[g].parameters.size(), " parameters");
    for (const Tensor& parameter : groups_[g].parameters) check_parameter(i++, parameter, reader);
  }
  reader.finish();
}

void Optimizer::check_parameter(std::size_t i, const Tensor& parameter, StateReader& reader) const {
  const std::string step_key = state_key(i, "step");
  const Tensor steps = reader.find(step_key, {}, DType::Int64);
  if (!steps.defined()) return;  // `finish` reports a tensor without a step
  TENON_CHECK(steps.item<std::int64_t>() >= 1, name(), ": state '", step_key,
              "' must be at least 1, got ", steps.item<std::int64_t>());
  for (const std::string& tensor : state_names_) {
    const std::string key = state_key(i, tensor);
    if (state_required_) {
      reader.require(key, parameter.shape(), parameter.dtype());
    } else {
      reader.find(key, parameter.shape(), parameter.dtype());
    }
  }
}

void Optimizer::load_state_dict(const TensorMap& state) {
  check_state_dict(state);
  std::vector<State> loaded;  // complete before the old ones go
  for (const Group& group : groups_) {
    for (const Tensor& parameter : group.parameters) {
      const std::size_t i = loaded.size();
      State& target = loaded.emplace_back();
      const auto steps = state.find(state_key(i, "step"));
      if (steps == state.end()) continue;
      target.steps = steps->second.item<std::int64_t>();
      for (const std::string& tensor : state_names_) {
        const auto found = state.find(state_key(i, tensor));
        if (found == state.end()) continue;
        const Tensor copy = empty_like(parameter);  // in the parameter's memory format
        target.tensors.emplace(tensor, copy.copy_(found->second.detach()));
      }
    }
  }
  states_ = std::move(loaded);
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    for (Option& item : groups_[g].options) {
      item.value = state.at(group_key(g, item.name)).item<double>();
    }
  }
}

}  // namespace tenon::optim
