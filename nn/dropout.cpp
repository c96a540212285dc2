#include "tenon/nn/dropout.h"

#include "tenon/core/error.h"
#include "tenon/ops/dropout.h"

namespace tenon::nn {

Dropout::Dropout(double p) : p_(p) {
  TENON_CHECK(p >= 0 && p <= 1, "Dropout: p must be in [0, 1], got ", p);
}

Tensor Dropout::forward(const Tensor& x) { return ops::dropout(x, p_, training()); }

std::string Dropout::extra_repr() const { return tenon::detail::concat("p=", p_); }

}  // namespace tenon::nn
