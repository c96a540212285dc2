// Module: a function of tensors with parameters, and a place in a tree of others.
#pragma once

#include <functional>
#include <iosfwd>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "tenon/nn/named_tensors.h"

namespace tenon::nn {

class Module;

/// A module with its dotted name; "" for the one that was asked.
struct NamedModule {
  std::string name;
  Module* module;
};

/// The base of all layers and models. Derive, hold the parts as values, register them:
///
///     struct Decoder : nn::Module {
///       nn::Linear project{32, 64 * 7 * 7};
///       nn::ConvTranspose2d up{64, 1, {.kernel = 4, .stride = 2, .padding = 1}};
///       Decoder() { add("project", project); add("up", up); }
///       Tensor forward(const Tensor& z) override { … }
///     };
///
/// Names are PyTorch's: parameter "weight" of child "up" is "up.weight". A module is never copied.
/// One that registered member modules is not moved either, because the registration points to
/// them; others may be (a Linear into a Sequential).
class Module {
 public:
  Module() = default;
  virtual ~Module() = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;
  Module& operator=(Module&&) = delete;
  /// Throws `Error` when `other` registered member modules: construct it in place
  /// (`Sequential::emplace`, `std::make_unique`).
  Module(Module&& other);

  /// What the module computes. The default throws; a module of several inputs adds a `forward` of
  /// its own.
  virtual Tensor forward(const Tensor& x);
  Tensor operator()(const Tensor& x) { return forward(x); }
  /// What operator<< prints between the parentheses: "32, 10, bias=true".
  virtual std::string extra_repr() const { return ""; }

  // ---- what there is, in order of registration, children after a module's own -------------------

  /// Every parameter once, also where modules share it.
  std::vector<Tensor> parameters() const;
  /// The same with their names: the first name of a shared one.
  std::vector<NamedTensor> named_parameters() const;
  std::vector<NamedTensor> named_buffers() const;
  /// This module and all below it, parents before their children.
  std::vector<NamedModule> named_modules();
  /// The direct children.
  std::vector<NamedModule> named_children() const;
  /// All parameters and buffers by name, shared ones under each of their names. The tensors are
  /// the module's own, without history.
  TensorMap state_dict() const;
  /// Copies `state` into the parameters and buffers. Throws `Error`, before anything is changed,
  /// when a shape or dtype differs and, unless `strict` is false, when a name is missing or
  /// unexpected.
  void load_state_dict(const TensorMap& state, bool strict = true);
  /// The checks of `load_state_dict` alone.
  void check_state_dict(const TensorMap& state, bool strict = true) const;

  // ---- changing all of it -----------------------------------------------------------------------

  /// Training or evaluation mode (dropout, batch_norm), here and below.
  void train(bool mode = true);
  void eval() { train(false); }
  bool training() const { return training_; }
  /// Moves parameters, buffers and gradients to `device`. The tensors stay the same, so that an
  /// optimizer that holds them goes on with them.
  void to(Device device);
  /// Converts the floating ones to `dtype`, which must be floating.
  void to(DType dtype);
  /// Brings those of 4 dimensions, the weights of convolutions, into `format`.
  void to(MemoryFormat format);
  void zero_grad();
  /// Switches the gradients of all parameters on or off.
  void requires_grad_(bool value = true);
  /// Calls `function` with every module, children before their parents.
  void apply(const std::function<void(Module&)>& function);

 protected:
  // Registration. Names must be new in this module, not empty and without a dot; otherwise `Error`.

  /// Registers a child that is a member of the derived class.
  void add(std::string name, Module& child);
  /// Registers a child and owns it.
  void add(std::string name, std::unique_ptr<Module> child);
  /// Registers a parameter, a leaf whose gradient is wanted; returns it: `weight =
  /// add_parameter("weight", empty({out, in}))`. A tensor that another module registered is shared.
  Tensor add_parameter(std::string name, const Tensor& tensor);
  /// Registers a tensor that is saved but not trained.
  Tensor add_buffer(std::string name, const Tensor& tensor);

 private:
  struct Child {
    std::string name;
    Module* module;
    std::unique_ptr<Module> owned;  // null for a member of the derived class
  };

  void check_name(const std::string& name) const;
  void check_child(const std::string& name, const Module& child) const;
  bool contains(const Module& other) const;
  /// Parameters or buffers of the tree with names under `prefix`, shared ones each time.
  void collect(std::vector<NamedTensor> Module::*list, const std::string& prefix,
               std::vector<NamedTensor>& out) const;
  void collect_modules(const std::string& prefix, std::vector<NamedModule>& out);
  /// Replaces the data of every parameter and buffer, and of the gradients.
  void convert(const std::function<Tensor(const Tensor&)>& function);
  void print(std::ostream& out, const std::string& indent) const;
  friend std::ostream& operator<<(std::ostream& out, const Module& module);

  std::vector<NamedTensor> parameters_;
  std::vector<NamedTensor> buffers_;
  std::vector<Child> children_;
  bool training_ = true;
};

/// Prints the tree of modules as PyTorch does.
std::ostream& operator<<(std::ostream& out, const Module& module);

}  // namespace tenon::nn
