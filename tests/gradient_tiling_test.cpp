// The tiles of the data gradient, against its definition: the kernel's walk over tiles, sources,
// windows and taps, one number at a time.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "conv_reference.h"
#include "tenon/ops/fused/tiling.h"
#include "tiling_cases.h"

namespace tenon {
namespace {

using ops::PhaseAxis;
using ops::Tiling;
using ops::TransposedShape;
using test::Case;
using test::Draw;
using test::draw_cases;
using test::draw_image;
using test::Image;

/// x's gradient as the kernel computes it from y's.
class GradientEmulation {
 public:
  GradientEmulation(const TransposedShape& forward, const Tiling& tiling, const Image& grad_y,
                    const Image& weight, const Shape& x)
      : grad_x(x),
        writes(grad_x.values.size()),
        forward_(forward),
        t_(tiling),
        grad_y_(grad_y),
        weight_(weight) {}

  void run() {
    for (int tile = 0; tile < t_.tiles(); ++tile) {
      const int unit = tile % t_.units();
      const int rest = tile / t_.units();
      place_ = {.image = rest / t_.column_tiles / t_.row_tiles * t_.tile.images,
                .row = rest / t_.column_tiles % t_.row_tiles * t_.tile.rows,
                .column = rest % t_.column_tiles * t_.tile.columns,
                .channel = unit % t_.channel_tiles * t_.tile.out_channels,
                .group = unit / t_.channel_tiles};
      for (int position = 0; position < t_.tile.positions(); ++position) write(position);
    }
  }

  Image grad_x;
  std::vector<int> writes;  ///< of each number

 private:
  struct Place {
    int image, row, column, channel, group;
  };

  void write(int position) {
    const int line = position / t_.tile.columns;
    const int in_image = line / t_.tile.rows;
    const int row = line % t_.tile.rows;
    const int column = position % t_.tile.columns;
    const int window = (in_image * t_.sources * t_.window_rows + row) * t_.window_columns + column;
    const std::int64_t image = place_.image + in_image;
    const Shape& s = grad_x.shape;
    if (image >= s[0] || place_.row + row >= s[2] || place_.column + column >= s[3]) return;
    const int end = std::min(place_.channel + t_.tile.out_channels, t_.shape.out_channels);
    for (int channel = place_.channel; channel < end; ++channel) {
      const std::int64_t plane = image * s[1] + place_.group * t_.shape.out_channels + channel;
      const auto at = static_cast<std::size_t>((plane * s[2] + place_.row + row) * s[3] +
                                               place_.column + column);
      grad_x.values[at] = sum(window, channel);
      ++writes[at];
    }
  }

  double sum(int window, int channel) const {
    const std::int64_t taps = weight_.shape[2] * weight_.shape[3];
    const std::int64_t in = place_.group * t_.shape.out_channels + channel;
    double result = 0;
    for (int c = 0; c < t_.shape.in_channels; ++c) {
      for (int tap = 0; tap < t_.taps.first[1]; ++tap) {
        const auto weight =
            static_cast<std::size_t>((in * t_.shape.in_channels + c) * taps + t_.taps.kernel[tap]);
        result += read(window + t_.taps.window[tap], c) * weight_.values.at(weight);
      }
    }
    return result;
  }

  /// What lies at a position of the windows: image of the tile, source, row, column.
  double read(int position, int channel) const {
    EXPECT_LT(position, t_.window_positions());
    const int line = position / t_.window_columns;
    const int source = line / t_.window_rows % t_.sources;
    const std::int64_t image = place_.image + line / t_.window_rows / t_.sources;
    const std::int64_t q_row = place_.row + t_.first_row[0] + line % t_.window_rows;
    const std::int64_t q_column = place_.column + t_.first_column + position % t_.window_columns;
    const PhaseAxis& rows = forward_.rows;
    const PhaseAxis& columns = forward_.columns;
    if (q_row < 0 || q_column < 0) return 0;
    const std::int64_t row = source / columns.stride + rows.stride * q_row;
    const std::int64_t column = source % columns.stride + columns.stride * q_column;
    const Shape& s = grad_y_.shape;
    if (image >= s[0] || row >= s[2] || column >= s[3]) return 0;
    const std::int64_t plane = image * s[1] + place_.group * t_.shape.in_channels + channel;
    return grad_y_.values[static_cast<std::size_t>((plane * s[2] + row) * s[3] + column)];
  }

  const TransposedShape& forward_;
  const Tiling& t_;
  const Image& grad_y_;
  const Image& weight_;
  Place place_{};
};

TEST(GradientTiling, TilesGiveEveryGradientOnceAndAsDefined) {
  Draw draw(11);
  for (Case c : draw_cases(12, 40)) {
    c.tile.row_phases = 1;
    c.tile.vector = 1;
    c.tile.dense = true;
    const TransposedShape shape = TransposedShape::of(c.x, c.weight, c.y(), c.options);
    ASSERT_TRUE(tiling_fits(shape)) << describe(c);
    const Tiling tiling = make_gradient_tiling(shape, c.tile);
    ASSERT_EQ(tiling.chunk_rows(), tiling.window_positions()) << describe(c);
    ASSERT_EQ(tiling.taps_of_set(0), static_cast<int>(c.weight[2] * c.weight[3])) << describe(c);
    Image grad_y = draw_image(draw, c.y());
    Image weight = draw_image(draw, c.weight);
    GradientEmulation emulation(shape, tiling, grad_y, weight, c.x);
    emulation.run();
    ASSERT_TRUE(std::ranges::all_of(emulation.writes, [](int count) { return count == 1; }))
        << describe(c);
    Image expected(c.x);
    test::for_each_transposed_product(
        c.x, c.weight, grad_y.shape, c.options,
        [&](auto n, auto ci, auto channel, auto iy, auto ix, auto oy, auto ox, auto ky, auto kx,
            auto co) {
          expected.at(n, ci, iy, ix) += grad_y.at(n, channel, oy, ox) * weight.at(ci, co, ky, kx);
        });
    ASSERT_EQ(emulation.grad_x.values, expected.values) << describe(c);
  }
}

}  // namespace
}  // namespace tenon
