// Geometries and tile shapes for the tests of ops/fused/tiling.h, drawn with a fixed seed.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "conv_reference.h"
#include "tenon/ops/fused/tiling.h"

namespace tenon::test {

/// A convolution and the tiles it is cut into.
struct Case {
  Shape x;
  Shape weight;
  ops::ConvTranspose2dOptions options;
  ops::TileShape tile;

  Shape y() const { return transposed_shape(x, weight, options); }
  ops::Tiling tiling() const {
    return make_tiling(ops::TransposedShape::of(x, weight, y(), options), tile);
  }
};

inline std::string describe(const Case& c) {
  const ops::ConvTranspose2dOptions& o = c.options;
  std::ostringstream out;
  out << "x " << c.x << " weight " << c.weight << " y " << c.y() << " stride " << o.stride.h << ' '
      << o.stride.w << " padding " << o.padding.h << ' ' << o.padding.w << " dilation "
      << o.dilation.h << ' ' << o.dilation.w << " groups " << o.groups << "; tile of "
      << c.tile.images << " x " << c.tile.rows << " x " << c.tile.columns << ", "
      << c.tile.row_phases << " row phases, " << c.tile.out_channels << " of " << c.tile.in_channels
      << " channels, vectors of " << c.tile.vector << (c.tile.flat ? ", flat" : "");
  return out.str();
}

/// Draws without the standard distributions, which differ between libraries.
class Draw {
 public:
  explicit Draw(unsigned seed) : engine_(seed) {}

  /// From `least` to `most`, both included.
  std::int64_t between(std::int64_t least, std::int64_t most) {
    return least + static_cast<std::int64_t>(engine_() % static_cast<unsigned>(most - least + 1));
  }
  int of(std::initializer_list<int> values) {
    return values.begin()[between(0, static_cast<std::int64_t>(values.size()) - 1)];
  }

 private:
  std::mt19937 engine_;
};

/// Small integers, with which all sums are exact; none is 0, which would hide a missing product.
inline Image draw_image(Draw& draw, const Shape& shape) {
  Image image(shape);
  for (double& value : image.values) {
    value = static_cast<double>(draw.between(1, 9) * (draw.between(0, 1) == 0 ? 1 : -1));
  }
  return image;
}

/// Padding and output padding of an axis, such that it has outputs; the padding may well be more
/// than the kernel covers, and the output padding more than the stride where the dilation is.
struct Margins {
  std::int64_t padding;
  std::int64_t output_padding;
};
inline Margins draw_margins(Draw& draw, std::int64_t input, std::int64_t kernel,
                            std::int64_t stride, std::int64_t dilation) {
  const std::int64_t extra = draw.between(0, std::max(stride, dilation) - 1);
  const std::int64_t covered = (input - 1) * stride + dilation * (kernel - 1) + extra;
  const std::int64_t most = std::min(covered / 2, dilation * (kernel - 1) + 2);
  return {draw.between(0, most), extra};
}

inline ops::TileShape draw_tile(Draw& draw, std::int64_t row_stride) {
  ops::TileShape tile{};
  tile.images = draw.of({1, 1, 2, 4});
  tile.rows = draw.of({1, 2, 3, 4, 8});
  tile.columns = draw.of({1, 2, 3, 4, 8, 8, 12, 64, 64});
  do {
    tile.row_phases = static_cast<int>(draw.between(1, row_stride));
  } while (row_stride % tile.row_phases != 0);
  tile.out_channels = draw.of({1, 2, 4, 8});
  tile.in_channels = draw.of({1, 2, 4, 8});
  do {
    tile.vector = draw.of({1, 2, 4});
  } while (tile.columns % tile.vector != 0);
  return tile;
}

/// A case with this geometry of rows; all else drawn.
inline Case draw_case(Draw& draw, std::int64_t kernel, std::int64_t stride, std::int64_t dilation) {
  Case c;
  ops::ConvTranspose2dOptions& o = c.options;
  const bool wide = draw.between(0, 9) == 0;  // more than one tile of 64 columns
  const std::int64_t height = draw.between(1, wide ? 3 : 11);
  const std::int64_t width = wide ? draw.between(60, 75) : draw.between(1, 11);
  const std::int64_t kernel_width = draw.between(1, 7);
  o.stride = {stride, draw.between(1, 4)};
  o.dilation = {dilation, draw.between(1, 3)};
  o.groups = draw.of({1, 1, 2, 3});
  const Margins rows = draw_margins(draw, height, kernel, o.stride.h, o.dilation.h);
  const Margins columns = draw_margins(draw, width, kernel_width, o.stride.w, o.dilation.w);
  o.padding = {rows.padding, columns.padding};
  o.output_padding = {rows.output_padding, columns.output_padding};
  const std::int64_t most_channels = wide ? 2 : 5;
  c.x = {draw.between(1, 3), o.groups * draw.between(1, most_channels), height, width};
  c.weight = {c.x[1], draw.between(1, most_channels), kernel, kernel_width};
  c.tile = draw_tile(draw, o.stride.h);
  return c;
}

/// Every kernel height, stride and dilation, `count` times each.
inline std::vector<Case> draw_cases(unsigned seed, int count) {
  Draw draw(seed);
  std::vector<Case> cases;
  for (std::int64_t kernel = 1; kernel <= 7; ++kernel) {
    for (std::int64_t stride = 1; stride <= ops::kMostStride; ++stride) {
      for (std::int64_t dilation = 1; dilation <= 3; ++dilation) {
        for (int i = 0; i < count; ++i) {
          cases.push_back(draw_case(draw, kernel, stride, dilation));
        }
      }
    }
  }
  return cases;
}

/// The same with flat tiles.
inline std::vector<Case> draw_flat_cases(unsigned seed, int count) {
  std::vector<Case> cases = draw_cases(seed, count);
  Draw draw(seed);
  for (Case& c : cases) {
    c.tile.flat = true;
    c.tile.images = c.tile.rows = 1;
    c.tile.columns = 4 * draw.of({1, 2, 5, 16, 32});
    c.tile.row_phases = static_cast<int>(c.options.stride.h);
  }
  return cases;
}

}  // namespace tenon::test
