#include "tenon/examples/support/image.h"

#include <png.h>

#include <algorithm>
#include <cmath>

namespace examples {

GreyImage::GreyImage(std::int64_t width, std::int64_t height, std::uint8_t shade)
    : width(width), height(height), pixels(static_cast<std::size_t>(width * height), shade) {}

void GreyImage::draw(const tenon::Tensor& image, std::int64_t x, std::int64_t y,
                     std::int64_t zoom) {
  const std::int64_t rows = image.size(0);
  const std::int64_t columns = image.size(1);
  TENON_CHECK(x >= 0 && y >= 0 && x + columns * zoom <= width && y + rows * zoom <= height,
              "GreyImage::draw: an image of ", image.shape(), " at (", x, ", ", y,
              ") does not fit into ", width, " x ", height);
  const std::vector<float> values = image.to_vector<float>();
  for (std::int64_t row = 0; row < rows * zoom; ++row) {
    for (std::int64_t column = 0; column < columns * zoom; ++column) {
      const auto source = static_cast<std::size_t>(row / zoom * columns + column / zoom);
      const float shade = std::clamp(values[source], 0.0F, 1.0F) * 255.0F;
      pixels[static_cast<std::size_t>((y + row) * width + x + column)] =
          static_cast<std::uint8_t>(std::lround(shade));
    }
  }
}

GreyImage compare_images(const tenon::Tensor& originals, const tenon::Tensor& reconstructions,
                         std::int64_t rows, std::int64_t columns, std::int64_t zoom) {
  constexpr std::int64_t kGap = 4;       // between neighbours, and between a pair's two images
  constexpr std::int64_t kPairGap = 14;  // between rows of pairs
  constexpr std::uint8_t kPaper = 245;
  const std::int64_t image_height = originals.size(2) * zoom;
  const std::int64_t image_width = originals.size(3) * zoom;
  const std::int64_t pair_height = 2 * image_height + kGap;
  GreyImage picture(columns * (image_width + kGap) + kGap,
                    rows * (pair_height + kPairGap) - kPairGap + 2 * kGap, kPaper);
  for (std::int64_t i = 0; i < std::min(rows * columns, originals.size(0)); ++i) {
    const std::int64_t x = kGap + i % columns * (image_width + kGap);
    const std::int64_t y = kGap + i / columns * (pair_height + kPairGap);
    picture.draw(originals.select(0, i).select(0, 0), x, y, zoom);
    picture.draw(reconstructions.select(0, i).select(0, 0), x, y + image_height + kGap, zoom);
  }
  return picture;
}

void write_png(const std::filesystem::path& path, const GreyImage& image) {
  png_image header{};
  header.version = PNG_IMAGE_VERSION;
  header.width = static_cast<png_uint_32>(image.width);
  header.height = static_cast<png_uint_32>(image.height);
  header.format = PNG_FORMAT_GRAY;
  const int ok = png_image_write_to_file(&header, path.c_str(), 0, image.pixels.data(), 0, nullptr);
  TENON_CHECK(ok != 0, "write_png: cannot write ", path.string(), ": ", header.message);
}

}  // namespace examples
