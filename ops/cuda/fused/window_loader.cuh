// The producers' half of x: windows of its planes become rows of 16 bytes of consecutive channels.
#pragma once

#include "tenon/ops/cuda/fused/channel_row.cuh"
#include "tenon/ops/cuda/fused/tensor_core.cuh"
#include "tenon/ops/cuda/fused/tile_place.cuh"

namespace tenon::ops::cuda {

/// Reads windows of x into slots. A thread's share of a stage are vectors of one chunk of the
/// channels; neighbouring lanes have neighbouring chunks, then neighbouring vectors.
template <class Operand, class Config>
class WindowLoader {
  using Element = typename OperandTraits<Operand>::Element;
  static constexpr int kRow = OperandTraits<Operand>::kRow;
  static constexpr int kChunks = Config::value.chunks;
  static constexpr int kVector = Config::value.vector;
  /// From one of a thread's vectors to its next.
  static constexpr int kStep = 32 * kProducerWarps / kChunks;
  /// Vectors of a round, whose offsets are held in registers, and those whose loads are under way
  /// at once.
  static constexpr int kHeld = 4;
  static constexpr int kBatch = kVector == 4 || sizeof(Element) == 2 || Config::value.split ? 2 : 4;

  struct alignas(sizeof(Element) * kVector) Vector {
    Element values[kVector];
  };

 public:
  __device__ WindowLoader(const KernelArguments& arguments, const int* places)
      : arguments_(arguments),
        tiling_(arguments.tiling),
        places_(places),
        plane_(static_cast<int>(tiling_.shape.rows.input * tiling_.shape.columns.input)),
        vectors_(tiling_.window_positions() / kVector) {
    const int thread = static_cast<int>(threadIdx.x) % (32 * kProducerWarps);
    chunk_ = thread % kChunks;
    first_vector_ = thread / kChunks;
  }

  __device__ void begin_tile(const TilePlace& place) {
    row_ = place.row + tiling_.first_row[place.set];
    column_ = place.column + tiling_.first_column;
    images_ = tiling_.shape.images - place.image;  // flat tiles begin in image 0
    const int all_channels = tiling_.shape.groups * tiling_.shape.in_channels;
    image_ = static_cast<const Element*>(arguments_.x) +
             static_cast<std::int64_t>(place.image * all_channels +
                                       place.group * tiling_.shape.in_channels) *
                 plane_;
    image_elements_ = tiling_.tile.images > 1 || Config::value.flat ? all_channels * plane_ : 0;
    locate(first_vector_);
  }

  /// For the next window there is nothing to do yet.
  __device__ void release() {}

  /// This thread's part of stage `stage` into the slot at `shared`.
  __device__ void load(int stage, char* shared) {
    const int first_channel = (stage * kChunks + chunk_) * kRow;
    const int channels = tiling_.shape.in_channels - first_channel;
    const Element* source = image_ + static_cast<std::int64_t>(first_channel) * plane_;
    uint4* rows = reinterpret_cast<uint4*>(shared) + chunk_ * tiling_.chunk_rows();
    const bool whole = arguments_.aligned && __all_sync(~0U, channels >= kRow);
    for (int first = first_vector_; first < vectors_; first += kHeld * kStep) {
      if (vectors_ > kHeld * kStep) locate(first);
      if (whole) {
        load_round<true>(source, channels, rows, first);
      } else {
        load_round<false>(source, channels, rows, first);
      }
    }
  }

 private:
  /// Where a vector of the window begins, relative to the tile's first image; its image is -1 where
  /// there is none.
  struct VectorPlace {
    int image;
    int row;
    int column;
  };
  __device__ VectorPlace place_of(int vector) const {
    if constexpr (Config::value.flat) {
      const int position = column_ + vector * kVector;
      if (vector >= vectors_ || position < 0) return {-1, 0, 0};
      const PositionPlace place = PositionPlace::in_line(tiling_, position);
      return {place.image, place.row, place.column};
    } else {
      if (vector >= vectors_) return {-1, 0, 0};
      const int place = places_[vector];
      return {place >> 20, row_ + (place >> 10 & 1023), column_ + (place & 1023)};
    }
  }

  /// Finds where the vectors `first`, `first` + kStep, ... lie in x, when each is inside of it as a
  /// whole or outside.
  __device__ void locate(int first) {
    const int width = static_cast<int>(tiling_.shape.columns.input);
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const VectorPlace at = place_of(first + i * kStep);
      const bool inside = at.image >= 0 && at.image < images_ && inside_rows(at.row) &&
                          at.column >= 0 && at.column < width;
      offset_[i] = inside ? at.image * image_elements_ + at.row * width + at.column : kOutside;
    }
  }

  /// kWhole: the chunk's channels are all there, and vectors all inside of x or all outside.
  template <bool kWhole>
  __device__ void load_round(const Element* source, int channels, uint4* rows, int first) const {
    constexpr int kTogether = kWhole ? kBatch : 1;
#pragma unroll
    for (int begin = 0; begin < kHeld; begin += kTogether) {
      if (first + begin * kStep >= vectors_) break;
      Vector values[kTogether][kRow];
#pragma unroll
      for (int b = 0; b < kTogether; ++b) {
        if constexpr (kWhole) {
          gather(source, offset_[begin + b], values[b]);
        } else {
          gather_singly(source, first + (begin + b) * kStep, channels, values[b]);
        }
      }
#pragma unroll
      for (int b = 0; b < kTogether; ++b) {
        const int vector = first + (begin + b) * kStep;
        if (vector < vectors_) store(values[b], rows + vector * kVector);
      }
    }
  }

  __device__ void gather(const Element* source, int offset, Vector (&values)[kRow]) const {
    const Element* at = source + offset;
#pragma unroll
    for (int i = 0; i < kRow; ++i) {
      if (offset != kOutside) {
        values[i] = *reinterpret_cast<const Vector*>(at);
      } else {
        values[i] = Vector();
      }
      at += plane_;
    }
  }

  /// Each column by itself.
  __device__ void gather_singly(const Element* source, int vector, int channels,
                                Vector (&values)[kRow]) const {
    const auto [image, row, column] = place_of(vector);
    const int width = static_cast<int>(tiling_.shape.columns.input);
    const bool row_inside = image >= 0 && image < images_ && inside_rows(row);
    const Element* at = source + image * image_elements_ + row * width + column;
#pragma unroll
    for (int i = 0; i < kRow; ++i) {
#pragma unroll
      for (int c = 0; c < kVector; ++c) {
        const bool inside = row_inside && i < channels && column + c >= 0 && column + c < width;
        values[i].values[c] = inside ? at[c] : Element(0.0f);
      }
      at += plane_;
    }
  }

  __device__ bool inside_rows(int row) const {
    return static_cast<unsigned>(row) < static_cast<unsigned>(tiling_.shape.rows.input);
  }

  /// The rows of the vector's columns.
  __device__ void store(const Vector (&values)[kRow], uint4* row) const {
#pragma unroll
    for (int c = 0; c < kVector; ++c) {
      Element column[kRow];
#pragma unroll
      for (int i = 0; i < kRow; ++i) column[i] = values[i].values[c];
      store_channel_row<Operand, Config>(column, row + c);
    }
  }

  static constexpr int kOutside = -(1 << 30);

  const KernelArguments& arguments_;
  const Tiling& tiling_;
  const int* places_;
  int plane_;
  int vectors_;
  int chunk_;
  int first_vector_;
  int row_;
  int column_;
  int images_;
  int image_elements_;  // between the images of a tile
  const Element* image_;
  int offset_[kHeld];
};

}  // namespace tenon::ops::cuda
