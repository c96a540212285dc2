// The tensor handle, the factories, copies and changes in place.
#include "tenon/core/tensor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <sstream>

#include "tenon/core/autograd.h"
#include "tenon/core/half.h"
#include "tenon/tests/support/matchers.h"

namespace tenon {
namespace {

using test::counting;
using test::expect_error;
using test::expect_values;

constexpr DType kAll[] = {DType::Bool,     DType::UInt8,   DType::Int64,  DType::Float16,
                          DType::BFloat16, DType::Float32, DType::Float64};

TEST(Tensor, DescribesItself) {
  const Tensor x = zeros({2, 3, 5}, {.dtype = DType::Float16});
  EXPECT_TRUE(x.defined());
  EXPECT_EQ(x.shape(), (Shape{2, 3, 5}));
  EXPECT_EQ(x.strides(), (Strides{15, 5, 1}));
  EXPECT_EQ(x.size(1), 3);
  EXPECT_EQ(x.size(-1), 5);
  EXPECT_EQ(x.dim(), 3u);
  EXPECT_EQ(x.numel(), 30);
  EXPECT_EQ(x.dtype(), DType::Float16);
  EXPECT_EQ(x.device(), Device::cpu());
  EXPECT_EQ(x.spec(), (TensorSpec{{2, 3, 5}, DType::Float16, Device::cpu()}));
  EXPECT_TRUE(x.is_contiguous());
  EXPECT_FALSE(x.is_traced());
  std::ostringstream text;
  text << x.spec();
  EXPECT_EQ(text.str(), "float16[2, 3, 5]");
}

TEST(Tensor, IsAHandle) {
  const Tensor x = zeros({2});
  const Tensor same = x;
  EXPECT_TRUE(same.is_same(x));
  EXPECT_FALSE(x.detach().is_same(x));
  same.fill_(3);
  expect_values(x, {2}, {3, 3});
}

TEST(Tensor, UndefinedOnesAnswerOnlyDefined) {
  const Tensor nothing;
  EXPECT_FALSE(nothing.defined());
  for (const auto& use : std::vector<std::function<void()>>{
           [&] { nothing.shape(); }, [&] { nothing.dtype(); }, [&] { nothing.numel(); },
           [&] { nothing.raw_data(); }, [&] { nothing.item(); }, [&] { nothing.fill_(1); },
           [&] { nothing.requires_grad(); }, [&] { nothing.grad(); },
           [&] { nothing.to_vector<float>(); }, [&] { zeros({1}).copy_(nothing); },
           [&] { zeros({1}).set_data(nothing); }, [&] { zeros_like(nothing); }}) {
    expect_error(use, {"undefined"});
  }
  expect_error([&] { nothing.reshape({1}); }, {"reshape", "undefined"});
}

TEST(Tensor, ContiguityIgnoresSizesOfOneAndEmptyTensors) {
  EXPECT_TRUE(zeros({3, 1, 5}).transpose(0, 1).is_contiguous());
  EXPECT_TRUE(zeros({3, 5}).slice(0, 1, 2).slice(1, 0, 4).is_contiguous());
  EXPECT_FALSE(zeros({3, 5}).slice(1, 0, 4).is_contiguous());
  EXPECT_FALSE(zeros({3, 5}).transpose(0, 1).is_contiguous());
  EXPECT_TRUE(zeros({3, 0, 5}).transpose(0, 2).is_contiguous());
  EXPECT_FALSE(zeros({1}).expand({4}).is_contiguous());
  EXPECT_TRUE(scalar_tensor(1).is_contiguous());
}

TEST(Tensor, ItemConvertsTheOnlyElement) {
  EXPECT_EQ(full({1, 1}, 2.5).item(), 2.5);
  EXPECT_EQ(full({}, -2.75).item<std::int64_t>(), -2);
  EXPECT_EQ(full({}, 7, {.dtype = DType::Int64}).item<float>(), 7.0f);
  EXPECT_EQ(full({}, 2.5, {.dtype = DType::BFloat16}).item<float>(), 2.5f);
  EXPECT_TRUE(full({}, 0.5).item<bool>());
  EXPECT_FALSE(full({}, 0.0).item<bool>());
  EXPECT_TRUE(full({}, true, {.dtype = DType::Bool}).item<bool>());
  EXPECT_EQ(counting({2, 3}).select(0, 1).select(0, 2).item(), 5);
  expect_error([] { zeros({2, 1}).item(); }, {"item", "one element", "float32[2, 1]"});
  expect_error([] { zeros({0}).item(); }, {"item", "float32[0]"});
}

TEST(Tensor, DataChecksTheTypeAndAppliesTheOffset) {
  const Tensor x = counting({2, 3});
  EXPECT_EQ(*x.slice(0, 1).slice(1, 2).data<double>(), 5.0);
  EXPECT_EQ(x.slice(0, 1).data<double>(), x.data<double>() + 3);
  expect_error([&] { x.data<float>(); }, {"data", "float64", "float32"});
  expect_error([&] { x.data<bfloat16>(); }, {"data", "float64", "bfloat16"});
}

TEST(Tensor, ToVectorReadsRowMajorInAnyType) {
  const Tensor x = counting({2, 3}).transpose(0, 1);
  EXPECT_EQ(x.to_vector<double>(), (std::vector<double>{0, 3, 1, 4, 2, 5}));
  EXPECT_EQ(x.to_vector<std::int64_t>(), (std::vector<std::int64_t>{0, 3, 1, 4, 2, 5}));
  EXPECT_EQ(x.to_vector<bool>(), (std::vector<bool>{false, true, true, true, true, true}));
  EXPECT_EQ(x.to_vector<std::uint8_t>().size(), 6u);
  EXPECT_TRUE(zeros({0, 3}).to_vector<float>().empty());
}

TEST(Tensor, SizeRefusesDimensionsThatAreNotThere) {
  expect_error([] { zeros({2, 3}).size(2); }, {"size", "dimension 2"});
  expect_error([] { zeros({2, 3}).size(-3); }, {"size", "dimension -3"});
  expect_error([] { scalar_tensor(1).size(0); }, {"size", "0-dimensional"});
}

TEST(Device, ParsesAndPrints) {
  EXPECT_EQ(Device::parse("cpu"), Device::cpu());
  EXPECT_EQ(Device::cpu().to_string(), "cpu");
  for (const char* bad : {"", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1x", "CPU"}) {
    expect_error([&] { Device::parse(bad); }, {"Device", std::string("'") + bad + "'"});
  }
}

// ---- factories ----------------------------------------------------------------------------------

TEST(Factories, FillInEveryDtype) {
  for (DType dtype : kAll) {
    expect_values(zeros({2, 1}, {.dtype = dtype}), {2, 1}, {0, 0});
    expect_values(ones({3}, {.dtype = dtype}), {3}, {1, 1, 1});
    expect_values(full({2}, 5, {.dtype = dtype}), {2},
                  dtype == DType::Bool ? std::vector<double>{1, 1} : std::vector<double>{5, 5});
    EXPECT_EQ(empty({2, 3}, {.dtype = dtype}).spec(), (TensorSpec{{2, 3}, dtype, Device::cpu()}));
    EXPECT_EQ(zeros({0, 2}, {.dtype = dtype}).numel(), 0);
  }
  EXPECT_EQ(zeros({2}).dtype(), DType::Float32);
  EXPECT_TRUE(zeros({2}, {.requires_grad = true}).requires_grad());
}

TEST(Factories, Eye) {
  expect_values(eye(3), {3, 3}, {1, 0, 0, 0, 1, 0, 0, 0, 1});
  EXPECT_EQ(eye(0).shape(), (Shape{0, 0}));
  expect_error([] { eye(-1); }, {"[-1, -1]"});
}

TEST(Factories, ArangeStopsBeforeTheEnd) {
  expect_values(arange(0, 5), {5}, {0, 1, 2, 3, 4});
  EXPECT_EQ(arange(0, 5).dtype(), DType::Int64);
  expect_values(arange(2, 9, 3), {3}, {2, 5, 8});
  expect_values(arange(2, 8, 3), {2}, {2, 5});
  expect_values(arange(3, -2, -2), {3}, {3, 1, -1});
  expect_values(arange(0, 1, 0.25, {.dtype = DType::Float64}), {4}, {0, 0.25, 0.5, 0.75});
  expect_values(arange(1, 0, -0.5), {2}, {1, 0.5});
  EXPECT_EQ(arange(0, 3).dtype(), DType::Int64);
  EXPECT_EQ(arange(0, 3, 0.5).dtype(), DType::Float32);
  EXPECT_EQ(arange(4, 4).numel(), 0);
  const std::int64_t big = std::int64_t{1} << 53;
  EXPECT_EQ(arange(big, big + 3).to_vector<std::int64_t>(),
            (std::vector<std::int64_t>{big, big + 1, big + 2}));
}

TEST(Factories, LinspaceIncludesBothEndsExactly) {
  expect_values(linspace(0, 1, 5), {5}, {0, 0.25, 0.5, 0.75, 1});
  const Tensor thirds = linspace(-1.0 / 3, 0.7, 7, {.dtype = DType::Float64});
  EXPECT_EQ(thirds.select(0, 0).item(), -1.0 / 3);
  EXPECT_EQ(thirds.select(0, 6).item(), 0.7);
  expect_values(linspace(2, 5, 1), {1}, {2});
  EXPECT_EQ(linspace(2, 5, 0).numel(), 0);
}

TEST(Factories, LikeAnotherTensor) {
  const Tensor other = zeros({2, 3}, {.dtype = DType::UInt8}).transpose(0, 1);
  for (const Tensor& x :
       {empty_like(other), zeros_like(other), ones_like(other), full_like(other, 4)}) {
    EXPECT_EQ(x.spec(), other.spec());
    EXPECT_EQ(x.strides(), other.strides());
  }
  expect_values(full_like(other, 4), {3, 2}, {4, 4, 4, 4, 4, 4});
}

TEST(Factories, TensorOfValues) {
  expect_values(tensor<float>({1.5f, -2}), {2}, {1.5, -2});
  expect_values(tensor<bool>({true, false}), {2}, {1, 0});
  EXPECT_EQ(tensor<std::uint8_t>({1, 2, 3}).dtype(), DType::UInt8);
  expect_values(tensor(std::vector<std::int64_t>{1, 2, 3, 4}, {2, 2}), {2, 2}, {1, 2, 3, 4});
  EXPECT_EQ(tensor(std::vector<double>{}, {0, 3}).numel(), 0);
  EXPECT_EQ(scalar_tensor(3).dim(), 0u);
  expect_error([] { tensor(std::vector<float>{1, 2, 3}, {2, 2}); }, {"tensor", "3", "[2, 2]"});
}

TEST(Factories, ReportSizesTheyCannotMake) {
  const std::int64_t big = std::int64_t{1} << 61;
  expect_error([] { zeros({2, -3}); }, {"negative size", "[2, -3]"});
  expect_error([&] { zeros({big, 8}); }, {"[2305843009213693952, 8]"});
  expect_error([&] { zeros({big, 2}, {.dtype = DType::Float64}); }, {"2305843009213693952"});
  expect_error([] { randint(0, 5, {-1}); }, {"negative size", "[-1]"});
  expect_error([] { linspace(0, 1, -2); }, {"linspace", "-2"});
  expect_error([] { arange(0, 5, 0); }, {"arange", "steps of 0"});
  expect_error([] { arange(0, 5, -1); }, {"arange", "from 0 to 5", "-1"});
  expect_error([] { arange(0, INFINITY); }, {"arange", "inf"});
  expect_error([] { arange(0, 1, 1e-300); }, {"arange", "1e-300"});
  expect_error([] { arange(INT64_MIN, INT64_MAX, std::int64_t{1} << 60); }, {"arange", "2^63"});
}

TEST(FromBlob, SharesTheMemoryAndCallsTheDeleterOnceAtTheEnd) {
  float values[] = {1, 2, 3, 4, 5, 6};
  int deleted = 0;
  Tensor part;
  {
    const Tensor x = from_blob(values, {2, 3}, DType::Float32, [&](void* data) {
      EXPECT_EQ(data, values);
      ++deleted;
    });
    expect_values(x, {2, 3}, {1, 2, 3, 4, 5, 6});
    x.select(0, 1).fill_(9);
    part = x.slice(1, 1, 2).detach();
  }
  EXPECT_EQ(values[3], 9);
  EXPECT_EQ(deleted, 0) << "a view still shows the memory";
  part = Tensor();
  EXPECT_EQ(deleted, 1);
}

TEST(FromBlob, RejectsWhatCannotBeAMemoryBlock) {
  float value = 0;
  expect_error([&] { from_blob(&value, {-1}, DType::Float32); }, {"from_blob", "[-1]"});
  expect_error([] { from_blob(nullptr, {2}, DType::Float32); }, {"from_blob", "null", "[2]"});
  EXPECT_EQ(from_blob(nullptr, {0}, DType::Float32).numel(), 0);
}

// ---- copies and changes in place ----------------------------------------------------------------

TEST(Copies, AreMadeOnlyWhereSomethingChanges) {
  const Tensor x = counting({2, 3});
  EXPECT_TRUE(x.contiguous().is_same(x));
  EXPECT_TRUE(x.to(DType::Float64).is_same(x));
  EXPECT_TRUE(x.to(Device::cpu()).is_same(x));
  EXPECT_FALSE(x.clone().is_same(x));
  EXPECT_NE(x.clone().raw_data(), x.raw_data());
  const Tensor transposed = x.transpose(0, 1);
  EXPECT_EQ(transposed.clone().strides(), transposed.strides());
  EXPECT_TRUE(transposed.clone(MemoryFormat::Contiguous).is_contiguous());
  expect_values(transposed.contiguous(), {3, 2}, {0, 3, 1, 4, 2, 5});
  expect_values(transposed.to(Device::cpu(), DType::Int64), {3, 2}, {0, 3, 1, 4, 2, 5});
}

TEST(InPlace, CopyBroadcastsAndConverts) {
  const Tensor target = zeros({2, 3}, {.dtype = DType::Int64});
  target.copy_(tensor<float>({1.9f, -2.9f, 3}));
  expect_values(target, {2, 3}, {1, -2, 3, 1, -2, 3});
  target.transpose(0, 1).copy_(tensor<double>({7, 8}));
  expect_values(target, {2, 3}, {7, 7, 7, 8, 8, 8});
  target.copy_(scalar_tensor(4));
  expect_values(target, {2, 3}, {4, 4, 4, 4, 4, 4});
  expect_error([&] { target.copy_(zeros({2})); }, {"copy_", "[2, 3]", "[2]"});
  expect_error([&] { target.copy_(zeros({1, 2, 3})); }, {"copy_", "[1, 2, 3]", "[2, 3]"});
}

TEST(InPlace, FillConvertsTheScalar) {
  for (DType dtype : kAll) {
    const Tensor x = zeros({3, 2}, {.dtype = dtype});
    x.select(1, 0).fill_(2.5);
    const double stored = dtype == DType::Bool ? 1 : is_floating(dtype) ? 2.5 : 2;
    expect_values(x, {3, 2}, {stored, 0, stored, 0, stored, 0});
    x.zero_();
    expect_values(x, {3, 2}, {0, 0, 0, 0, 0, 0});
  }
}

TEST(InPlace, RefusesExpandedTensors) {
  const Tensor expanded = zeros({3, 1}).expand({3, 4});
  expect_error([&] { expanded.fill_(1); }, {"fill_", "dimension 1 of [3, 4]", "expanded"});
  expect_error([&] { expanded.copy_(zeros({4})); }, {"copy_", "expanded"});
  zeros({3, 1}).expand({3, 1}).fill_(1);
}

TEST(InPlace, LargeStridedCopiesAreRightAcrossThreads) {
  const Tensor x = counting({301, 407});
  const Tensor transposed = x.transpose(0, 1).contiguous();
  const double* values = transposed.data<double>();
  for (std::int64_t i = 0; i < 407; ++i) {
    for (std::int64_t j = 0; j < 301; ++j) {
      ASSERT_EQ(values[i * 301 + j], static_cast<double>(j * 407 + i));
    }
  }
}

TEST(SetData, GivesALeafOtherElementsUnderTheSameIdentity) {
  const Tensor parameter = zeros({2}, {.requires_grad = true});
  const Tensor handle = parameter;
  parameter.set_data(counting({3, 2}).transpose(0, 1));
  EXPECT_TRUE(handle.is_same(parameter));
  EXPECT_TRUE(handle.requires_grad());
  EXPECT_EQ(handle.dtype(), DType::Float64);
  expect_values(handle, {2, 3}, {0, 2, 4, 1, 3, 5});
  const Tensor computed = parameter.clone();
  expect_error([&] { computed.set_data(zeros({1})); }, {"set_data", "leaf"});
}

}  // namespace
}  // namespace tenon
