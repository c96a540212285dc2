// Channels-last as strides: the rules, and that everything which has values has the same ones.
#include "tenon/core/memory_format.h"

#include <gtest/gtest.h>

#include <cmath>
#include <sstream>

#include "tenon/core/gradcheck.h"
#include "tenon/core/structural.h"
#include "tenon/core/tensor_body.h"
#include "tenon/ops/ops.h"
#include "tenon/tests/support/devices.h"
#include "tenon/tests/support/matchers.h"

namespace tenon {
namespace {

using test::counting;
using test::expect_error;
using test::random_leaf;

constexpr auto kContiguous = MemoryFormat::Contiguous;
constexpr auto kChannelsLast = MemoryFormat::ChannelsLast;

Tensor channels_last(const Shape& shape) {
  return empty(shape, {.dtype = DType::Float64}).to(kChannelsLast);
}

Tensor with_strides(const Shape& shape, const Strides& strides) {
  std::int64_t reach = 1;
  for (std::size_t d = 0; d < shape.size(); ++d) reach += (shape[d] - 1) * strides[d];
  return detail::make_view(empty({reach}), shape, strides, 0);
}

// ---- PyTorch's documented examples --------------------------------------------------------------

TEST(MemoryFormat, StridesOfTheTutorial) {
  const Tensor x = zeros({10, 3, 32, 32});
  EXPECT_EQ(x.strides(), (Strides{3072, 1024, 32, 1}));
  const Tensor y = x.to(kChannelsLast);
  EXPECT_EQ(y.shape(), (Shape{10, 3, 32, 32}));
  EXPECT_EQ(y.strides(), (Strides{3072, 1, 96, 3}));
  EXPECT_EQ(y.to(kContiguous).strides(), (Strides{3072, 1024, 32, 1}));
  EXPECT_EQ(x.contiguous(kChannelsLast).strides(), (Strides{3072, 1, 96, 3}));
  EXPECT_TRUE(y.is_contiguous(kChannelsLast));
  EXPECT_FALSE(y.is_contiguous());
  EXPECT_EQ(y.clone().strides(), (Strides{3072, 1, 96, 3}));
  EXPECT_EQ(empty_like(y).strides(), (Strides{3072, 1, 96, 3}));
  EXPECT_EQ(empty_like(y, kContiguous).strides(), (Strides{3072, 1024, 32, 1}));
  EXPECT_EQ((y + y).strides(), (Strides{3072, 1, 96, 3}));
}

TEST(MemoryFormat, SizesOfOneLeaveBothPossibleAndContiguousWins) {
  const Tensor x = zeros({4, 1, 4, 4});
  EXPECT_TRUE(x.is_contiguous());
  EXPECT_TRUE(x.is_contiguous(kChannelsLast));
  EXPECT_TRUE(x.contiguous(kChannelsLast).is_same(x));
  EXPECT_EQ(x.suggest_memory_format(), kContiguous);
  const Tensor y = x.to(kChannelsLast);  // only the strides can tell
  EXPECT_EQ(y.strides(), (Strides{16, 1, 4, 1}));
  EXPECT_EQ(y.suggest_memory_format(), kChannelsLast);
  EXPECT_EQ(y.clone().strides(), y.strides());
  EXPECT_EQ(ops::relu(y).strides(), (Strides{16, 16, 4, 1}));
  EXPECT_EQ(zeros({4, 3, 1, 1}).suggest_memory_format(), kContiguous);
  EXPECT_EQ(zeros({4, 3, 1, 1}).to(kChannelsLast).strides(), (Strides{3, 1, 3, 3}));
  EXPECT_EQ(zeros({4, 1, 1, 1}).to(kChannelsLast).suggest_memory_format(), kContiguous);
}

TEST(MemoryFormat, SuggestedByStridesWithGapsToo) {
  const Tensor x = channels_last({2, 6, 4, 5});
  EXPECT_EQ(x.narrow(1, 1, 3).suggest_memory_format(), kChannelsLast);
  EXPECT_EQ(x.slice(2, 0, 4, 2).suggest_memory_format(), kChannelsLast);
  // Three pixels two apart reach beyond the row of five.
  EXPECT_EQ(x.slice(3, 0, 5, 2).suggest_memory_format(), kContiguous);
  EXPECT_FALSE(x.narrow(1, 1, 3).is_contiguous(kChannelsLast));
  EXPECT_EQ(zeros({2, 6, 4, 5}).slice(3, 0, 1).suggest_memory_format(), kContiguous);
  EXPECT_EQ(with_strides({3, 1, 1, 1}, {5, 5, 5, 5}).suggest_memory_format(), kContiguous);
  EXPECT_EQ(zeros({2, 4, 5, 3}).permute({0, 3, 1, 2}).suggest_memory_format(), kChannelsLast);
  EXPECT_EQ(zeros({1, 4, 1, 3}).transpose(1, 3).suggest_memory_format(), kContiguous);
  EXPECT_EQ(zeros({2, 1, 4, 5}).expand({2, 3, 4, 5}).suggest_memory_format(), kContiguous);
  EXPECT_EQ(zeros({0, 3, 4, 5}).suggest_memory_format(), kContiguous);
  // No elements, so that nothing overflows.
  constexpr std::int64_t kLarge = std::int64_t{1} << 40;
  EXPECT_EQ(zeros({0, kLarge, kLarge, 3}).suggest_memory_format(), kContiguous);
  EXPECT_EQ(zeros({0, kLarge, kLarge, 3}).to(kChannelsLast).numel(), 0);
  EXPECT_EQ(zeros({2, 3, 4}).transpose(0, 2).suggest_memory_format(), kContiguous);
}

TEST(MemoryFormat, DenseMeansWithoutGapsInAnyOrder) {
  const auto dense = [](const Tensor& x) { return is_dense(x.shape(), x.strides()); };
  EXPECT_TRUE(dense(zeros({2, 3, 4}).permute({2, 0, 1})));
  EXPECT_TRUE(dense(channels_last({2, 3, 4, 5})));
  EXPECT_TRUE(dense(zeros({2, 0, 4}).transpose(0, 2)));
  EXPECT_FALSE(dense(zeros({3, 1}).expand({3, 2})));
  EXPECT_FALSE(dense(channels_last({2, 3, 4, 5}).narrow(1, 0, 2)));
}

TEST(MemoryFormat, CopiesKeepTheOrderOfDimensions) {
  const Tensor x = counting({2, 3, 4}).permute({2, 0, 1});
  EXPECT_EQ(x.clone().strides(), (Strides{1, 12, 4}));
  EXPECT_EQ(x.to(DType::Float32).strides(), (Strides{1, 12, 4}));
  EXPECT_EQ(zeros_like(x).strides(), (Strides{1, 12, 4}));
  EXPECT_EQ(x.clone(kContiguous).strides(), (Strides{6, 3, 1}));
  EXPECT_EQ(x.clone().to_vector<double>(), x.to_vector<double>());
  // Gaps go, the order stays; expanded dimensions have none.
  EXPECT_EQ(x.narrow(2, 0, 2).clone().strides(), (Strides{1, 8, 4}));
  EXPECT_EQ(zeros({3, 1}).expand({3, 2}).clone().strides(), (Strides{2, 1}));
}

TEST(MemoryFormat, RefusesWhatIsNoImage) {
  const Tensor x = zeros({2, 3});
  expect_error([&] { x.contiguous(kChannelsLast); },
               {"contiguous: channels_last", "4 dimensions", "[2, 3]"});
  expect_error([&] { x.to(kChannelsLast); }, {"to: channels_last", "4 dimensions", "[2, 3]"});
  expect_error([&] { x.clone(kChannelsLast); }, {"copy: channels_last", "[2, 3]"});
  expect_error([&] { empty_like(x, kChannelsLast); }, {"channels_last", "[2, 3]"});
  expect_error([&] { x.contiguous(MemoryFormat::Preserve); }, {"contiguous: preserve"});
  EXPECT_TRUE(x.to(MemoryFormat::Preserve).is_same(x));
  EXPECT_FALSE(x.is_contiguous(kChannelsLast));
  std::ostringstream text;
  text << kContiguous << ' ' << kChannelsLast << ' ' << MemoryFormat::Preserve;
  EXPECT_EQ(text.str(), "contiguous channels_last preserve");
}

// ---- views --------------------------------------------------------------------------------------

TEST(MemoryFormat, ViewsOfChannelsLastShareItsMemory) {
  const Tensor plain = counting({2, 3, 4, 5});
  const Tensor x = plain.to(kChannelsLast);
  const auto shares = [&](const Tensor& view) { return view.body()->storage == x.body()->storage; };
  EXPECT_EQ(x.select(0, 1).strides(), (Strides{1, 15, 3}));
  EXPECT_EQ(x.select(1, 2).strides(), (Strides{60, 15, 3}));
  EXPECT_TRUE(x.permute({0, 2, 3, 1}).is_contiguous());
  EXPECT_EQ(x.flatten(2).strides(), (Strides{60, 1, 3}));
  for (const Tensor& view : {x.select(0, 1), x.select(1, 2), x.permute({0, 2, 3, 1}), x.flatten(2),
                             x.detach(), x.reshape({2, 3, 4, 5})}) {
    EXPECT_TRUE(shares(view)) << view.shape();
  }
  const Tensor flat = x.flatten();  // channels and pixels cannot be joined in place
  EXPECT_FALSE(shares(flat));
  EXPECT_EQ(flat.to_vector<double>(), plain.to_vector<double>());
  x.select(1, 2).fill_(-1);
  EXPECT_EQ(x.to_vector<double>()[2 * 20], -1);
}

TEST(MemoryFormat, PrintsLogicalOrder) {
  std::ostringstream plain, last;
  plain << counting({1, 2, 2, 2});
  last << counting({1, 2, 2, 2}).to(kChannelsLast);
  EXPECT_EQ(last.str(), plain.str());
}

// ---- elementwise ops: TensorIterator's rules ----------------------------------------------------

TEST(ElementwiseFormat, FollowsTheOperands) {
  const Tensor last = channels_last({2, 3, 4, 5});
  const Tensor plain = zeros({2, 3, 4, 5}, {.dtype = DType::Float64});
  const Strides wanted{60, 1, 15, 3};
  EXPECT_EQ((last + last).strides(), wanted);
  EXPECT_EQ((last * 2.0).strides(), wanted);
  EXPECT_EQ(ops::mish(last).strides(), wanted);
  EXPECT_EQ((last < last).strides(), wanted);
  EXPECT_EQ(ops::isnan(last).strides(), wanted);
  EXPECT_EQ(ops::exp(last).strides(), wanted);
  EXPECT_EQ(ops::dropout(last, 0.5).strides(), wanted);
  EXPECT_EQ(ops::where(last < 0, last, 0).strides(), wanted);
  EXPECT_EQ(accumulate(last, last).strides(), wanted);
  // The first decides where they differ, and broadcast operands have no say.
  EXPECT_EQ((last + plain).strides(), wanted);
  EXPECT_EQ((plain + last).strides(), plain.strides());
  EXPECT_EQ((zeros({3, 1, 1}, {.dtype = DType::Float64}) + last).strides(), wanted);
  EXPECT_EQ((last + scalar_tensor(1)).strides(), wanted);
  EXPECT_EQ((last.narrow(1, 0, 2) + 1.0).strides(), (Strides{40, 1, 10, 2}));
}

TEST(ElementwiseFormat, KeepsOtherDenseOrders) {
  const Tensor x = counting({3, 4}).transpose(0, 1);
  EXPECT_EQ((x + x).strides(), (Strides{1, 4}));
  EXPECT_EQ((x + x).to_vector<double>(), (x.contiguous() * 2.0).to_vector<double>());
  EXPECT_EQ((x + x.contiguous()).strides(), (Strides{1, 4}));
  EXPECT_EQ((counting({4, 1}).expand({4, 3}) * 1.0).strides(), (Strides{3, 1}));
  EXPECT_EQ((counting({3}) * counting({4, 1})).strides(), (Strides{3, 1}));
}

TEST(ElementwiseFormat, CatKeepsWhatAllSuggest) {
  const Tensor last = counting({2, 3, 4, 5}).to(kChannelsLast);
  const Tensor plain = counting({2, 3, 4, 5});
  EXPECT_TRUE(ops::cat({last, last}, 1).is_contiguous(kChannelsLast));
  EXPECT_TRUE(ops::cat({last, plain}, 1).is_contiguous());
  EXPECT_EQ(ops::cat({last, last}, 1).to_vector<double>(),
            ops::cat({plain, plain}, 1).to_vector<double>());
}

TEST(ElementwiseFormat, DropoutDropsTheSameElementsInEitherFormat) {
  const Tensor x = ones({2, 3, 4, 5});
  manual_seed(3);
  const std::vector<double> plain = ops::dropout(x).to_vector<double>();
  manual_seed(3);
  EXPECT_EQ(ops::dropout(x.to(kChannelsLast)).to_vector<double>(), plain);
}

// ---- gradients ----------------------------------------------------------------------------------

TEST(GradientFormat, OfALeafIsTheLeafs) {
  const Tensor x = random_leaf({2, 3, 4, 5}).detach().to(kChannelsLast).requires_grad_();
  ops::sum(ops::square(x)).backward();
  EXPECT_EQ(x.grad().strides(), x.strides());
  const Tensor plain = random_leaf({2, 3, 4, 5});
  const Tensor first = plain.to(kChannelsLast);
  ops::sum(ops::square(first)).backward();
  EXPECT_EQ(plain.grad().strides(), plain.strides());
  const Tensor sum = plain.grad();
  ops::sum(ops::square(plain.to(kChannelsLast))).backward();  // added in place
  EXPECT_TRUE(plain.grad().is_same(sum));
  const std::vector<double> values = plain.to_vector<double>();
  const std::vector<double> gradient = plain.grad().to_vector<double>();
  for (std::size_t i = 0; i < values.size(); ++i) EXPECT_EQ(gradient[i], 4 * values[i]);
}

TEST(GradientFormat, ThroughCopiesAndFormats) {
  const auto function = [](std::span<const Tensor> x) {
    return ops::tanh(x[0].contiguous(kChannelsLast)).to(kContiguous).clone(kChannelsLast);
  };
  EXPECT_NO_THROW(gradcheck(function, {random_leaf({1, 3, 2, 2})}));
  EXPECT_NO_THROW(gradgradcheck(function, {random_leaf({1, 3, 2, 2})}));
}

// ---- every device: values in channels-last memory are those in contiguous memory ----------------

class FormatOnDevice : public test::DeviceTest {
 protected:
  Tensor draw(const Shape& shape, std::uint64_t seed, DType dtype = DType::Float64) const {
    Generator generator(seed);
    return randn(shape, {.dtype = DType::Float64}, generator).to(device(), dtype);
  }
};

TENON_DEVICE_TESTS(FormatOnDevice);

void expect_close(const Tensor& result, const Tensor& expected, double tolerance) {
  ASSERT_EQ(result.shape(), expected.shape());
  const std::vector<double> ours = result.to_vector<double>();
  const std::vector<double> theirs = expected.to_vector<double>();
  for (std::size_t i = 0; i < ours.size(); ++i) {
    ASSERT_NEAR(ours[i], theirs[i], tolerance * (1 + std::abs(theirs[i]))) << "element " << i;
  }
}

TEST_P(FormatOnDevice, ConversionsMoveEveryElement) {
  for (const Shape& shape : {Shape{2, 3, 4, 5}, Shape{1, 1, 3, 3}, Shape{3, 70, 9, 8},
                             Shape{2, 5, 1, 1}, Shape{0, 3, 2, 2}}) {
    const Tensor x = draw(shape, 1, DType::Float32);
    const std::vector<double> values = x.to_vector<double>();
    const Tensor last = x.to(kChannelsLast);
    EXPECT_EQ(last.to_vector<double>(), values);
    EXPECT_EQ(last.contiguous().to_vector<double>(), values);
    EXPECT_EQ(last.to(Device::cpu()).strides(), last.strides());
    EXPECT_EQ(last.to(Device::cpu()).to(device()).strides(), last.strides());
    EXPECT_EQ(last.to(Device::cpu()).to(device()).to_vector<double>(), values);
    EXPECT_EQ(last.to(Device::cpu(), DType::Float64).to_vector<double>(), values);
  }
}

TEST_P(FormatOnDevice, ElementwiseAndSums) {
  const Tensor x = draw({2, 9, 4, 5}, 1);
  const Tensor y = draw({2, 9, 4, 5}, 2);
  const Tensor bias = draw({9, 1, 1}, 3);
  const Tensor a = x.to(kChannelsLast);
  const Tensor b = y.to(kChannelsLast);
  for (const Tensor& other : {y, b}) {
    expect_close(a * other + bias, x * y + bias, 1e-14);
    expect_close(other - a, y - x, 1e-14);
    expect_close(ops::where(a < other, a, other), ops::minimum(x, y), 0);
    expect_close(ops::mish(a) / ops::exp(other), ops::mish(x) / ops::exp(y), 1e-13);
  }
  for (const Shape& dims : {Shape{}, Shape{1}, Shape{0, 2, 3}, Shape{2, 3}}) {
    expect_close(ops::sum(a, dims), ops::sum(x, dims), 1e-13);
  }
  expect_close(ops::amax(a, {1}), ops::amax(x, {1}), 0);
  expect_close(ops::softmax(a, 1), ops::softmax(x, 1), 1e-14);
}

}  // namespace
}  // namespace tenon
