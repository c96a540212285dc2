// Accepting any callable: what `compile` needs to know of a function or module, without its type.
#pragma once

#include <array>
#include <concepts>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "tenon/graph/trace.h"

namespace tenon::graph::detail {

/// What `compile` traces.
struct Source {
  TensorsFunction function;
  /// The module's parameters and buffers now; empty for a plain function.
  std::function<std::vector<NamedTensor>()> named_tensors;
  /// Whether the module and each of its parts are in training mode now; empty for a plain function.
  std::function<std::vector<bool>()> modes;
};

/// A module is recognised by what it can do, so that this library need not know `nn`.
template <class F>
concept ModuleLike = requires(F& f) {
  f.named_parameters();
};

template <class Result>
std::vector<Tensor> as_tensors(Result&& result) {
  using Plain = std::remove_cvref_t<Result>;
  if constexpr (std::is_same_v<Plain, Tensor>) {
    return {std::forward<Result>(result)};
  } else if constexpr (std::is_same_v<Plain, std::vector<Tensor>>) {
    return std::forward<Result>(result);
  } else {
    return std::apply([](const auto&... parts) { return std::vector<Tensor>{parts...}; }, result);
  }
}

/// Calls `f` with as many tensors as there are, through `forward` where there is one.
template <class F, std::size_t... kIndex>
bool call_with(F& f, std::span<const Tensor> inputs, std::vector<Tensor>& outputs,
               std::index_sequence<kIndex...>) {
  if (inputs.size() != sizeof...(kIndex)) return false;
  if constexpr (requires { f.forward(inputs[kIndex]...); }) {
    outputs = as_tensors(f.forward(inputs[kIndex]...));
    return true;
  } else if constexpr (requires { f(inputs[kIndex]...); }) {
    outputs = as_tensors(f(inputs[kIndex]...));
    return true;
  } else {
    return false;
  }
}

template <class F>
std::vector<Tensor> call_any(F& f, std::span<const Tensor> inputs) {
  std::vector<Tensor> outputs;
  const bool called = call_with(f, inputs, outputs, std::make_index_sequence<1>()) ||
                      call_with(f, inputs, outputs, std::make_index_sequence<2>()) ||
                      call_with(f, inputs, outputs, std::make_index_sequence<3>()) ||
                      call_with(f, inputs, outputs, std::make_index_sequence<4>()) ||
                      call_with(f, inputs, outputs, std::make_index_sequence<5>()) ||
                      call_with(f, inputs, outputs, std::make_index_sequence<6>()) ||
                      call_with(f, inputs, outputs, std::make_index_sequence<0>());
  TENON_CHECK(called, "compile: the function cannot be called with ", inputs.size(), " tensors");
  return outputs;
}

template <class F>
std::vector<Tensor> call_spread(F& f, std::span<const Tensor> inputs) {
  if constexpr (requires { f.forward(inputs); }) {
    return as_tensors(f.forward(inputs));
  } else if constexpr (requires { f(inputs); }) {
    return as_tensors(f(inputs));
  } else {
    return call_any(f, inputs);
  }
}

template <class List>
void append_named(const List& list, std::vector<NamedTensor>& out) {
  for (const auto& entry : list) {
    if constexpr (requires { entry.tensor; }) {
      out.push_back({entry.name, entry.tensor});
    } else {
      out.push_back({entry.first, entry.second});
    }
  }
}

/// The questions to `*f`, which the source keeps alive if it owns it.
template <class F>
Source make_source(std::shared_ptr<F> f) {
  Source source;
  source.function = [f](std::span<const Tensor> inputs) { return call_spread(*f, inputs); };
  if constexpr (ModuleLike<F>) {
    source.named_tensors = [f] {
      std::vector<NamedTensor> all;
      append_named(f->named_parameters(), all);
      if constexpr (requires { f->named_buffers(); }) append_named(f->named_buffers(), all);
      return all;
    };
  }
  if constexpr (requires { f->training(); }) {
    source.modes = [f] {
      std::vector<bool> modes = {f->training()};
      if constexpr (requires { (*f->named_modules().begin()).module->training(); }) {
        for (const auto& part : f->named_modules()) modes.push_back(part.module->training());
      }
      return modes;
    };
  }
  return source;
}

}  // namespace tenon::graph::detail
