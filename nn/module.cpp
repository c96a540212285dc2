#include "tenon/nn/module.h"

#include <cxxabi.h>

#include <algorithm>
#include <cstdlib>
#include <ostream>
#include <typeinfo>
#include <unordered_set>

#include "tenon/core/autograd.h"
#include "tenon/core/error.h"

namespace tenon::nn {
namespace {

/// The class's name without its namespaces.
std::string class_name(const Module& module) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> text(
      abi::__cxa_demangle(typeid(module).name(), nullptr, nullptr, &status), std::free);
  const std::string name = status == 0 ? text.get() : typeid(module).name();
  const std::size_t colon = name.rfind("::");
  return colon == std::string::npos ? name : name.substr(colon + 2);
}

/// Leaves the first of each tensor.
void remove_duplicates(std::vector<NamedTensor>& tensors) {
  std::unordered_set<const void*> seen;
  std::erase_if(tensors, [&](const NamedTensor& item) {
    return !seen.insert(item.tensor.body().get()).second;
  });
}

/// "'a', 'b' and 3 more"
std::string list_names(const std::vector<std::string>& names) {
  constexpr std::size_t kMost = 5;
  std::string text;
  for (std::size_t i = 0; i < std::min(kMost, names.size()); ++i) {
    text += (i > 0 ? ", '" : "'") + names[i] + "'";
  }
  if (names.size() > kMost) text += " and " + std::to_string(names.size() - kMost) + " more";
  return text;
}

}  // namespace

Module::Module(Module&& other) {
  for (const Child& child : other.children_) {
    TENON_CHECK(child.owned != nullptr, "Module: ", class_name(other),
                " cannot be moved, because its registered child '", child.name,
                "' is a member of it; construct it in place (Sequential::emplace<",
                class_name(other), ">(...), std::make_unique, or a member of your own module)");
  }
  parameters_ = std::move(other.parameters_);
  buffers_ = std::move(other.buffers_);
  children_ = std::move(other.children_);
  training_ = other.training_;
}

Tensor Module::forward(const Tensor&) {
  tenon::detail::fail(tenon::detail::concat(
      "forward: ", class_name(*this), " has no forward of one tensor; override Module::forward"));
}

// ---- registration -------------------------------------------------------------------------------

void Module::check_name(const std::string& name) const {
  TENON_CHECK(!name.empty(), "Module: a name in ", class_name(*this), " is empty");
  TENON_CHECK(name.find('.') == std::string::npos, "Module: the name '", name,
              "' contains a dot, which separates the names of nested modules");
  const auto taken = [&](const auto& list) {
    return std::any_of(list.begin(), list.end(),
                       [&](const auto& item) { return item.name == name; });
  };
  TENON_CHECK(!taken(parameters_) && !taken(buffers_) && !taken(children_), "Module: the name '",
              name, "' is already taken in ", class_name(*this));
}

bool Module::contains(const Module& other) const {
  return this == &other || std::any_of(children_.begin(), children_.end(), [&](const Child& child) {
           return child.module->contains(other);
         });
}

void Module::check_child(const std::string& name, const Module& child) const {
  check_name(name);
  TENON_CHECK(!child.contains(*this), "Module: child '", name, "' contains its parent");
}

void Module::add(std::string name, Module& child) {
  check_child(name, child);
  children_.push_back({std::move(name), &child, nullptr});
}

void Module::add(std::string name, std::unique_ptr<Module> child) {
  TENON_CHECK(child != nullptr, "Module: child '", name, "' is null");
  check_child(name, *child);
  Module* const module = child.get();
  children_.push_back({std::move(name), module, std::move(child)});
}

Tensor Module::add_parameter(std::string name, const Tensor& tensor) {
  check_name(name);
  TENON_CHECK(tensor.defined(), "Module: parameter '", name, "' is undefined");
  TENON_CHECK(tensor.is_leaf(), "Module: parameter '", name,
              "' was computed by an op; register a leaf (detach())");
  TENON_CHECK(is_floating(tensor.dtype()), "Module: parameter '", name,
              "' must have a floating dtype, got ", tensor.dtype());
  tensor.requires_grad_();
  parameters_.push_back({std::move(name), tensor});
  return tensor;
}

Tensor Module::add_buffer(std::string name, const Tensor& tensor) {
  check_name(name);
  TENON_CHECK(tensor.defined(), "Module: buffer '", name, "' is undefined");
  TENON_CHECK(!tensor.requires_grad(), "Module: buffer '", name,
              "' requires a gradient; register it as a parameter");
  buffers_.push_back({std::move(name), tensor});
  return tensor;
}

// ---- listing ------------------------------------------------------------------------------------

void Module::collect(std::vector<NamedTensor> Module::*list, const std::string& prefix,
                     std::vector<NamedTensor>& out) const {
  for (const NamedTensor& item : this->*list) out.push_back({prefix + item.name, item.tensor});
  for (const Child& child : children_) child.module->collect(list, prefix + child.name + ".", out);
}

std::vector<NamedTensor> Module::named_parameters() const {
  std::vector<NamedTensor> result;
  collect(&Module::parameters_, "", result);
  remove_duplicates(result);
  return result;
}

std::vector<NamedTensor> Module::named_buffers() const {
  std::vector<NamedTensor> result;
  collect(&Module::buffers_, "", result);
  remove_duplicates(result);
  return result;
}

std::vector<Tensor> Module::parameters() const {
  std::vector<Tensor> result;
  for (const NamedTensor& item : named_parameters()) result.push_back(item.tensor);
  return result;
}

void Module::collect_modules(const std::string& prefix, std::vector<NamedModule>& out) {
  out.push_back({prefix, this});
  for (const Child& child : children_) {
    child.module->collect_modules(prefix.empty() ? child.name : prefix + "." + child.name, out);
  }
}

std::vector<NamedModule> Module::named_modules() {
  std::vector<NamedModule> result;
  collect_modules("", result);
  return result;
}

std::vector<NamedModule> Module::named_children() const {
  std::vector<NamedModule> result;
  for (const Child& child : children_) result.push_back({child.name, child.module});
  return result;
}

// ---- state --------------------------------------------------------------------------------------

TensorMap Module::state_dict() const {
  std::vector<NamedTensor> all;
  collect(&Module::parameters_, "", all);
  collect(&Module::buffers_, "", all);
  TensorMap state;
  for (const NamedTensor& item : all) state.emplace(item.name, item.tensor.detach());
  return state;
}

void Module::check_state_dict(const TensorMap& state, bool strict) const {
  const TensorMap own = state_dict();
  std::vector<std::string> missing;
  std::vector<std::string> unexpected;
  for (const std::pair<const std::string, Tensor>& item : own) {
    if (state.find(item.first) == state.end()) missing.push_back(item.first);
  }
  for (const std::pair<const std::string, Tensor>& item : state) {
    const auto found = own.find(item.first);
    if (found == own.end()) {
      unexpected.push_back(item.first);
      continue;
    }
    TENON_CHECK(item.second.defined(), "load_state_dict: '", item.first, "' is undefined");
    TENON_CHECK(item.second.shape() == found->second.shape(), "load_state_dict: '", item.first,
                "' has shape ", item.second.shape(), " but the module's has ",
                found->second.shape());
    TENON_CHECK(item.second.dtype() == found->second.dtype(), "load_state_dict: '", item.first,
                "' is ", item.second.dtype(), " but the module's is ", found->second.dtype(),
                "; convert one with to()");
  }
  if (!strict) return;
  TENON_CHECK(missing.empty(), "load_state_dict: missing ", list_names(missing),
              unexpected.empty() ? "" : "; unexpected " + list_names(unexpected), " (for ",
              class_name(*this), ")");
  TENON_CHECK(unexpected.empty(), "load_state_dict: unexpected ", list_names(unexpected), " (for ",
              class_name(*this), ")");
}

void Module::load_state_dict(const TensorMap& state, bool strict) {
  check_state_dict(state, strict);
  const NoGradGuard no_history;
  for (const std::pair<const std::string, Tensor>& item : state_dict()) {
    const auto found = state.find(item.first);
    if (found != state.end()) item.second.copy_(found->second);
  }
}

// ---- changing -----------------------------------------------------------------------------------

void Module::train(bool mode) {
  training_ = mode;
  for (const Child& child : children_) child.module->train(mode);
}

void Module::convert(const std::function<Tensor(const Tensor&)>& function) {
  const NoGradGuard no_history;
  for (const NamedTensor& item : named_parameters()) {
    const Tensor gradient = item.tensor.grad();
    item.tensor.set_grad({});
    item.tensor.set_data(function(item.tensor.detach()));
    if (gradient.defined()) item.tensor.set_grad(function(gradient.detach()));
  }
  for (const NamedTensor& item : named_buffers()) {
    item.tensor.set_data(function(item.tensor.detach()));
  }
}

void Module::to(Device device) {
  convert([device](const Tensor& tensor) { return tensor.to(device); });
}

void Module::to(DType dtype) {
  TENON_CHECK(is_floating(dtype), "to: a module's dtype must be floating, got ", dtype);
  convert([dtype](const Tensor& tensor) {
    return is_floating(tensor.dtype()) ? tensor.to(dtype) : tensor;
  });
}

void Module::to(MemoryFormat format) {
  convert(
      [format](const Tensor& tensor) { return tensor.dim() == 4 ? tensor.to(format) : tensor; });
}

void Module::zero_grad() {
  for (const NamedTensor& item : named_parameters()) item.tensor.set_grad({});
}

void Module::requires_grad_(bool value) {
  for (const NamedTensor& item : named_parameters()) item.tensor.requires_grad_(value);
}

void Module::apply(const std::function<void(Module&)>& function) {
  for (const Child& child : children_) child.module->apply(function);
  function(*this);
}

// ---- printing -----------------------------------------------------------------------------------

void Module::print(std::ostream& out, const std::string& indent) const {
  out << class_name(*this) << '(' << extra_repr();
  if (children_.empty()) {
    out << ')';
    return;
  }
  out << '\n';
  for (const Child& child : children_) {
    out << indent << "  (" << child.name << "): ";
    child.module->print(out, indent + "  ");
    out << '\n';
  }
  out << indent << ')';
}

std::ostream& operator<<(std::ostream& out, const Module& module) {
  module.print(out, "");
  return out;
}

}  // namespace tenon::nn
