// What a thread of Work::SumGradient works on: where its positions lie in z and in dy, and the
// gradient of z as it comes from memory.
#pragma once

#include "tenon/core/cuda/types.cuh"
#include "tenon/ops/cuda/fused/tensor_core.cuh"
#include "tenon/ops/cuda/fused/tile_place.cuh"

namespace tenon::ops::cuda {

/// Neighbouring columns of the gradient of z as they come from memory, two 16-bit numbers in a word
/// where their count is even.
template <class Element, int kCount>
class GradientRun {
  static constexpr bool kPacked = sizeof(Element) * kCount % 4 == 0;
  static constexpr int kOfWord = kPacked ? 4 / static_cast<int>(sizeof(Element)) : 1;
  static constexpr int kWords = kCount / kOfWord;
  using Bits =
      std::conditional_t<kWords == 4, uint4, std::conditional_t<kWords == 2, uint2, unsigned>>;

 public:
  /// Whether a run is what an asynchronous copy can be of.
  static constexpr int kBytes = static_cast<int>(sizeof(Element)) * kCount;
  static constexpr bool kCopies = kBytes == 4 || kBytes == 8 || kBytes == 16;

  /// From shared memory, at an address that the run's size divides. (By instructions of its own:
  /// the compiler would add up the parts of each address anew.)
  __device__ void load_shared(std::uint32_t at) {
    if constexpr (kWords == 4) {
      asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                   : "=r"(words_[0]), "=r"(words_[1]), "=r"(words_[2]), "=r"(words_[3])
                   : "r"(at));
    } else if constexpr (kPacked && kWords == 2) {
      asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(words_[0]), "=r"(words_[1]) : "r"(at));
    } else if constexpr (kPacked) {
      static_assert(kWords == 1);
      asm volatile("ld.shared.u32 %0, [%1];" : "=r"(words_[0]) : "r"(at));
    } else {
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        asm volatile("ld.shared.u16 %0, [%1];" : "=r"(words_[i]) : "r"(at + 2 * i));
      }
    }
  }

  /// kWhole: all columns are there, at an address that the run's size divides; else `inside`.
  template <bool kWhole>
  __device__ void load(const Element* at, int inside) {
    if constexpr (kWhole && kPacked && (kWords == 1 || kWords == 2 || kWords == 4)) {
      const Bits bits = __ldcs(reinterpret_cast<const Bits*>(at));
      memcpy(words_, &bits, sizeof(bits));
    } else {
      clear();
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        if (kWhole || i < inside) words_[i / kOfWord] |= bits_of(at[i]) << (i % kOfWord * 16);
      }
    }
  }
  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < kWords; ++i) words_[i] = 0;
  }
  __device__ float operator[](int i) const {
    if constexpr (std::is_same_v<Element, float>) {
      return __uint_as_float(words_[i]);
    } else {
      return number_of<Element>(words_[i / kOfWord], i % kOfWord == 1);
    }
  }

 private:
  __device__ static std::uint32_t bits_of(Element element) {
    if constexpr (std::is_same_v<Element, float>) {
      return __float_as_uint(element);
    } else {
      std::uint16_t bits;
      memcpy(&bits, &element, sizeof(bits));
      return bits;
    }
  }

  std::uint32_t words_[kWords];
};

/// Whether a tile lies inside of z as a whole, and its columns begin where runs can be read at
/// once.
template <class Config>
__device__ bool is_whole(const Tiling& t, const TilePlace& place) {
  constexpr KernelConfig kConfig = Config::value;
  const int rows_end = (place.row + t.tile.rows - 1) * static_cast<int>(t.shape.rows.stride) +
                       (place.set + 1) * kConfig.row_phases;
  return rows_end <= t.shape.rows.output &&
         (place.column + t.tile.columns) * kConfig.column_phases <= t.shape.columns.output &&
         place.image + t.tile.images <= t.shape.images &&
         place.channel + kConfig.channels <= t.shape.out_channels;
}

/// Where a thread's positions lie: positions lane/4 and lane/4 + 8 of the warp's 16 in each block
/// of 64, and of channels 2(lane%4) and the next.
template <class Operand, class Config>
struct GradientPlaces {
  static constexpr KernelConfig kConfig = Config::value;
  static constexpr int kRow = OperandTraits<Operand>::kRow;

  int channel;                              ///< of the group's, the first
  int row[kConfig.blocks][2];               ///< of z
  int column[kConfig.blocks][2];            ///< of z
  int image[kConfig.blocks][2];             ///< of the slice
  bool exists[kConfig.blocks][2];           ///< among the rows q
  std::uint32_t offset[kConfig.blocks][2];  ///< in dy, bytes from the tile's first row

  __device__ GradientPlaces(const KernelArguments& arguments, const TilePlace& place, int group,
                            int thread)
      : channel(place.channel + thread % 4 * 2) {
    const Tiling& t = arguments.tiling;
    const ChannelRows& rows = arguments.gradient.grad_y;
    // Rows of one chunk of an image lie within 4 GB (backward.cpp).
    const auto image_rows = static_cast<std::uint32_t>(rows.image_rows());
    // Lanes with neighbouring channels write neighbouring parts of rows.
    const int first = thread % 4 * 2;
    const std::uint32_t of_channel =
        16 * (first / kRow * static_cast<std::uint32_t>(rows.chunk_rows())) +
        first % kRow * (16 / kRow);
#pragma unroll
    for (int block = 0; block < kConfig.blocks; ++block) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const PositionPlace position(t, 64 * (group * kConfig.blocks + block) +
                                            thread / 32 % 4 * 16 + half * 8 + thread % 32 / 4);
        const int q_row = place.row + position.row;
        const int q_column = place.column + position.column;
        image[block][half] = place.image + position.image;
        exists[block][half] =
            image[block][half] < rows.images && q_row < rows.rows && q_column < rows.columns;
        row[block][half] =
            q_row * static_cast<int>(t.shape.rows.stride) + place.set * kConfig.row_phases;
        column[block][half] = q_column * kConfig.column_phases;
        offset[block][half] =
            of_channel +
            16 * (position.image * image_rows +
                  static_cast<std::uint32_t>(position.row * rows.columns + position.column));
      }
    }
  }

  /// Columns of z from here to the end, 0 for none.
  __device__ int inside(const Tiling& t, int block, int half) const {
    const int width = static_cast<int>(t.shape.columns.output);
    return exists[block][half] ? width - column[block][half] : 0;
  }

  /// The tile's first row in dy, of the first phase of its set and the first of its channels.
  __device__ static char* first_row(const KernelArguments& arguments, const TilePlace& place) {
    const ChannelRows& rows = arguments.gradient.grad_y;
    const std::int64_t chunk = place.group * rows.chunks + place.channel / kRow;
    const std::int64_t plane = static_cast<std::int64_t>(rows.rows) * rows.columns;
    return static_cast<char*>(rows.data) +
           16 * (chunk * rows.chunk_rows() + place.image * rows.image_rows() +
                 place.set * kConfig.phases() * plane +
                 static_cast<std::int64_t>(place.row) * rows.columns + place.column);
  }
};

/// Where a thread that reads the gradient of z for itself finds that of its positions.
template <class Operand, class Config>
struct GradientSources {
  using Element = typename OperandTraits<Operand>::Element;
  static constexpr KernelConfig kConfig = Config::value;

  const Element* from[kConfig.blocks][2];

  __device__ GradientSources(const KernelArguments& arguments, const TilePlace& place,
                             const GradientPlaces<Operand, Config>& places) {
    const TransposedShape& shape = arguments.tiling.shape;
    const int width = static_cast<int>(shape.columns.output);
    const std::int64_t plane = shape.rows.output * width;
#pragma unroll
    for (int block = 0; block < kConfig.blocks; ++block) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const std::int64_t group =
            static_cast<std::int64_t>(places.image[block][half]) * shape.groups + place.group;
        from[block][half] = static_cast<const Element*>(arguments.gradient.grad_out) +
                            (group * shape.out_channels + places.channel) * plane +
                            places.row[block][half] * width + places.column[block][half];
      }
    }
  }
};

}  // namespace tenon::ops::cuda
