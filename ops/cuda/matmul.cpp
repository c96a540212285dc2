#include "tenon/ops/cuda/matmul.h"

#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string_view>

#include "tenon/core/cuda/runtime.h"
#include "tenon/core/error.h"
#include "tenon/core/kernels.h"
#include "tenon/core/precision.h"
#include "tenon/core/tensor_body.h"

namespace tenon::ops::cuda {
namespace {

/// Scratch that algorithms may use; what NVIDIA recommends for Hopper.
constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;

void check(cublasStatus_t status, std::string_view call) {
  TENON_CHECK(status == CUBLAS_STATUS_SUCCESS, "cublas: ", call,
              " failed: ", cublasLtGetStatusName(status), ", ", cublasLtGetStatusString(status));
}

#define TENON_CUBLAS_CHECK(call) check((call), #call)

/// Calls the right destroy function for what cuBLASLt hands out.
struct Destroy {
  void operator()(cublasLtHandle_t handle) const { cublasLtDestroy(handle); }
  void operator()(cublasLtMatmulDesc_t description) const {
    cublasLtMatmulDescDestroy(description);
  }
  void operator()(cublasLtMatrixLayout_t layout) const { cublasLtMatrixLayoutDestroy(layout); }
  void operator()(cublasLtMatmulPreference_t preference) const {
    cublasLtMatmulPreferenceDestroy(preference);
  }
};

template <class HandleType>
using Owned = std::unique_ptr<std::remove_pointer_t<HandleType>, Destroy>;

/// This thread's handle for `device`.
cublasLtHandle_t handle_for(Device device) {
  thread_local std::map<int, Owned<cublasLtHandle_t>> handles;
  Owned<cublasLtHandle_t>& handle = handles[device.index()];
  if (handle == nullptr) {
    cublasLtHandle_t created = nullptr;
    TENON_CUBLAS_CHECK(cublasLtCreate(&created));
    handle.reset(created);
  }
  return handle.get();
}

cudaDataType_t cuda_type(DType dtype) {
  switch (dtype) {
    case DType::Float32:
      return CUDA_R_32F;
    case DType::Float64:
      return CUDA_R_64F;
    case DType::Float16:
      return CUDA_R_16F;
    case DType::BFloat16:
      return CUDA_R_16BF;
    default:
      tenon::detail::fail(tenon::detail::concat("matmul: needs a floating dtype, got ", dtype));
  }
}

cublasComputeType_t arithmetic(DType dtype) {
  if (dtype == DType::Float64) return CUBLAS_COMPUTE_64F;
  const bool tf32 = dtype == DType::Float32 && float32_precision() == Float32Precision::Tf32;
  return tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
}

/// A batch of matrices as cuBLASLt addresses it: columns `leading` apart, matrices `batch_stride`
/// apart. Row-major memory is the transpose of that.
struct MatrixBatch {
  void* data;
  bool row_major;
  std::int64_t leading;
  std::int64_t batch_stride;
};

/// The one stride that steps through all leading dimensions of `t`, if there is one.
std::optional<std::int64_t> batch_stride_of(const Tensor& t) {
  std::int64_t step = 0;
  std::int64_t count = 1;
  for (std::size_t d = t.dim() - 2; d-- > 0;) {
    if (t.shape()[d] == 1) continue;
    if (count == 1) {
      step = t.strides()[d];
    } else if (t.strides()[d] != step * count) {
      return std::nullopt;
    }
    count *= t.shape()[d];
  }
  return step;
}

/// How to address `t` in place, if cuBLASLt can.
std::optional<MatrixBatch> addressable(const Tensor& t) {
  const std::size_t last = t.dim() - 1;
  const std::int64_t rows = t.shape()[last - 1];
  const std::int64_t columns = t.shape()[last];
  const std::int64_t row_stride = t.strides()[last - 1];
  const std::int64_t column_stride = t.strides()[last];
  const auto batch_stride = batch_stride_of(t);
  if (!batch_stride) return std::nullopt;
  if ((column_stride == 1 || columns == 1) && (row_stride >= columns || rows == 1)) {
    return MatrixBatch{t.raw_data(), true, rows == 1 ? columns : row_stride, *batch_stride};
  }
  if ((row_stride == 1 || rows == 1) && (column_stride >= rows || columns == 1)) {
    return MatrixBatch{t.raw_data(), false, columns == 1 ? rows : column_stride, *batch_stride};
  }
  return std::nullopt;
}

Owned<cublasLtMatrixLayout_t> layout(cudaDataType_t type, std::int64_t rows, std::int64_t columns,
                                     std::int64_t leading, std::int64_t batch,
                                     std::int64_t batch_stride) {
  cublasLtMatrixLayout_t created = nullptr;
  TENON_CUBLAS_CHECK(cublasLtMatrixLayoutCreate(&created, type, static_cast<std::uint64_t>(rows),
                                                static_cast<std::uint64_t>(columns), leading));
  Owned<cublasLtMatrixLayout_t> result(created);
  const auto count = static_cast<std::int32_t>(batch);
  TENON_CUBLAS_CHECK(cublasLtMatrixLayoutSetAttribute(created, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT,
                                                      &count, sizeof count));
  TENON_CUBLAS_CHECK(cublasLtMatrixLayoutSetAttribute(
      created, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &batch_stride, sizeof batch_stride));
  return result;
}

template <class Value>
void set(cublasLtMatmulDesc_t description, cublasLtMatmulDescAttributes_t name,
         const Value& value) {
  TENON_CUBLAS_CHECK(cublasLtMatmulDescSetAttribute(description, name, &value, sizeof value));
}

/// cuBLASLt computes in columns, so this is yᵀ = bᵀ·aᵀ: what is row-major here is its transpose.
Owned<cublasLtMatmulDesc_t> describe(DType dtype, const MatrixBatch& a, const MatrixBatch& b,
                                     const Tensor& bias) {
  const cudaDataType_t scale_type = dtype == DType::Float64 ? CUDA_R_64F : CUDA_R_32F;
  cublasLtMatmulDesc_t created = nullptr;
  TENON_CUBLAS_CHECK(cublasLtMatmulDescCreate(&created, arithmetic(dtype), scale_type));
  Owned<cublasLtMatmulDesc_t> result(created);
  set(created, CUBLASLT_MATMUL_DESC_TRANSA, b.row_major ? CUBLAS_OP_N : CUBLAS_OP_T);
  set(created, CUBLASLT_MATMUL_DESC_TRANSB, a.row_major ? CUBLAS_OP_N : CUBLAS_OP_T);
  if (bias.defined()) {
    set(created, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    set(created, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias.raw_data());
  }
  return result;
}

/// Where operands lie, in cuBLASLt's order: its first matrix is the right one here.
struct Addresses {
  const void* first;
  const void* second;
  const void* result;
  const void* bias;  // may be null
};

/// The largest power of two up to 256, which is what cuBLASLt assumes, that divides `address`.
std::uint32_t alignment_of(const void* address) {
  const auto value = reinterpret_cast<std::uintptr_t>(address) | std::uintptr_t{256};
  return static_cast<std::uint32_t>(value & (~value + 1));
}

void set_alignments(cublasLtMatmulPreference_t preference, const Addresses& addresses) {
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t name, std::uint32_t bytes) {
    TENON_CUBLAS_CHECK(
        cublasLtMatmulPreferenceSetAttribute(preference, name, &bytes, sizeof bytes));
  };
  const std::uint32_t result =
      std::min(alignment_of(addresses.result), alignment_of(addresses.bias));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(addresses.first));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(addresses.second));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, result);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, result);
}

/// How to compute a product, and the scratch that it takes.
struct Algorithm {
  cublasLtMatmulAlgo_t algorithm;
  std::size_t workspace_bytes;
};

/// The first algorithm of the heuristics that needs no atomics and can read what lies at
/// `addresses`: a view need not begin where vector loads can.
Algorithm choose(cublasLtHandle_t handle, cublasLtMatmulDesc_t description,
                 cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t y,
                 const Addresses& addresses) {
  cublasLtMatmulPreference_t created = nullptr;
  TENON_CUBLAS_CHECK(cublasLtMatmulPreferenceCreate(&created));
  const Owned<cublasLtMatmulPreference_t> preference(created);
  TENON_CUBLAS_CHECK(cublasLtMatmulPreferenceSetAttribute(
      created, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &kWorkspaceBytes, sizeof kWorkspaceBytes));
  const std::uint32_t reductions =
      CUBLASLT_REDUCTION_SCHEME_MASK & ~std::uint32_t{CUBLASLT_REDUCTION_SCHEME_INPLACE};
  TENON_CUBLAS_CHECK(cublasLtMatmulPreferenceSetAttribute(
      created, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions, sizeof reductions));
  set_alignments(created, addresses);
  cublasLtMatmulHeuristicResult_t found{};
  int count = 0;
  TENON_CUBLAS_CHECK(
      cublasLtMatmulAlgoGetHeuristic(handle, description, a, b, y, y, created, 1, &found, &count));
  TENON_CHECK(count > 0, "cublas: no algorithm for this matrix product");
  return {found.algo, found.workspaceSize};
}

/// `batch` products of [m, k] by [k, n].
struct Sizes {
  std::int64_t m, n, k, batch;

  auto operator<=>(const Sizes&) const = default;
};

/// All that the heuristics' answer depends on; of pairs, the first is the left matrix's.
struct ProductKey {
  int device;
  DType dtype;
  cublasComputeType_t arithmetic;
  bool bias;
  Sizes sizes;
  std::array<bool, 2> row_major;
  std::array<std::int64_t, 2> leading, batch_stride;
  std::array<std::uint32_t, 4> alignments;

  auto operator<=>(const ProductKey&) const = default;
};

ProductKey key_of(const MatrixBatch& a, const MatrixBatch& b, const Tensor& y, const Sizes& sizes,
                  const Addresses& addresses) {
  return {y.device().index(),
          y.dtype(),
          arithmetic(y.dtype()),
          addresses.bias != nullptr,
          sizes,
          {a.row_major, b.row_major},
          {a.leading, b.leading},
          {a.batch_stride, b.batch_stride},
          {alignment_of(addresses.first), alignment_of(addresses.second),
           alignment_of(addresses.result), alignment_of(addresses.bias)}};
}

/// What `choose` gave for `key` on this thread before, or gives now: asking the heuristics takes
/// longer than sending off a small product.
template <class Choose>
const Algorithm& remembered(const ProductKey& key, const Choose& choose) {
  thread_local std::map<ProductKey, Algorithm> known;
  const auto found = known.find(key);
  return found != known.end() ? found->second : known.emplace(key, choose()).first->second;
}

void multiply(const MatrixBatch& a, const MatrixBatch& b, const Tensor& bias, const Tensor& y,
              std::int64_t k) {
  const Device device = y.device();
  const std::size_t last = y.dim() - 1;
  const std::int64_t m = y.shape()[last - 1];
  const std::int64_t n = y.shape()[last];
  const std::int64_t batch = y.numel() / (m * n);
  const cudaDataType_t type = cuda_type(y.dtype());
  const auto description = describe(y.dtype(), a, b, bias);
  const auto layout_b = b.row_major ? layout(type, n, k, b.leading, batch, b.batch_stride)
                                    : layout(type, k, n, b.leading, batch, b.batch_stride);
  const auto layout_a = a.row_major ? layout(type, k, m, a.leading, batch, a.batch_stride)
                                    : layout(type, m, k, a.leading, batch, a.batch_stride);
  const auto layout_y = layout(type, n, m, n, batch, m * n);
  const cublasLtHandle_t handle = handle_for(device);
  const Addresses addresses{b.data, a.data, y.raw_data(),
                            bias.defined() ? bias.raw_data() : nullptr};
  const Algorithm& chosen = remembered(key_of(a, b, y, {m, n, k, batch}, addresses), [&] {
    return choose(handle, description.get(), layout_b.get(), layout_a.get(), layout_y.get(),
                  addresses);
  });
  std::shared_ptr<Storage> workspace;
  if (chosen.workspace_bytes > 0) workspace = Storage::allocate(chosen.workspace_bytes, device);
  const double one64 = 1;
  const double zero64 = 0;
  const float one32 = 1;
  const float zero32 = 0;
  const bool wide = y.dtype() == DType::Float64;
  TENON_CUBLAS_CHECK(cublasLtMatmul(
      handle, description.get(), wide ? static_cast<const void*>(&one64) : &one32, b.data,
      layout_b.get(), a.data, layout_a.get(), wide ? static_cast<const void*>(&zero64) : &zero32,
      y.raw_data(), layout_y.get(), y.raw_data(), layout_y.get(), &chosen.algorithm,
      workspace == nullptr ? nullptr : workspace->data(), chosen.workspace_bytes,
      tenon::cuda::current_stream(device)));
}

/// `t` where it lies when cuBLASLt can address it, otherwise a copy, kept alive in `copy`.
MatrixBatch address(const Tensor& t, Tensor& copy) {
  if (const auto found = addressable(t)) return *found;
  copy = tenon::detail::make_empty(t.spec());
  kernels::copy(t, copy);
  return *addressable(copy);
}

}  // namespace

void matmul(const Tensor& a, const Tensor& b, const Tensor& bias, const Tensor& y) {
  if (y.numel() == 0) return;
  const std::int64_t k = a.shape().back();
  if (k == 0) {
    kernels::fill(y, 0);
    if (bias.defined()) kernels::copy(bias, y);
    return;
  }
  const tenon::cuda::DeviceGuard guard(y.device());
  Tensor copy_of_a;
  Tensor copy_of_b;
  const MatrixBatch matrix_a = address(a, copy_of_a);
  const MatrixBatch matrix_b = address(b, copy_of_b);
  multiply(matrix_a, matrix_b, bias, y, k);
}

}  // namespace tenon::ops::cuda
