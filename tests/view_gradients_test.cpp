// Gradients of the views and of the other ops that core itself has.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "tenon/core/gradcheck.h"
#include "tenon/tests/support/matchers.h"
#include "tenon/tests/support/test_ops.h"

namespace tenon {
namespace {

using test::counting;
using test::expect_values;

/// Checks first and second derivatives of exp(view(x)), from contiguous and permuted inputs.
void check_view_gradients(const Shape& shape, const std::function<Tensor(const Tensor&)>& view) {
  const auto f = [&](std::span<const Tensor> x) { return test::exp(view(x[0])); };
  const Tensor plain = test::random_leaf(shape);
  EXPECT_TRUE(gradcheck(f, {plain}));
  EXPECT_TRUE(gradgradcheck(f, {plain}));
  Shape reversed = shape;
  std::reverse(reversed.begin(), reversed.end());
  Shape order;
  for (std::size_t d = shape.size(); d-- > 0;) order.push_back(static_cast<std::int64_t>(d));
  const Tensor permuted = test::random_leaf(reversed).detach().permute(order).requires_grad_();
  EXPECT_TRUE(gradcheck(f, {permuted}));
  EXPECT_TRUE(gradgradcheck(f, {permuted}));
}

TEST(ViewGradients, Reshape) {
  check_view_gradients({3, 2, 5}, [](const Tensor& x) { return x.reshape({5, 6}); });
  check_view_gradients({3, 4}, [](const Tensor& x) { return x.flatten(); });
}

TEST(ViewGradients, PermuteAndTranspose) {
  check_view_gradients({2, 3, 5}, [](const Tensor& x) { return x.permute({2, 0, -2}); });
  check_view_gradients({2, 3, 5}, [](const Tensor& x) { return x.transpose(0, -1); });
}

TEST(ViewGradients, SliceNarrowAndSelect) {
  check_view_gradients({3, 7}, [](const Tensor& x) { return x.slice(1, 1, 7, 3); });
  check_view_gradients({3, 7}, [](const Tensor& x) { return x.slice(0, 3); });
  check_view_gradients({3, 5}, [](const Tensor& x) { return x.narrow(-1, 2, 3); });
  check_view_gradients({3, 5}, [](const Tensor& x) { return x.select(0, -1); });
}

TEST(ViewGradients, ExpandAndSumTo) {
  check_view_gradients({3, 1}, [](const Tensor& x) { return x.expand({2, 3, 5}); });
  check_view_gradients({}, [](const Tensor& x) { return x.expand({3}); });
  check_view_gradients({2, 3, 5}, [](const Tensor& x) { return sum_to(x, {3, 1}); });
  check_view_gradients({2, 3}, [](const Tensor& x) { return sum_to(x, {}); });
}

TEST(ViewGradients, SqueezeUnsqueezeAndCopies) {
  check_view_gradients({3, 1, 2}, [](const Tensor& x) { return x.squeeze(); });
  check_view_gradients({3, 1, 2}, [](const Tensor& x) { return x.squeeze(1).unsqueeze(-1); });
  check_view_gradients({3, 2}, [](const Tensor& x) { return x.transpose(0, 1).contiguous(); });
  check_view_gradients({3, 2}, [](const Tensor& x) { return x.clone(); });
  check_view_gradients({3, 2}, [](const Tensor& x) { return embed(x, {3, 7}, 1, 2, 3); });
}

TEST(ViewGradients, AChainOfViews) {
  check_view_gradients({3, 1, 4}, [](const Tensor& x) {
    return x.permute({2, 1, 0}).slice(0, 0, 4, 2).expand({2, 5, 3}).reshape({5, 6}).select(1, 4);
  });
}

TEST(ViewGradients, OverlappingViewsAddUp) {
  const Tensor x = counting({5}).requires_grad_();
  accumulate(x.slice(0, 0, 3), x.slice(0, 2, 5)).backward(tensor<double>({1, 10, 100}));
  expect_values(x.grad(), {5}, {1, 10, 101, 10, 100});
}

TEST(ViewGradients, ReachTheBaseOfAnEmptyView) {
  const Tensor x = counting({3}).requires_grad_();
  x.slice(0, 3).backward(zeros({0}, {.dtype = DType::Float64}));
  expect_values(x.grad(), {3}, {0, 0, 0});
}

// ---- sum_to against brute force -----------------------------------------------------------------

TEST(SumTo, AddsWhatExpandRepeated) {
  const Tensor base = counting({2, 3, 4, 5});
  const Tensor sources[] = {base, base.permute({3, 1, 0, 2}), base.slice(3, 0, 5, 2),
                            base.slice(1, 0, 1).expand({2, 3, 4, 5})};
  for (const Tensor& source : sources) {
    const std::vector<double> values = source.to_vector<double>();
    for (std::size_t kept = 0; kept < 16; ++kept) {
      for (std::size_t dropped = 0; dropped <= 4; ++dropped) {
        Shape aligned = source.shape();  // with the leading dimensions that `target` lacks as 1
        for (std::size_t d = 0; d < 4; ++d) {
          if (d < dropped || (kept >> d & 1) == 0) aligned[d] = 1;
        }
        Shape target = aligned;
        for (std::size_t d = 0; d < dropped; ++d) target.erase(0);
        std::vector<double> expected(static_cast<std::size_t>(target.numel()), 0.0);
        for (std::size_t n = 0; n < values.size(); ++n) {
          auto rest = static_cast<std::int64_t>(n);
          std::int64_t position = 0;
          std::int64_t block = 1;
          for (std::size_t d = 4; d-- > 0;) {
            const std::int64_t index = rest % source.shape()[d];
            rest /= source.shape()[d];
            position += (aligned[d] == 1 ? 0 : index) * block;
            block *= aligned[d];
          }
          expected[static_cast<std::size_t>(position)] += values[n];
        }
        expect_values(sum_to(source, target), target, expected);
      }
    }
  }
}

TEST(SumTo, OfManyElementsInEveryFloatingDtype) {
  for (DType dtype : {DType::Float16, DType::BFloat16, DType::Float32, DType::Float64}) {
    // Sums of 16-bit values are exact in float32 and rounded once.
    const Tensor x = ones({211, 700}, {.dtype = dtype});
    const double rows = full({}, 211, {.dtype = dtype}).item();
    EXPECT_EQ(sum_to(x, {700}).to_vector<double>(), std::vector<double>(700, rows)) << dtype;
    const double columns = full({}, 700, {.dtype = dtype}).item();
    EXPECT_EQ(sum_to(x, {211, 1}).to_vector<double>(), std::vector<double>(211, columns)) << dtype;
    const double all = full({}, 147700, {.dtype = DType::Float32}).to(dtype).item();
    EXPECT_EQ(sum_to(x, {}).item(), all) << dtype;
  }
  EXPECT_EQ(sum_to(zeros({0, 3}), {3}).to_vector<double>(), (std::vector<double>{0, 0, 0}));
}

}  // namespace
}  // namespace tenon
