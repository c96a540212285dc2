#include "tenon/ops/cpu/loss.h"

#include "tenon/core/half.h"
#include "tenon/core/parallel.h"
#include "tenon/ops/split.h"

namespace tenon::ops::cpu {

void nll_loss(const Tensor& x, const Tensor& target, const Tensor& weight,
              std::int64_t ignore_index, const Tensor& loss, const Tensor& used) {
  const Split split(x.shape(), 1);
  const std::int64_t classes = split.length;
  const std::int64_t* targets = target.data<std::int64_t>();
  visit_floating(x.dtype(), "nll_loss", [&]<class T>() {
    const T* in = static_cast<const T*>(x.raw_data());
    const T* weights = weight.defined() ? static_cast<const T*>(weight.raw_data()) : nullptr;
    T* losses = static_cast<T*>(loss.raw_data());
    T* used_weights = static_cast<T*>(used.raw_data());
    constexpr std::int64_t kGrain = 4096;
    parallel_for(0, split.outer * split.inner, kGrain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t t = targets[i];
        if (t == ignore_index) {
          losses[i] = T(0);
          used_weights[i] = T(0);
          continue;
        }
        TENON_CHECK(t >= 0 && t < classes, "nll_loss: target ", t, " is outside [0, ", classes,
                    "), and is not ignore_index ", ignore_index);
        const std::int64_t at = (i / split.inner * classes + t) * split.inner + i % split.inner;
        used_weights[i] = weights != nullptr ? weights[t] : T(1);
        losses[i] = -used_weights[i] * in[at];
      }
    });
  });
}

}  // namespace tenon::ops::cpu
