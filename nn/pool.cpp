#include "tenon/nn/pool.h"

#include "tenon/core/error.h"

namespace tenon::nn {

std::string MaxPool2d::extra_repr() const {
  return tenon::detail::concat("kernel=", kernel_, ", stride=", options_.stride.value_or(kernel_),
                               ", padding=", options_.padding);
}

std::string AvgPool2d::extra_repr() const {
  return tenon::detail::concat("kernel=", kernel_, ", stride=", options_.stride.value_or(kernel_),
                               ", padding=", options_.padding);
}

}  // namespace tenon::nn
