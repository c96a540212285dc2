// Modules one after another.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "tenon/nn/module.h"

namespace tenon::nn {

/// Gives each module's result to the next; they are called "0", "1", …
///
///     nn::Sequential encoder(nn::Conv2d{1, 32, {.kernel = 3}}, nn::ReLU{}, nn::Flatten{});
class Sequential : public Module {
 public:
  Sequential() = default;
  Sequential(Sequential&&) = default;
  /// Takes over the modules, which are moved from: hand in temporaries, or `std::move` them.
  template <class... Modules>
  requires(sizeof...(Modules) > 0 &&
           (std::is_base_of_v<Module, Modules> && ...)) explicit Sequential(Modules&&... modules) {
    (push_back(std::make_unique<Modules>(std::forward<Modules>(modules))), ...);
  }

  /// Constructs a module at the end; the way for those that cannot be moved.
  template <class M, class... Arguments>
  M& emplace(Arguments&&... arguments) {
    auto module = std::make_unique<M>(std::forward<Arguments>(arguments)...);
    M& result = *module;
    push_back(std::move(module));
    return result;
  }
  void push_back(std::unique_ptr<Module> module);

  std::size_t size() const { return modules_.size(); }
  /// Throws `Error` when there is no module `index`.
  Module& operator[](std::size_t index) const;

  Tensor forward(const Tensor& x) override;

 private:
  std::vector<Module*> modules_;  // owned by the base
};

}  // namespace tenon::nn
