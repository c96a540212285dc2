// The inner loops that are compiled for several instruction sets, and the choice among them.
//
// `kernels_of` in kernel_source.h is one source, compiled once for each instruction set; a table of
// functions is all that leaves it. Which table is used is decided once, by what the processor can
// do or by TENON_CPU_ISA. Nothing here allocates, and no result depends on an address, on how many
// vectors are computed together, or on an element's place in a block. A sum of one channel alone is
// added up in another order than beside others.
#pragma once

#include <cstdint>
#include <limits>
#include <string_view>

namespace tenon::ops::cpu::simd {

/// The most vectors of positions that a product takes at once, whatever the instruction set.
inline constexpr int kMostVectors = 3;

/// sums[c, v·lanes + lane] = start[c] + Σ_k weights[k, c] · vectors[v][offsets[k] + lane]
struct Product {
  const float* vectors[kMostVectors];  ///< where each vector of positions begins
  int vector_count;                    ///< 1 … Kernels::vectors
  int channels;                        ///< 1 … Kernels::channels
  std::int64_t depth;
  const std::int32_t* offsets;  ///< [depth], in elements
  const float* weights;         ///< [depth, channels]
  const float* start;           ///< [channels]; null: what `sums` holds
  float* sums;
  std::int64_t sums_stride;  ///< from channel to channel
};

/// sums[i·sums_row + v·lanes + lane] =
///     Σ_{k < depth} a[i·a_row + k·a_depth] · b[k·b_depth + v·b_vector + lane]
struct MatrixProduct {
  const float* a;
  std::int64_t a_row, a_depth;  ///< from row to row, and from term to term
  int rows;                     ///< 1 … Kernels::channels
  const float* b;
  std::int64_t b_depth, b_vector;
  int vectors;  ///< 1 … Kernels::vectors
  std::int64_t depth;
  bool adds;           ///< to what `sums` holds
  const float* ahead;  ///< fetched, from `ahead` to `ahead + depth·ahead_step`, for a later product
  std::int64_t ahead_step;
  float* sums;
  std::int64_t sums_row;
};

/// The most rows that `add_rows` adds.
inline constexpr int kMostRows = 4;

/// target[n·target_step + v·target_vector + lane] =
///     Σ_{r < count} weights[r] · rows[r][n·row_step + v·lanes + lane], for n < repeats
struct WeightedRows {
  const float* rows[kMostRows] = {};
  float weights[kMostRows] = {};
  int count = 0;           ///< 1 … kMostRows
  std::int64_t width = 0;  ///< of a row: a whole number of vectors
  std::int64_t repeats = 1, row_step = 0;
  float* target = nullptr;
  std::int64_t target_step = 0, target_vector = 0;
  bool adds = false;  ///< to what `target` holds
};

// Minimal filtering (winograd/form.h, which has the matrices), of tiles of 2 or 4 outputs along an
// axis. The points of tiles of 4 are those two, their negatives and infinity.
inline constexpr float kFarPoint = 1.25f;
inline constexpr float kNearPoint = 0.375f;

/// Of rows of elements R_r, what minimal filtering makes of them along both axes. First, along the
/// rows, where `count` is
///   1: R0;  2: R0 + w0·R1;  3: R0 + w0·R1 + w1·R2;
///   4: R0 + w0·R1 ± w1·(R2 + w0·R3), two members
/// with w = weights. Then of the elements d_j[n, i] = row[n·row_step + j·element_step + i] of that,
/// factor f of member m, at
///   target[m·target_member + f·target_factor + n·target_step + i / lanes·target_vector + i %
///   lanes]
/// for n < repeats and i < width, a whole number of vectors.
struct FactorRows {
  const float* rows[kMostRows] = {};
  int count = 1;
  float weights[2] = {};
  std::int64_t element_step, width, repeats, row_step;
  float* target;
  std::int64_t target_member, target_factor, target_step, target_vector;
};

/// Products m[e, f, n, i] = products[e·row_factor + f·column_factor + n·width + i] of factor e
/// along the rows and f along the columns, and the outputs of their tiles: those at (r, c) of tile
/// n at target[r·target_row + c·target_column + n·target_step + i], for n < repeats and i < width,
/// a whole number of vectors.
struct ProductTiles {
  const float* products;
  std::int64_t row_factor, column_factor, width, repeats;
  const float* start;  ///< [width], added to every output; null: nothing
  float* target;
  std::int64_t target_row, target_column, target_step;
};

/// Products m[f, i, j] = products[f·factor + i·width + j] of factor f along the columns and one
/// factor along the rows, which is part of taps g0 and g1 along the rows by `weights`:
/// taps[r][c][i·tap_row + j] += weights[r]·(tap c of m along the columns), for i < rows and
/// j < width, a whole number of vectors.
struct TapProducts {
  const float* products;
  std::int64_t factor;
  int rows;
  std::int64_t width;
  float weights[2];  ///< 0: no part
  bool adds[2];      ///< false: = instead of +=
  float* taps[2][2];
  std::int64_t tap_row;
};

/// For i < a_count and j < b_count, lane by lane:
/// sums[(i + j·sums_stride)·lanes + lane] = what they begin with +
///     Σ_{row < rows, k < columns} a[i·a_stride + row·a_row + k·lanes + lane] ·
///                                 b[j][row·b_row + k·lanes + lane]
struct Correlation {
  const float* a;
  std::int64_t a_stride;  ///< from i to i
  int a_count;            ///< 1 … Kernels::channels
  const float* b[kMostVectors];
  int b_count;  ///< 1 … Kernels::vectors
  std::int64_t rows, columns;
  std::int64_t a_row, b_row;  ///< from row to row
  bool adds;                  ///< begins with what `sums` holds instead of zeros
  float* sums;
  std::int64_t sums_stride;  ///< from j to j, in vectors
};

/// A row of several images, of which the elements at one column lie side by side in a vector: those
/// at column j at data + (first + j) % parts·part_stride + (first + j) / parts·lanes.
template <class Float>
struct LaneRow {
  Float* data;
  std::int64_t first;
  std::int64_t parts, part_stride;
};

/// clamp(mish(y) + add, min, max)·scale; a gradient passes the clamp from first_inside to
/// last_inside, both included.
struct Chain {
  bool mish;
  bool clamps;
  float add, min, max, scale;
  float first_inside, last_inside;
};

/// mish and nothing else; adding -0 leaves every number as it is.
inline constexpr Chain kMishAlone{.mish = true,
                                  .clamps = false,
                                  .add = -0.0f,
                                  .min = -std::numeric_limits<float>::infinity(),
                                  .max = std::numeric_limits<float>::infinity(),
                                  .scale = 1,
                                  .first_inside = -std::numeric_limits<float>::infinity(),
                                  .last_inside = std::numeric_limits<float>::infinity()};

/// The functions of one instruction set.
struct Kernels {
  const char* name;  ///< portable, avx2 or avx512
  int lanes;         ///< floats in a vector
  int channels;      ///< the most that `multiply` takes
  int vectors;       ///< likewise

  void (*multiply)(const Product& product);
  void (*multiply_matrix)(const MatrixProduct& product);
  void (*add_rows)(const WeightedRows& rows);
  /// The tile + 1 factors of as many elements; of two `windows` also those of the elements that
  /// begin one later: of tiles of 2 the last factor but two is the second window's first, of tiles
  /// of 4 they are five more.
  void (*data_factors)(const FactorRows& rows, int tile, int windows);
  /// The tile + 1 factors of a gradient of `tile` outputs.
  void (*output_factors)(const FactorRows& rows, int tile);
  void (*outputs)(const ProductTiles& tiles, int tile_rows, int tile_columns);
  /// Of tiles of `tile` columns.
  void (*add_taps)(const TapProducts& products, int tile);
  void (*correlate)(const Correlation& correlation);
  /// sums[i·sums_stride + j] += Σ_k a[i·a_stride + k]·b[j·b_stride + k] for i < rows, j < columns,
  /// k < count.
  void (*dot)(const float* a, std::int64_t a_stride, std::int64_t rows, const float* b,
              std::int64_t b_stride, std::int64_t columns, std::int64_t count, float* sums,
              std::int64_t sums_stride);
  /// Replaces x by e^x, relative error below 2e-7 wherever the result is a normal number.
  void (*exponential)(float* values, std::int64_t count);
  /// Replaces `count` values y by the chain's results.
  void (*apply)(const Chain& chain, float* values, std::int64_t count);
  /// Replaces `count` gradients of the chain's results by those of y, of which up to lanes - 1 more
  /// may be read.
  void (*gradient)(const Chain& chain, const float* values, float* gradients, std::int64_t count);
  /// target[i·parts + p] = source[p·stride + i] where that is less than `count`. May read up to
  /// lanes - 1 floats behind each part.
  void (*interleave)(const float* source, std::int64_t stride, std::int64_t parts,
                     std::int64_t count, float* target);
  /// target[p·stride + i] = source[i·parts + p] for i·parts + p < count.
  void (*split)(const float* source, std::int64_t parts, std::int64_t count, float* target,
                std::int64_t stride);
  /// Copies `runs` runs of `count` floats, `source_stride` apart, one behind the other. May write
  /// up to lanes - 1 floats behind the last and read as many.
  void (*join)(const float* source, std::int64_t source_stride, std::int64_t runs,
               std::int64_t count, float* target);
  /// target[j·target_stride + i] = source[i·source_stride + j] for i < rows, j < columns.
  void (*transpose)(const float* source, std::int64_t source_stride, std::int64_t rows,
                    std::int64_t columns, float* target, std::int64_t target_stride);
  /// Columns 0 … count - 1 of target from `images` rows, at most as many as there are lanes,
  /// `image_stride` apart; the lanes of further images become zero.
  void (*pack_lanes)(const float* source, std::int64_t image_stride, std::int64_t images,
                     std::int64_t count, const LaneRow<float>& target);
  /// The other way round.
  void (*unpack_lanes)(const LaneRow<const float>& source, std::int64_t count, float* target,
                       std::int64_t image_stride, std::int64_t images);
};

/// Those of the instruction set `name`, or null when the build or the processor has it not.
const Kernels* find_kernels(std::string_view name);

/// Those of the instruction set `wanted` (portable, avx2 or avx512), of the best there is where it
/// is empty. Throws `Error` when it is another word or the build or the processor has it not.
const Kernels& choose_kernels(std::string_view wanted);

/// The choice for the environment variable TENON_CPU_ISA, made at the first call that succeeds.
const Kernels& kernels();

/// As `kernels.multiply`, in parts of limited depth: their sums round less than one long sum.
void sum_products(const Kernels& kernels, const Product& product);

}  // namespace tenon::ops::cpu::simd
