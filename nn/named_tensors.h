// Tensors by name: what a module lists, and what files and checkpoints hold.
#pragma once

#include <map>
#include <string>

#include "tenon/core/tensor.h"

namespace tenon::nn {

/// A tensor with its dotted name, in the order in which a module lists them.
struct NamedTensor {
  std::string name;
  Tensor tensor;
};

/// Tensors ordered by name: a state_dict.
using TensorMap = std::map<std::string, Tensor>;

}  // namespace tenon::nn
