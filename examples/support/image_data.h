// Finding the images to train on.
#pragma once

#include <filesystem>
#include <string>

#include "tenon/core/tensor.h"

namespace examples {

/// Grey images, [N, 1, H, W] uint8, and a sentence about where they come from.
struct ImageData {
  tenon::Tensor train;
  tenon::Tensor test;
  std::string source;
};

/// Reads the IDX files of training and test images in `folder`: MNIST's names, or any of which one
/// begins with "train" and one with "t10k" or "test" and both contain "images"; gzipped or not.
/// An empty `folder` stands for the full Fashion-MNIST as Debian installs it or, where that is
/// missing, the small one that comes with the examples. Throws `tenon::Error` when a file is
/// missing or is not what it should be.
ImageData load_image_data(const std::filesystem::path& folder);

}  // namespace examples
