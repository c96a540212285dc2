#include "tenon/ops/cuda/fused/tensor_map.h"

#include <cuda.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <string>

#include "tenon/core/cuda/runtime.h"
#include "tenon/core/error.h"
#include "tenon/core/tensor_body.h"

namespace tenon::ops::cuda {
namespace {

using EncodeTiled = decltype(&cuTensorMapEncodeTiled);

/// The driver's function, found at run time: programs load where there is no driver.
EncodeTiled encode_tiled() {
  static const auto function = [] {
    void* address = nullptr;
    cudaDriverEntryPointQueryResult found;
    TENON_CUDA_CHECK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &address, 12000,
                                                      cudaEnableDefault, &found));
    if (found != cudaDriverEntryPointSuccess) {
      tenon::detail::fail("cuda: the driver has no cuTensorMapEncodeTiled; update it");
    }
    return reinterpret_cast<EncodeTiled>(address);
  }();
  return function;
}

CUtensorMapDataType map_type(DType dtype) {
  switch (dtype) {
    case DType::Float16:
      return CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
    case DType::BFloat16:
      return CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
    default:
      return CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
  }
}

/// Of a tensor at `data` with these sizes and strides (in bytes, but for the innermost
/// dimension's), innermost first, the boxes of this shape; zeros stand for what is outside.
template <std::size_t kDimensions>
TensorMap encode(CUtensorMapDataType type, void* data, const cuuint64_t (&sizes)[kDimensions],
                 const cuuint64_t (&strides)[kDimensions - 1], const cuuint32_t (&box)[kDimensions],
                 CUtensorMapSwizzle swizzle = CU_TENSOR_MAP_SWIZZLE_NONE) {
  cuuint32_t steps[kDimensions];
  std::fill_n(steps, kDimensions, 1);
  CUtensorMap map;
  const CUresult status = encode_tiled()(
      &map, type, kDimensions, data, sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
      swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS) {
    tenon::detail::fail(tenon::detail::concat("cuda: cuTensorMapEncodeTiled failed with status ",
                                              static_cast<int>(status), " for a tensor of ",
                                              sizes[kDimensions - 1], " x ... x ", sizes[0]));
  }
  static_assert(sizeof(TensorMap) == sizeof(CUtensorMap));
  return std::bit_cast<TensorMap>(map);
}

}  // namespace

std::optional<RawWindows> raw_windows(const Tiling& t, int in_16_bytes) {
  constexpr int kMostInABox = 256;
  const auto rest = [&](int columns) {
    return ((columns % in_16_bytes) + in_16_bytes) % in_16_bytes;
  };
  const int skip = rest(t.first_column);
  const int columns = skip + t.window_columns + rest(-(skip + t.window_columns));
  const bool fits =
      t.shape.columns.input % in_16_bytes == 0 && t.tile.columns % in_16_bytes == 0 &&
      std::max({columns, t.window_rows, t.tile.images, t.tile.in_channels}) <= kMostInABox &&
      (t.shape.groups == 1 || t.shape.in_channels % t.tile.in_channels == 0);
  if (!fits) return std::nullopt;
  return RawWindows{.slots = 0, .columns = columns, .skip = skip};
}

TensorMap rows_map(const ChannelRows& rows, const Tiling& t, int chunks) {
  return rows_map(rows, {.columns = t.window_columns,
                         .rows = t.window_rows,
                         .phases = t.sources,
                         .images = t.tile.images,
                         .chunks = chunks});
}

TensorMap rows_map(const ChannelRows& rows, const RowsBox& shape) {
  const auto count = [](std::int64_t value) { return static_cast<cuuint64_t>(value); };
  const auto boxes = [](int value) { return static_cast<cuuint32_t>(value); };
  // A row of 16 bytes is two elements, so that boxes may be 128 columns wide.
  const cuuint64_t sizes[] = {count(2 * rows.columns), count(rows.rows), count(rows.phases),
                              count(rows.images), count(rows.groups * rows.chunks)};
  const cuuint64_t line = count(16 * rows.columns);
  const cuuint64_t strides[] = {line, line * count(rows.rows), count(16 * rows.image_rows()),
                                count(16 * rows.chunk_rows())};
  const cuuint32_t box[] = {boxes(2 * shape.columns), boxes(shape.rows), boxes(shape.phases),
                            boxes(shape.images), boxes(shape.chunks)};
  return encode(CU_TENSOR_MAP_DATA_TYPE_INT64, rows.data, sizes, strides, box);
}

TensorMap window_map(const Tensor& x, const Tiling& t, const RawWindows& windows) {
  const auto size = [&](std::size_t d) { return static_cast<cuuint64_t>(x.shape()[d]); };
  const auto item = static_cast<cuuint64_t>(item_size(x.dtype()));
  const cuuint64_t row = size(3) * item;
  const cuuint64_t sizes[] = {size(3), size(2), size(0), size(1)};
  const cuuint64_t strides[] = {row, size(1) * size(2) * row, size(2) * row};
  const cuuint32_t box[] = {
      static_cast<cuuint32_t>(windows.columns), static_cast<cuuint32_t>(t.window_rows),
      static_cast<cuuint32_t>(t.tile.images), static_cast<cuuint32_t>(t.tile.in_channels)};
  return encode(map_type(x.dtype()), x.raw_data(), sizes, strides, box);
}

bool has_gradient_map(const Tensor& grad_out) {
  constexpr std::uintptr_t kUnit = 16;
  const auto row = static_cast<std::uintptr_t>(grad_out.shape()[3]) * item_size(grad_out.dtype());
  return row % kUnit == 0 && reinterpret_cast<std::uintptr_t>(grad_out.raw_data()) % kUnit == 0;
}

TensorMap lines_map(const Tensor& x, int columns, int channels, int rows) {
  const auto size = [&](std::size_t d) { return static_cast<cuuint64_t>(x.shape()[d]); };
  const auto item = static_cast<cuuint64_t>(item_size(x.dtype()));
  const cuuint64_t row = size(3) * item;
  const cuuint64_t sizes[] = {size(3), size(1), size(2), size(0)};
  const cuuint64_t strides[] = {size(2) * row, row, size(1) * size(2) * row};
  const cuuint32_t box[] = {static_cast<cuuint32_t>(columns), static_cast<cuuint32_t>(channels),
                            static_cast<cuuint32_t>(rows), 1};
  const auto swizzle = [&] {
    switch (static_cast<cuuint64_t>(columns) * item) {
      case 128:
        return CU_TENSOR_MAP_SWIZZLE_128B;
      case 64:
        return CU_TENSOR_MAP_SWIZZLE_64B;
      case 32:
        return CU_TENSOR_MAP_SWIZZLE_32B;
      default:
        return CU_TENSOR_MAP_SWIZZLE_NONE;
    }
  }();
  return encode(map_type(x.dtype()), x.raw_data(), sizes, strides, box, swizzle);
}

TensorMap gradient_map(const Tensor& grad_out, KernelConfig config) {
  const GradientBox box(config, static_cast<int>(item_size(grad_out.dtype())));
  return lines_map(grad_out, box.columns, 8, box.rows);
}

}  // namespace tenon::ops::cuda
