// Grey pictures as PNG files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "tenon/core/tensor.h"

namespace examples {

/// A grey picture, 0 black and 255 white, rows from the top.
struct GreyImage {
  std::int64_t width = 0;
  std::int64_t height = 0;
  std::vector<std::uint8_t> pixels;

  /// A picture of one shade.
  GreyImage(std::int64_t width, std::int64_t height, std::uint8_t shade);
  /// Draws `image` [H, W], values from 0 to 1, with its upper left corner at (x, y), each of its
  /// pixels as `zoom` by `zoom` pixels.
  void draw(const tenon::Tensor& image, std::int64_t x, std::int64_t y, std::int64_t zoom);
};

/// The first rows × columns images of `originals` [N, 1, H, W], each with its reconstruction
/// directly below it.
GreyImage compare_images(const tenon::Tensor& originals, const tenon::Tensor& reconstructions,
                         std::int64_t rows, std::int64_t columns, std::int64_t zoom);

/// Throws `tenon::Error` naming the file when it cannot be written.
void write_png(const std::filesystem::path& path, const GreyImage& image);

}  // namespace examples
