// Between the two memory orders of images. To the machine a batch of images [N, C, H, W] is a
// matrix of all its pixels by channels in channels-last memory, and one matrix of channels by
// pixels for each image in contiguous ("planar") memory. A block takes a tile of 128 bytes' worth
// of channels by some pixels, which may belong to several images, through shared memory; on both
// sides threads access 16 bytes where the sizes allow it.
#pragma once

#include "tenon/core/cuda/elementwise.cuh"
#include "tenon/core/cuda/launch.cuh"
#include "tenon/core/cuda/runtime.h"
#include "tenon/core/cuda/types.cuh"
#include "tenon/core/tensor.h"

namespace tenon::ops::cuda {

/// True when `data` can be accessed 16 bytes at a time.
inline bool is_aligned(const void* data) {
  return reinterpret_cast<std::uintptr_t>(data) % 16 == 0;
}

/// Writes a pack to global memory, by one instruction where it has 16 bytes: left to itself the
/// compiler stores the elements of a pack that was in registers one by one.
template <class Pack>
__device__ void store_global(void* at, const Pack& value) {
  if constexpr (sizeof(Pack) == sizeof(uint4)) {
    const auto bits = __builtin_bit_cast(uint4, value);
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(at)),
                 "r"(bits.x), "r"(bits.y), "r"(bits.z), "r"(bits.w)
                 : "memory");
  } else {
    *static_cast<Pack*>(at) = value;
  }
}

/// How a tile of element type `T` is laid out. A unit is what shared memory holds in one place: an
/// element, or two neighbouring pixels of one channel where an element is half a bank wide.
template <class T>
struct PassTiling {
  static constexpr int kPack = static_cast<int>(16 / sizeof(T));  // elements of a wide access
  static constexpr int kUnit = sizeof(T) == 2 ? 2 : 1;            // elements of a unit
  static constexpr int kUnits = 64;                               // of one channel of a tile
  static constexpr int kPixels = kUnits * kUnit;
  static constexpr int kPacks = 8;  // of channels, a line of 128 bytes
  static constexpr int kChannels = kPacks * kPack;
  static constexpr int kThreads = 128 * kUnit;

  using Wide = tenon::cuda::Pack<T, kPack>;
  using Unit = tenon::cuda::Pack<T, kUnit>;
};

/// The batch, and which of its sides can be accessed 16 bytes at a time.
struct ImageGrid {
  std::int64_t pixels;  // of all images
  std::int64_t plane;   // pixels of one image
  std::int64_t channels;
  bool wide_channels;  // in channels-last memory
  bool wide_planes;    // in planar memory

  /// `last` and `planar` lie in the memory order of their names, whatever their strides say; both
  /// are [N, C, H, W], and so is nothing else.
  ImageGrid(const Tensor& last, const Tensor& planar)
      : plane(planar.shape()[2] * planar.shape()[3]), channels(planar.shape()[1]) {
    pixels = planar.shape()[0] * plane;
    const auto pack = static_cast<std::int64_t>(16 / item_size(planar.dtype()));
    wide_channels = channels % pack == 0 && is_aligned(last.raw_data());
    wide_planes = plane % pack == 0 && is_aligned(planar.raw_data());
  }

  template <class T>
  __host__ __device__ std::int64_t channel_tiles() const {
    return (channels + PassTiling<T>::kChannels - 1) / PassTiling<T>::kChannels;
  }
  template <class T>
  std::int64_t pixel_tiles() const {
    return (pixels + PassTiling<T>::kPixels - 1) / PassTiling<T>::kPixels;
  }
  template <class T>
  unsigned blocks() const {
    return static_cast<unsigned>(channel_tiles<T>() * pixel_tiles<T>());
  }
};

/// The tile of this block. Neighbouring blocks share pixels, so that together they read whole rows
/// of channels-last memory.
template <class T>
struct ImageTile {
  using Layout = PassTiling<T>;
  using Units = typename Layout::Unit[Layout::kChannels][Layout::kUnits];

  std::int64_t pixel_tile, first_pixel, first_channel;

  __device__ explicit ImageTile(const ImageGrid& grid) {
    const auto tiles = static_cast<unsigned>(grid.channel_tiles<T>());
    pixel_tile = blockIdx.x / tiles;
    first_pixel = pixel_tile * Layout::kPixels;
    first_channel = std::int64_t{blockIdx.x % tiles} * Layout::kChannels;
  }
};

/// Where unit `unit` of a channel of pack `pack` lies in shared memory: four neighbours stay
/// neighbours, and the eight packs of four such are spread over all banks. So neither threads that
/// hold packs of channels nor threads that hold packs of pixels collide.
__device__ inline int swizzled(int unit, int pack) { return unit ^ (pack << 2); }

/// This thread's share of the channels-last side: one pack of channels, and every kStep-th unit.
template <class T>
struct ChannelShare {
  using Layout = PassTiling<T>;
  static constexpr int kStep = Layout::kThreads / Layout::kPacks;
  static constexpr int kUnitRounds = Layout::kUnits / kStep;

  int pack, first_unit;
  std::int64_t channel;  // the pack's first
  int count;             // of its channels that exist

  __device__ ChannelShare(const ImageGrid& grid, const ImageTile<T>& tile)
      : pack(static_cast<int>(threadIdx.x) % Layout::kPacks),
        first_unit(static_cast<int>(threadIdx.x) / Layout::kPacks),
        channel(tile.first_channel + pack * Layout::kPack) {
    const std::int64_t left = grid.channels - channel;
    count = left < 0 ? 0 : left < Layout::kPack ? static_cast<int>(left) : Layout::kPack;
  }

  /// The pixel that is element `element` of the unit of round `round`.
  __device__ std::int64_t pixel(const ImageTile<T>& tile, int round, int element) const {
    return tile.first_pixel + (first_unit + round * kStep) * Layout::kUnit + element;
  }
  /// Where channel `i` of the pack has that unit in `units`.
  template <class Units>
  __device__ auto& unit(Units& units, int round, int i) const {
    return units[pack * Layout::kPack + i][swizzled(first_unit + round * kStep, pack)];
  }

  /// The pack at `at`, of which `count` elements exist; zeros for the others.
  __device__ typename Layout::Wide load(const T* at, bool wide) const {
    if (wide && count > 0) return *reinterpret_cast<const typename Layout::Wide*>(at);
    typename Layout::Wide result;
#pragma unroll
    for (int i = 0; i < Layout::kPack; ++i) {
      result.values[i] = i < count ? at[i] : tenon::cuda::convert<T>(0.0f);
    }
    return result;
  }
  __device__ void store(T* at, const typename Layout::Wide& value, bool wide) const {
    if (wide && count > 0) {
      store_global(at, value);
      return;
    }
#pragma unroll
    for (int i = 0; i < Layout::kPack; ++i) {
      if (i < count) at[i] = value.values[i];
    }
  }
};

/// The bias of the channels of `share`; zeros where there is none.
template <class T>
struct Shifts {
  tenon::cuda::compute_type<T> values[PassTiling<T>::kPack];

  __device__ Shifts(const T* bias, const ChannelShare<T>& share, bool wide) {
    typename PassTiling<T>::Wide loaded{};
    if (bias != nullptr) loaded = share.load(bias + share.channel, wide);
#pragma unroll
    for (int i = 0; i < PassTiling<T>::kPack; ++i) {
      values[i] = tenon::cuda::convert<tenon::cuda::compute_type<T>>(loaded.values[i]);
    }
  }
};

/// Both elements of a unit of a 16-bit type are rounded by one instruction.
template <class T>
__device__ typename PassTiling<T>::Unit rounded(
    const tenon::cuda::compute_type<T> (&values)[PassTiling<T>::kUnit]) {
  typename PassTiling<T>::Unit unit;
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    const __nv_bfloat162 both = __floats2bfloat162_rn(values[0], values[1]);
    unit.values[0] = both.x;
    unit.values[1] = both.y;
  } else if constexpr (std::is_same_v<T, __half>) {
    const __half2 both = __floats2half2_rn(values[0], values[1]);
    unit.values[0] = both.x;
    unit.values[1] = both.y;
  } else {
    unit.values[0] = values[0];
  }
  return unit;
}

/// This thread's share of the planar side: packs of kWidth neighbouring pixels, of every kStep-th
/// channel.
template <class T, int kWidth>
struct PlaneShare {
  using Layout = PassTiling<T>;
  using Pack = tenon::cuda::Pack<T, kWidth>;
  static constexpr int kColumns = Layout::kPixels / kWidth;
  static constexpr int kStep = Layout::kThreads / kColumns;
  static constexpr int kRounds = Layout::kChannels / kStep;

  int first_pixel, first_channel;  // within the tile
  int channels;                    // of the tile; none when the pixels do not exist
  std::int64_t plane;
  std::int64_t first_offset;  // in memory

  __device__ PlaneShare(const ImageGrid& grid, const ImageTile<T>& tile)
      : first_pixel(static_cast<int>(threadIdx.x) % kColumns * kWidth),
        first_channel(static_cast<int>(threadIdx.x) / kColumns),
        plane(grid.plane) {
    const std::int64_t pixel = tile.first_pixel + first_pixel;
    const std::int64_t left = pixel < grid.pixels ? grid.channels - tile.first_channel : 0;
    channels = left < Layout::kChannels ? static_cast<int>(left) : Layout::kChannels;
    const std::int64_t image = pixel / plane;
    first_offset =
        pixel + (image * (grid.channels - 1) + tile.first_channel + first_channel) * plane;
  }

  __device__ bool has(int round) const { return first_channel + round * kStep < channels; }
  __device__ std::int64_t offset(int round) const { return first_offset + round * kStep * plane; }
  template <class Units>
  __device__ Pack& pack(Units& units, int round) const {
    const int channel = first_channel + round * kStep;
    const int unit = swizzled(first_pixel / Layout::kUnit, channel / Layout::kPack);
    return reinterpret_cast<Pack&>(units[channel][unit].values[first_pixel % Layout::kUnit]);
  }
};

/// Loads that a thread sends off before it waits for the first.
inline constexpr int kInFlight = 8;

/// Reads the tile from planar memory into shared memory, kWidth pixels an access.
template <class T, int kWidth>
__device__ void load_planes_by(const T* source, const ImageGrid& grid, const ImageTile<T>& tile,
                               typename ImageTile<T>::Units& units) {
  using Share = PlaneShare<T, kWidth>;
  constexpr int kBatch = Share::kRounds < kInFlight ? Share::kRounds : kInFlight;
  const Share share(grid, tile);
#pragma unroll
  for (int first = 0; first < Share::kRounds; first += kBatch) {
    typename Share::Pack loaded[kBatch] = {};
#pragma unroll
    for (int r = 0; r < kBatch; ++r) {
      if (!share.has(first + r)) continue;
      loaded[r] = *reinterpret_cast<const typename Share::Pack*>(source + share.offset(first + r));
    }
#pragma unroll
    for (int r = 0; r < kBatch; ++r) share.pack(units, first + r) = loaded[r];
  }
}

template <class T>
__device__ void load_planes(const T* source, const ImageGrid& grid, const ImageTile<T>& tile,
                            typename ImageTile<T>::Units& units) {
  if (grid.wide_planes) {
    load_planes_by<T, PassTiling<T>::kPack>(source, grid, tile, units);
  } else {
    load_planes_by<T, 1>(source, grid, tile, units);
  }
}

/// Writes the tile from shared memory to planar memory, kWidth pixels an access.
template <class T, int kWidth>
__device__ void store_planes_by(typename ImageTile<T>::Units& units, const ImageGrid& grid,
                                const ImageTile<T>& tile, T* target) {
  using Share = PlaneShare<T, kWidth>;
  constexpr int kBatch = Share::kRounds < kInFlight ? Share::kRounds : kInFlight;
  const Share share(grid, tile);
#pragma unroll
  for (int first = 0; first < Share::kRounds; first += kBatch) {
    typename Share::Pack values[kBatch];
#pragma unroll
    for (int r = 0; r < kBatch; ++r) values[r] = share.pack(units, first + r);
#pragma unroll
    for (int r = 0; r < kBatch; ++r) {
      if (!share.has(first + r)) continue;
      store_global(target + share.offset(first + r), values[r]);
    }
  }
}

template <class T>
__device__ void store_planes(typename ImageTile<T>::Units& units, const ImageGrid& grid,
                             const ImageTile<T>& tile, T* target) {
  if (grid.wide_planes) {
    store_planes_by<T, PassTiling<T>::kPack>(units, grid, tile, target);
  } else {
    store_planes_by<T, 1>(units, grid, tile, target);
  }
}

/// target = function(source), source in channels-last and target in planar memory.
/// `function.of(share, wide)` gives what maps a unit of channel `i` of this thread's pack:
/// mapped(unit, i).
template <class T, class Function>
__global__ void __launch_bounds__(PassTiling<T>::kThreads)
    to_planes_kernel(const tenon::cuda::PreviousKernel previous, const T* source, T* target,
                     ImageGrid grid, Function function) {
  using Layout = PassTiling<T>;
  using Share = ChannelShare<T>;
  __shared__ alignas(16) typename ImageTile<T>::Units units;
  const ImageTile<T> tile(grid);
  const Share share(grid, tile);
  typename Layout::Wide loaded[Share::kUnitRounds][Layout::kUnit] = {};
  previous.wait();
#pragma unroll
  for (int round = 0; round < Share::kUnitRounds; ++round) {
#pragma unroll
    for (int e = 0; e < Layout::kUnit; ++e) {
      const std::int64_t pixel = share.pixel(tile, round, e);
      if (pixel >= grid.pixels) continue;
      loaded[round][e] =
          share.load(source + pixel * grid.channels + share.channel, grid.wide_channels);
    }
  }
  const auto mapped = function.of(share, grid.wide_channels);
#pragma unroll
  for (int round = 0; round < Share::kUnitRounds; ++round) {
#pragma unroll
    for (int i = 0; i < Layout::kPack; ++i) {
      typename Layout::Unit unit;
#pragma unroll
      for (int e = 0; e < Layout::kUnit; ++e) unit.values[e] = loaded[round][e].values[i];
      share.unit(units, round, i) = mapped(unit, i);
    }
  }
  __syncthreads();
  store_planes(units, grid, tile, target);
}

template <class T, class Function>
void launch_to_planes(const Tensor& source, const Tensor& target, const ImageGrid& grid,
                      const Function& function) {
  tenon::cuda::launch<to_planes_kernel<T, Function>>(
      {grid.blocks<T>(), PassTiling<T>::kThreads}, target.device(),
      static_cast<const T*>(source.raw_data()), static_cast<T*>(target.raw_data()), grid, function);
}

}  // namespace tenon::ops::cuda
