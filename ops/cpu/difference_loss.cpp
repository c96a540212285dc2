#include "tenon/ops/cpu/difference_loss.h"

#include <vector>

#include "tenon/core/cpu/strided.h"
#include "tenon/core/cpu/sum.h"
#include "tenon/core/parallel.h"
#include "tenon/ops/cpu/map.h"

namespace tenon::ops::cpu {
namespace {

using tenon::cpu::kBlock;
using tenon::cpu::kElementwiseGrain;

/// `count` neighbours from element `first` on as `C`; `buffer` holds as many.
template <class T, class C>
Eigen::Map<const Eigen::Array<C, Eigen::Dynamic, 1>> neighbours(T* x, std::int64_t first,
                                                                std::int64_t count, C* buffer) {
  return {tenon::cpu::load_block<T, C>({reinterpret_cast<std::byte*>(x + first), 1}, count, buffer),
          count};
}

/// The sum of the losses of the elements from `begin` to `end`. Added up block by block, so that
/// the error grows with the number of blocks.
template <class T, class C>
C sum_range(DifferenceLossKind kind, T* x, T* target, std::int64_t begin, std::int64_t end) {
  C buffers[2][kBlock];
  C losses[kBlock];
  C total(0);
  for (std::int64_t at = begin; at < end; at += kBlock) {
    const std::int64_t count = std::min(kBlock, end - at);
    const auto difference =
        neighbours<T>(x, at, count, buffers[0]) - neighbours<T>(target, at, count, buffers[1]);
    Eigen::Map<Eigen::Array<C, Eigen::Dynamic, 1>> result(losses, count);
    if (kind == DifferenceLossKind::Squared) {
      result = difference.square();
    } else {
      result = difference.abs();
    }
    total += tenon::cpu::sum_neighbours(losses, count);
  }
  return total;
}

}  // namespace

void difference_loss(DifferenceLossKind kind, const Tensor& x, const Tensor& target, double divisor,
                     const Tensor& loss) {
  visit_floating(x.dtype(), "difference_loss", [&]<class T>() {
    using C = compute_type<T>;
    const std::int64_t elements = x.numel();
    const std::int64_t chunks = (elements + kElementwiseGrain - 1) / kElementwiseGrain;
    std::vector<C> partial(static_cast<std::size_t>(chunks));
    T* const x_data = static_cast<T*>(x.raw_data());
    T* const target_data = static_cast<T*>(target.raw_data());
    parallel_for(0, elements, kElementwiseGrain, [&](std::int64_t begin, std::int64_t end) {
      partial[static_cast<std::size_t>(begin / kElementwiseGrain)] =
          sum_range<T, C>(kind, x_data, target_data, begin, end);
    });
    C total(0);
    for (const C part : partial) total += part;
    *static_cast<T*>(loss.raw_data()) = static_cast<T>(total / static_cast<C>(divisor));
  });
}

void difference_loss_grad(DifferenceLossKind kind, double slope, const Tensor& grad,
                          const Tensor& x, const Tensor& target, const Tensor& grad_x) {
  const double factor = visit_floating(grad.dtype(), "difference_loss_grad", [&]<class T>() {
    return slope * static_cast<double>(*static_cast<const T*>(grad.raw_data()));
  });
  if (kind == DifferenceLossKind::Squared) {
    map_floating<2>({x, target}, grad_x, [factor](const auto& a, const auto& b, auto& out) {
      using C = element_type<decltype(out)>;
      out = (a - b) * static_cast<C>(factor);
    });
  } else {
    map_floating<2>({x, target}, grad_x, [factor](const auto& a, const auto& b, auto& out) {
      using C = element_type<decltype(out)>;
      const C size = static_cast<C>(factor);
      out = (a - b).unaryExpr([size](C d) {
        return size * (d > C(0) ? C(1) : d < C(0) ? C(-1) : C(0));
      });
    });
  }
}

}  // namespace tenon::ops::cpu
