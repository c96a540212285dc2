#include "cudnn_fusion.h"

#include <cudnn.h>

#include <algorithm>
#include <optional>

#include "tenon/core/cuda/runtime.h"
#include "tenon/core/factories.h"

namespace bench {
namespace {

using namespace tenon;
using ops::cuda::Descriptor;
using ops::cuda::Plan;
using ops::cuda::PlanList;

// Names of the tensors in the graph; those inside the fused kernel count on from kFirstVirtual.
enum Id : std::int64_t { kX = 1, kWeight, kBias, kAdd, kMin, kMax, kScale, kZ, kFirstVirtual };

/// Builds the operations; each reads what the one before wrote.
class Chain {
 public:
  explicit Chain(const Problem& problem)
      : shape_(problem.shape()), dtype_(problem.precision().dtype) {}

  std::vector<Descriptor> operations() {
    Descriptor value = convolution();
    value = pointwise(CUDNN_POINTWISE_ADD, value,
                      external(kBias, {1, shape_.out_channels, 1, 1}, dtype_));
    const Descriptor gate =
        pointwise(CUDNN_POINTWISE_TANH_FWD, pointwise(CUDNN_POINTWISE_SOFTPLUS_FWD, value));
    value = pointwise(CUDNN_POINTWISE_MUL, value, gate);
    value = pointwise(CUDNN_POINTWISE_ADD, value, number(kAdd));
    value = pointwise(CUDNN_POINTWISE_MAX, value, number(kMin));
    value = pointwise(CUDNN_POINTWISE_MIN, value, number(kMax));
    append_pointwise(CUDNN_POINTWISE_MUL, value, number(kScale), external(kZ, shape_.z(), dtype_));
    return operations_;
  }

 private:
  static Descriptor number(Id id) { return external(id, {1, 1, 1, 1}, DType::Float32); }

  static Descriptor external(std::int64_t id, const Shape& shape, DType dtype) {
    return ops::cuda::tensor_descriptor(id, shape, channels_last_strides(shape), dtype);
  }

  /// A float32 tensor of z's shape that exists in registers only.
  Descriptor virtual_result() {
    return ops::cuda::tensor_descriptor(next_virtual_++, shape_.z(),
                                        channels_last_strides(shape_.z()), DType::Float32,
                                        /*is_virtual=*/true);
  }

  Descriptor convolution() {
    const auto both = [](std::int64_t value) { return std::vector<std::int64_t>{value, value}; };
    Descriptor geometry(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    geometry.set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, std::int64_t{2});
    geometry.set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_DATA_FLOAT);
    geometry.set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_CROSS_CORRELATION);
    geometry.set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, both(shape_.padding));
    geometry.set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, both(shape_.padding));
    geometry.set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, both(shape_.stride));
    geometry.set(CUDNN_ATTR_CONVOLUTION_DILATIONS, both(1));
    geometry.finalize();
    const Descriptor y = virtual_result();
    Descriptor operation(CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR);
    operation.set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC, geometry);
    operation.set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, y);
    operation.set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                  external(kWeight, shape_.weight(), dtype_));
    operation.set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, external(kX, shape_.x(), dtype_));
    operation.set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, 1.0F);
    operation.set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA, 0.0F);
    operation.finalize();
    operations_.push_back(operation);
    return y;
  }

  /// mode(a) or mode(a, b); returns the virtual tensor that holds it.
  Descriptor pointwise(cudnnPointwiseMode_t mode, const Descriptor& a,
                       const std::optional<Descriptor>& b = std::nullopt) {
    const Descriptor result = virtual_result();
    append_pointwise(mode, a, b, result);
    return result;
  }

  void append_pointwise(cudnnPointwiseMode_t mode, const Descriptor& a,
                        const std::optional<Descriptor>& b, const Descriptor& result) {
    Descriptor function(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    function.set(CUDNN_ATTR_POINTWISE_MODE, mode);
    function.set(CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_DATA_FLOAT);
    function.finalize();
    Descriptor operation(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    operation.set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, function);
    operation.set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, a);
    if (b) operation.set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, *b);
    operation.set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, result);
    operation.finalize();
    operations_.push_back(operation);
  }

  const BlockShape& shape_;
  DType dtype_;
  std::int64_t next_virtual_ = kFirstVirtual;
  std::vector<Descriptor> operations_;
};

}  // namespace

CudnnFusion::CudnnFusion(const Problem& problem) : problem_(problem) {
  const ops::Epilogue& e = problem.epilogue();
  for (const double value : {e.add, e.min, e.max, e.scale}) {
    numbers_.push_back(full({1}, value, {.device = problem.device()}));
  }
}

std::vector<std::unique_ptr<Plan>> CudnnFusion::plans(std::size_t most) const {
  const tenon::cuda::DeviceGuard guard(problem_.device());
  const bool strict = problem_.precision().name == "float32";
  const PlanList list(problem_.device(), Chain(problem_).operations(),
                      {.allow_tensor_cores_for_float32 = !strict});
  std::vector<std::unique_ptr<Plan>> plans;
  const std::size_t count = most == 0 ? list.size() : std::min(most, list.size());
  for (std::size_t i = 0; i < count; ++i) {
    if (auto plan = list.build(i)) plans.push_back(std::move(plan));
  }
  return plans;
}

void CudnnFusion::run(const Plan& plan, const Tensor& x, const Tensor& weight, const Tensor& bias,
                      const Tensor& z) const {
  const std::int64_t ids[] = {kX, kWeight, kBias, kAdd, kMin, kMax, kScale, kZ};
  void* const data[] = {x.raw_data(),           weight.raw_data(),
                        bias.raw_data(),        numbers_[0].raw_data(),
                        numbers_[1].raw_data(), numbers_[2].raw_data(),
                        numbers_[3].raw_data(), z.raw_data()};
  std::shared_ptr<Storage> workspace;
  if (plan.workspace_bytes() > 0) {
    workspace = Storage::allocate(static_cast<std::size_t>(plan.workspace_bytes()), x.device());
  }
  plan.execute(x.device(), ids, data, workspace == nullptr ? nullptr : workspace->data());
}

}  // namespace bench
