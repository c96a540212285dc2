// Printed tensors; the expected texts are what PyTorch prints, with C++'s true and false.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <sstream>

#include "tenon/tests/support/matchers.h"

namespace tenon {
namespace {

template <class T>
std::string text_of(const T& value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

TEST(Printing, SmallFloatingTensors) {
  EXPECT_EQ(text_of(tensor<float>({1, 2.5f, -3})), "tensor([ 1.0000,  2.5000, -3.0000])");
  EXPECT_EQ(text_of(tensor<float>({0.1f, 0.25f})), "tensor([0.1000, 0.2500])");
  EXPECT_EQ(text_of(zeros({2, 3})), "tensor([[0., 0., 0.],\n        [0., 0., 0.]])");
  EXPECT_EQ(text_of(tensor<float>({1, -20, 300})), "tensor([  1., -20., 300.])");
}

TEST(Printing, BlankLinesSeparateOuterDimensions) {
  EXPECT_EQ(text_of(arange(0, 8).reshape({2, 2, 2})),
            "tensor([[[0, 1],\n         [2, 3]],\n\n        [[4, 5],\n         [6, 7]]])");
  EXPECT_EQ(text_of(arange(0, 2).reshape({2, 1, 1, 1})), "tensor([[[[0]]],\n\n\n        [[[1]]]])");
}

TEST(Printing, ZeroDimensionalAndSingleElements) {
  EXPECT_EQ(text_of(scalar_tensor(3.5)), "tensor(3.5000)");
  EXPECT_EQ(text_of(scalar_tensor(2)), "tensor(2.)");
  EXPECT_EQ(text_of(full({}, 7, {.dtype = DType::Int64})), "tensor(7)");
  EXPECT_EQ(text_of(ones({1, 1})), "tensor([[1.]])");
}

TEST(Printing, EmptyTensorsSayTheirShapeAndDtype) {
  EXPECT_EQ(text_of(zeros({0})), "tensor([])");
  EXPECT_EQ(text_of(zeros({2, 0})), "tensor([], size=[2, 0])");
  EXPECT_EQ(text_of(zeros({0}, {.dtype = DType::Int64})), "tensor([], dtype=int64)");
  EXPECT_EQ(text_of(zeros({0, 3}, {.dtype = DType::Bool})), "tensor([], size=[0, 3], dtype=bool)");
}

TEST(Printing, IntegersAndBooleansAreAligned) {
  EXPECT_EQ(text_of(tensor<std::int64_t>({1, -20, 300})), "tensor([  1, -20, 300])");
  EXPECT_EQ(text_of(tensor<bool>({true, false})), "tensor([ true, false])");
  EXPECT_EQ(text_of(tensor<std::uint8_t>({1, 255})), "tensor([  1, 255], dtype=uint8)");
}

TEST(Printing, Int64KeepsAllDigits) {
  EXPECT_EQ(text_of(tensor<std::int64_t>({9007199254740993, INT64_MIN})),
            "tensor([    9007199254740993, -9223372036854775808])");
}

TEST(Printing, OtherDtypesAreNamed) {
  EXPECT_EQ(text_of(tensor<double>({0.5})), "tensor([0.5000], dtype=float64)");
  EXPECT_EQ(text_of(full({1}, 0.5, {.dtype = DType::Float16})), "tensor([0.5000], dtype=float16)");
  EXPECT_EQ(text_of(full({1}, 2, {.dtype = DType::BFloat16})), "tensor([2.], dtype=bfloat16)");
}

TEST(Printing, NaNAndInfinity) {
  const float inf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(text_of(tensor<float>({NAN, 1, inf, -inf})), "tensor([nan, 1., inf, -inf])");
  EXPECT_EQ(text_of(tensor<float>({NAN, 0.5f})), "tensor([   nan, 0.5000])");
  EXPECT_EQ(text_of(tensor<float>({NAN, 0})), "tensor([nan, 0.])");
}

TEST(Printing, ScientificWhereSizesDifferByMoreThanAThousandOrAreExtreme) {
  EXPECT_EQ(text_of(tensor<float>({0.001f, 2})), "tensor([1.0000e-03, 2.0000e+00])");
  EXPECT_EQ(text_of(tensor<float>({0.003f, 2})), "tensor([0.0030, 2.0000])");
  EXPECT_EQ(text_of(tensor<float>({1, 5000})), "tensor([1.0000e+00, 5.0000e+03])");
  EXPECT_EQ(text_of(tensor<float>({1, 1000})), "tensor([   1., 1000.])");
  EXPECT_EQ(text_of(tensor<float>({3e8f})), "tensor([3.0000e+08])");
  EXPECT_EQ(text_of(tensor<float>({0.00002f, 0})), "tensor([2.0000e-05, 0.0000e+00])");
  EXPECT_EQ(text_of(tensor<double>({-1e300})), "tensor([-1.0000e+300], dtype=float64)");
}

TEST(Printing, LongRowsAreBrokenAtEightyColumns) {
  std::string expected = "tensor([";
  for (int i = 0; i < 40; ++i) {
    if (i > 0) expected += i % 18 == 0 ? ",\n        " : ", ";
    if (i < 10) expected += ' ';
    expected += std::to_string(i);
  }
  EXPECT_EQ(text_of(arange(0, 40)), expected + "])");
}

TEST(Printing, LargeTensorsLeaveTheirMiddlesOut) {
  EXPECT_EQ(text_of(arange(0, 1001)), "tensor([   0,    1,    2,  ...,  998,  999, 1000])");
  EXPECT_EQ(text_of(arange(0, 10000).reshape({100, 100})),
            "tensor([[   0,    1,    2,  ...,   97,   98,   99],\n"
            "        [ 100,  101,  102,  ...,  197,  198,  199],\n"
            "        [ 200,  201,  202,  ...,  297,  298,  299],\n"
            "        ...,\n"
            "        [9700, 9701, 9702,  ..., 9797, 9798, 9799],\n"
            "        [9800, 9801, 9802,  ..., 9897, 9898, 9899],\n"
            "        [9900, 9901, 9902,  ..., 9997, 9998, 9999]])");
  EXPECT_EQ(text_of(arange(0, 1200).reshape({400, 3})).find("..., "), std::string::npos)
      << "short dimensions are shown whole";
  EXPECT_EQ(text_of(arange(0, 1000)).find("..."), std::string::npos) << "1000 elements are few";
}

TEST(Printing, WidthsAndNotationComeFromWhatIsShown) {
  const Tensor x = ones({1001});
  x.slice(0, 500, 501).fill_(123456.5);
  EXPECT_EQ(text_of(x), "tensor([1., 1., 1.,  ..., 1., 1., 1.])");
}

TEST(Printing, ViewsPrintTheirOwnElements) {
  EXPECT_EQ(text_of(arange(0, 6).reshape({2, 3}).transpose(0, 1).slice(0, 1)),
            "tensor([[1, 4],\n        [2, 5]])");
  EXPECT_EQ(text_of(arange(5, 6).expand({2, 2})), "tensor([[5, 5],\n        [5, 5]])");
}

TEST(Printing, TheGradientAndUndefinedTensorsAreNoted) {
  EXPECT_EQ(text_of(ones({1}, {.requires_grad = true})), "tensor([1.], requires_grad=true)");
  EXPECT_EQ(text_of(Tensor()), "tensor(undefined)");
}

TEST(Printing, PropertiesThatDoNotFitTheLineGoToTheNext) {
  const Tensor x = arange(10, 26, 1, {.dtype = DType::UInt8});
  EXPECT_EQ(text_of(x),
            "tensor([10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25],\n"
            "       dtype=uint8)");
}

TEST(Printing, ScalarsAndDtypes) {
  EXPECT_EQ(text_of(Scalar(true)) + text_of(Scalar(-3)) + text_of(Scalar(0.5)), "true-30.5");
  EXPECT_EQ(text_of(DType::BFloat16), "bfloat16");
}

}  // namespace
}  // namespace tenon
