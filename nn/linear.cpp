#include "tenon/nn/linear.h"

#include "tenon/core/factories.h"
#include "tenon/nn/init.h"
#include "tenon/ops/matmul.h"

namespace tenon::nn {

Linear::Linear(std::int64_t in_features, std::int64_t out_features, const LinearOptions& options) {
  TENON_CHECK(in_features >= 0 && out_features >= 0,
              "Linear: sizes must not be negative, got in_features ", in_features,
              " and out_features ", out_features);
  weight = add_parameter("weight", empty({out_features, in_features}));
  if (options.bias) bias = add_parameter("bias", empty({out_features}));
  init::default_layer_(weight, bias);
}

Tensor Linear::forward(const Tensor& x) { return ops::linear(x, weight, bias); }

std::string Linear::extra_repr() const {
  return tenon::detail::concat(weight.size(1), ", ", weight.size(0),
                               ", bias=", bias.defined() ? "true" : "false");
}

}  // namespace tenon::nn
