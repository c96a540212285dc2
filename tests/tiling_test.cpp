// The tiles of the fused kernel, against the definition: the kernel's walk over tiles, windows,
// taps and phases is repeated here one number at a time, for many geometries and tile shapes.
#include "tenon/ops/fused/tiling.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "conv_reference.h"
#include "tiling_cases.h"

namespace tenon {
namespace {

using ops::PhaseAxis;
using ops::TapList;
using ops::TileShape;
using ops::Tiling;
using ops::TransposedShape;
using ops::WindowColumns;
using test::Case;
using test::Draw;
using test::draw_cases;
using test::draw_flat_cases;
using test::draw_image;
using test::Image;

// ---- the kernel, one number at a time ----------------------------------------------------------

/// Where a tile lies, as the kernel's TilePlace.
struct Place {
  int image;
  int row;
  int column;
  int set;
  int channel;
  int group;

  Place(const Tiling& t, int tile) {
    const int unit = tile % t.units();
    set = unit % t.sets;
    channel = unit / t.sets % t.channel_tiles * t.tile.out_channels;
    group = unit / t.sets / t.channel_tiles;
    const int rest = tile / t.units();
    column = rest % t.column_tiles * t.tile.columns;
    row = rest / t.column_tiles % t.row_tiles * t.tile.rows;
    image = rest / t.column_tiles / t.row_tiles * t.tile.images;
  }
};

/// Where a position of a tile lies in it, as the kernel's PositionPlace.
struct Position {
  int image;
  int row;
  int column;

  Position(const Tiling& t, int position)
      : image(position / t.tile.columns / t.tile.rows),
        row(position / t.tile.columns % t.tile.rows),
        column(position % t.tile.columns) {}

  int in_window(const Tiling& t) const {
    return (image * t.window_rows + row) * t.window_columns + column;
  }

  /// Of a line of flat tiles, as PositionPlace::in_line.
  static Position in_line(const Tiling& t, int position) {
    Position place(t, 0);
    place.image = position / t.line_columns / t.line_rows;
    place.row = position / t.line_columns % t.line_rows;
    place.column = position % t.line_columns;
    return place;
  }

  /// In x and y as a whole.
  static Position of_tile(const Tiling& t, const Place& tile, int position) {
    if (t.tile.flat) return in_line(t, tile.column + position);
    Position place(t, position);
    place.image += tile.image;
    place.row += tile.row;
    place.column += tile.column;
    return place;
  }
};

class Emulation {
 public:
  Emulation(const Tiling& tiling, const Image& x, const Image& weight, const Shape& y)
      : y(y), writes(this->y.values.size()), t_(tiling), x_(x), weight_(weight) {}

  void run() {
    for (int tile = 0; tile < t_.tiles(); ++tile) {
      const Place place(t_, tile);
      load_windows(place);
      wrote_ = false;
      for (int position = 0; position < t_.tile.positions(); ++position) {
        for (int phase = 0; phase < t_.phases; ++phase) write(place, position, phase);
      }
      // Later sets may lie below the last row of a small output, and small flat tiles between rows.
      if (place.set == 0 && !wrote_ && !t_.tile.flat) ++idle_tiles;
    }
  }

  Image y;
  std::vector<int> writes;   ///< of each output
  int idle_tiles = 0;        ///< that have no output
  bool cut_vectors = false;  ///< a vector was partly outside of x, whose rows are whole vectors

 private:
  /// The windows of all stages: [stage, window position, channel of the stage].
  void load_windows(const Place& place) {
    const int channels = t_.tile.in_channels;
    windows_.assign(static_cast<std::size_t>(t_.stages * t_.window_positions() * channels), 0.0);
    double* at = windows_.data();
    for (int stage = 0; stage < t_.stages; ++stage) {
      for (int position = 0; position < t_.window_positions(); ++position) {
        const auto [image, row, column] = in_x(place, position);
        note_cut_vector(column, position % t_.tile.vector);
        for (int c = 0; c < channels; ++c)
          *at++ = read(place, image, stage * channels + c, row, column);
      }
    }
  }

  struct InX {
    int image;
    int row;
    int column;
  };
  /// Where a position of a window lies.
  InX in_x(const Place& place, int position) const {
    if (t_.tile.flat) {
      const int in_line = place.column + t_.first_column + position;
      if (in_line < 0) return {-1, 0, -t_.tile.vector};
      const Position q = Position::in_line(t_, in_line);
      return {q.image, q.row, q.column};
    }
    const int line = position / t_.window_columns;
    return {place.image + line / t_.window_rows,
            place.row + t_.first_row[place.set] + line % t_.window_rows,
            place.column + t_.first_column + position % t_.window_columns};
  }

  /// `lane`: of the column in its vector. The kernel reads a vector at its first column's offset.
  void note_cut_vector(int column, int lane) {
    const int width = static_cast<int>(t_.shape.columns.input);
    const auto inside = [&](int at) { return at >= 0 && at < width; };
    if (width % t_.tile.vector == 0 && inside(column) != inside(column - lane)) cut_vectors = true;
  }

  double read(const Place& place, int image, int channel, int row, int column) const {
    const Shape& s = x_.shape;
    if (image < 0 || image >= s[0] || channel >= t_.shape.in_channels) return 0.0;
    if (row < 0 || row >= s[2] || column < 0 || column >= s[3]) return 0.0;
    const std::int64_t plane = image * s[1] + place.group * t_.shape.in_channels + channel;
    return x_.values[static_cast<std::size_t>((plane * s[2] + row) * s[3] + column)];
  }

  void write(const Place& place, int position, int phase) {
    const Position q = Position::of_tile(t_, place, position);
    const int column_phases = static_cast<int>(t_.shape.columns.stride);
    const std::int64_t image = q.image;
    const std::int64_t row =
        q.row * t_.shape.rows.stride + place.set * t_.tile.row_phases + phase / column_phases;
    const std::int64_t column = q.column * column_phases + phase % column_phases;
    if (image >= y.shape[0] || row >= y.shape[2] || column >= y.shape[3]) return;
    const int end = std::min(place.channel + t_.tile.out_channels, t_.shape.out_channels);
    for (int channel = place.channel; channel < end; ++channel) {
      const std::int64_t plane = image * y.shape[1] + place.group * t_.shape.out_channels + channel;
      const auto at = static_cast<std::size_t>((plane * y.shape[2] + row) * y.shape[3] + column);
      y.values[at] = sum(place, Position(t_, position).in_window(t_), phase, channel);
      ++writes[at];
      wrote_ = true;
    }
  }

  double sum(const Place& place, int position, int phase, int channel) const {
    const int first = t_.taps.first[place.set * t_.phases + phase];
    const int end = t_.taps.first[place.set * t_.phases + phase + 1];
    const std::int64_t taps = weight_.shape[2] * weight_.shape[3];
    double result = 0.0;
    for (int c = 0; c < t_.shape.in_channels; ++c) {
      const int stage = c / t_.tile.in_channels;
      const std::int64_t in = place.group * t_.shape.in_channels + c;
      for (int tap = first; tap < end; ++tap) {
        const int at = stage * t_.window_positions() + position + t_.taps.window[tap];
        const auto window =
            static_cast<std::size_t>(at * t_.tile.in_channels + c % t_.tile.in_channels);
        const auto weight = static_cast<std::size_t>((in * t_.shape.out_channels + channel) * taps +
                                                     t_.taps.kernel[tap]);
        result += windows_.at(window) * weight_.values.at(weight);
      }
    }
    return result;
  }

  const Tiling& t_;
  const Image& x_;
  const Image& weight_;
  std::vector<double> windows_;
  bool wrote_ = false;
};

void check_outputs(const std::vector<Case>& cases) {
  Draw draw(1);
  for (const Case& c : cases) {
    const Tiling tiling = c.tiling();
    ASSERT_TRUE(tiling_fits(tiling.shape)) << describe(c);
    Image x = draw_image(draw, c.x);
    Image weight = draw_image(draw, c.weight);
    Emulation emulation(tiling, x, weight, c.y());
    emulation.run();
    ASSERT_FALSE(emulation.cut_vectors) << describe(c);
    ASSERT_EQ(emulation.idle_tiles, 0) << describe(c);
    ASSERT_EQ(tiling.stages,
              (tiling.shape.in_channels + c.tile.in_channels - 1) / c.tile.in_channels)
        << describe(c);
    ASSERT_TRUE(std::ranges::all_of(emulation.writes, [](int count) { return count == 1; }))
        << describe(c);
    Image expected(c.y());
    test::for_each_transposed_product(c.x, c.weight, expected.shape, c.options,
                                      [&](auto n, auto ci, auto channel, auto iy, auto ix, auto oy,
                                          auto ox, auto ky, auto kx, auto co) {
                                        expected.at(n, channel, oy, ox) +=
                                            x.at(n, ci, iy, ix) * weight.at(ci, co, ky, kx);
                                      });
    ASSERT_EQ(emulation.y.values, expected.values) << describe(c);
  }
}

TEST(Tiling, TilesGiveEveryOutputOnceAndAsDefined) { check_outputs(draw_cases(2, 40)); }

TEST(Tiling, FlatTilesGiveEveryOutputOnceAndAsDefined) { check_outputs(draw_flat_cases(8, 20)); }

TEST(Tiling, FlatTilesLoseNothingButTheEndsOfRows) {
  const Case c{{128, 32, 16, 16},
               {32, 64, 4, 4},
               {.stride = 2, .padding = 1, .output_padding = 1},
               {1, 1, 128, 2, 64, 16, 2, true}};
  const Tiling t = c.tiling();
  ASSERT_EQ(t.line_columns, 18);  // 17 and a zero
  ASSERT_EQ(t.line_rows, 18);
  ASSERT_EQ(t.tiles(), (127 * 18 * 18 + 16 * 18 + 17 + 127) / 128);
  ASSERT_EQ(t.first_column, -20);  // a row and a column before, in vectors of 2
  ASSERT_TRUE(t.ragged);
}

// ---- windows -----------------------------------------------------------------------------------

/// The taps of a set, of which each must look where the definition says, and all inside the window
/// from the tile's first position to its last. Counts the taps of the kernel in `visits`.
void check_taps_of_set(const Tiling& t, int set, std::vector<int>& visits) {
  const PhaseAxis& rows = t.shape.rows;
  const PhaseAxis& columns = t.shape.columns;
  for (int phase = 0; phase < t.phases; ++phase) {
    const std::int64_t row_phase = set * t.tile.row_phases + phase / columns.stride;
    const std::int64_t column_phase = phase % columns.stride;
    const int* first = t.taps.first + set * t.phases + phase;
    ASSERT_EQ(first[1] - first[0], rows.tap_count(row_phase) * columns.tap_count(column_phase));
    for (int tap = first[0]; tap < first[1]; ++tap) {
      const std::int64_t k = t.taps.kernel[tap] / columns.kernel;
      const std::int64_t l = t.taps.kernel[tap] % columns.kernel;
      ++visits.at(static_cast<std::size_t>(t.taps.kernel[tap]));
      ASSERT_EQ((row_phase + rows.padding - k * rows.dilation) % rows.stride, 0);
      ASSERT_EQ((column_phase + columns.padding - l * columns.dilation) % columns.stride, 0);
      const std::int64_t row = rows.tap_shift(row_phase, k) - t.first_row[set];
      const std::int64_t column = columns.tap_shift(column_phase, l) - t.first_column;
      ASSERT_EQ(t.taps.window[tap], row * t.window_columns + column);
      ASSERT_GE(row, 0);
      ASSERT_LE(row + t.tile.rows, t.window_rows);
      ASSERT_GE(column, 0);
      ASSERT_LE(column + t.tile.columns, t.window_columns);
    }
  }
}

TEST(Tiling, EveryTapOfEveryPositionLooksInsideTheWindow) {
  for (const Case& c : draw_cases(3, 50)) {
    SCOPED_TRACE(describe(c));
    const Tiling t = c.tiling();
    std::vector<int> visits(static_cast<std::size_t>(c.weight[2] * c.weight[3]));
    ASSERT_EQ(t.first_tap(0), 0);
    int most = 0;
    for (int set = 0; set < t.sets; ++set) {
      check_taps_of_set(t, set, visits);
      if (HasFatalFailure()) return;
      most = std::max(most, t.taps_of_set(set));
    }
    ASSERT_EQ(t.first_tap(t.sets), static_cast<int>(visits.size()));
    ASSERT_EQ(t.most_taps(), most);
    ASSERT_TRUE(std::ranges::all_of(visits, [](int count) { return count == 1; }));
  }
}

TEST(Tiling, WindowsAreWholeVectorsAndNoneInVain) {
  for (const Case& c : draw_cases(4, 50)) {
    const Tiling t = c.tiling();
    ASSERT_EQ(t.first_column % c.tile.vector, 0) << describe(c);
    ASSERT_EQ(t.window_columns % c.tile.vector, 0) << describe(c);
    int most_rows = 0;
    for (int set = 0; set < t.sets; ++set) {
      const TapList list = list_taps(t.shape.rows, t.shape.columns, c.tile.row_phases, set);
      most_rows = std::max(most_rows, c.tile.rows + list.last_row_shift - list.first_row_shift);
      ASSERT_EQ(t.first_row[set], list.first_row_shift) << describe(c);
      ASSERT_GT(t.first_column + c.tile.vector, list.first_column_shift) << describe(c);
      ASSERT_LT(t.first_column + t.window_columns - c.tile.vector,
                c.tile.columns + list.last_column_shift)
          << describe(c);
    }
    ASSERT_EQ(t.window_rows, most_rows) << describe(c);
  }
}

TEST(Tiling, ChunksHoldTheWindowAndBeginOnNeighbouringBanks) {
  for (const Case& c : draw_cases(5, 50)) {
    const Tiling t = c.tiling();
    ASSERT_EQ(t.window_positions(), t.tile.images * t.window_rows * t.window_columns);
    ASSERT_EQ(t.chunk_rows() % 8, 1) << describe(c);
    ASSERT_GE(t.chunk_rows(), t.window_positions()) << describe(c);
    ASSERT_LT(t.chunk_rows(), t.window_positions() + 8) << describe(c);
  }
}

/// Warpgroups read a block of 64 positions as eights at one distance.
TEST(Tiling, EightsOfABlockLieAtEqualDistances) {
  const std::array<TileShape, 6> tiles{{{1, 16, 8, 2, 8, 8, 4},
                                        {2, 8, 8, 2, 8, 8, 2},
                                        {4, 8, 8, 2, 8, 8, 2},
                                        {1, 4, 64, 2, 8, 8, 4},
                                        {2, 2, 64, 2, 8, 8, 1},
                                        {1, 2, 128, 2, 8, 8, 4}}};
  for (const TileShape& tile : tiles) {
    const Case c{{2, 8, 9, 9}, {8, 8, 3, 3}, {.stride = 2, .padding = 1}, tile};
    const Tiling t = c.tiling();
    const int distance = tile.columns == 8 ? t.window_columns : 8;
    for (int position = 0; position < tile.positions(); ++position) {
      const Position first(t, position / 64 * 64);
      ASSERT_EQ(Position(t, position).in_window(t),
                first.in_window(t) + position % 64 / 8 * distance + position % 8)
          << describe(c);
    }
  }
}

// ---- lists of taps -----------------------------------------------------------------------------

TEST(TapList, EveryTapBelongsToOneSetAndPhaseAndIsSortedByPhase) {
  for (const Case& c : draw_cases(6, 50)) {
    const TransposedShape shape = TransposedShape::of(c.x, c.weight, c.y(), c.options);
    std::vector<int> visits(static_cast<std::size_t>(c.weight[2] * c.weight[3]));
    for (int set = 0; set < shape.rows.stride / c.tile.row_phases; ++set) {
      const TapList list = list_taps(shape.rows, shape.columns, c.tile.row_phases, set);
      for (int i = 0; i < list.count; ++i) {
        const ops::Tap& tap = list.taps[i];
        ++visits.at(static_cast<std::size_t>(tap.kernel));
        ASSERT_LE(i == 0 ? 0 : list.taps[i - 1].phase, tap.phase) << describe(c);
        ASSERT_LT(tap.phase, c.tile.row_phases * shape.columns.stride) << describe(c);
        ASSERT_GE(tap.row_shift, list.first_row_shift) << describe(c);
        ASSERT_LE(tap.row_shift, list.last_row_shift) << describe(c);
        ASSERT_GE(tap.column_shift, list.first_column_shift) << describe(c);
        ASSERT_LE(tap.column_shift, list.last_column_shift) << describe(c);
      }
    }
    ASSERT_TRUE(std::ranges::all_of(visits, [](int count) { return count == 1; })) << describe(c);
  }
}

constexpr int count_of_phase(const TapList& list, int phase) {
  int count = 0;
  for (int i = 0; i < list.count; ++i) count += list.taps[i].phase == phase ? 1 : 0;
  return count;
}

TEST(TapList, IsMadeByTheCompiler) {
  constexpr PhaseAxis kAxis{1, 1, 3, 2, 1, 1};
  constexpr TapList kTaps = ops::list_taps(kAxis, kAxis, 2, 0);
  static_assert(kTaps.count == 9);
  static_assert(count_of_phase(kTaps, 0) == 1 && count_of_phase(kTaps, 1) == 2 &&
                count_of_phase(kTaps, 2) == 2 && count_of_phase(kTaps, 3) == 4);
  static_assert(kTaps.first_row_shift == 0 && kTaps.last_row_shift == 1);
  constexpr WindowColumns kWindow = ops::window_columns(kTaps, 64, 4);
  static_assert(kWindow.first == 0 && kWindow.count == 68);
  EXPECT_EQ(kTaps.taps[0].kernel, 4);  // the middle one alone reaches phase 0
}

/// A kernel that is compiled for a geometry knows neither input nor output sizes.
TEST(TapList, AgreesWithTheTableOfATiling) {
  for (const Case& c : draw_cases(7, 20)) {
    const Tiling t = c.tiling();
    const auto sizeless = [](PhaseAxis axis) {
      axis.input = axis.output = 1;
      return axis;
    };
    for (int set = 0; set < t.sets; ++set) {
      const TapList list =
          list_taps(sizeless(t.shape.rows), sizeless(t.shape.columns), c.tile.row_phases, set);
      const WindowColumns window = window_columns(list, c.tile.columns, c.tile.vector);
      ASSERT_EQ(list.count, t.taps_of_set(set)) << describe(c);
      ASSERT_EQ(window.first, t.first_column) << describe(c);
      ASSERT_EQ(window.count, t.window_columns) << describe(c);
      for (int i = 0; i < list.count; ++i) {
        const ops::Tap& tap = list.taps[i];
        const int at = t.first_tap(set) + i;
        ASSERT_EQ(t.taps.kernel[at], tap.kernel) << describe(c);
        ASSERT_EQ(t.taps.window[at], (tap.row_shift - list.first_row_shift) * window.count +
                                         tap.column_shift - window.first)
            << describe(c);
      }
    }
  }
}

}  // namespace
}  // namespace tenon
