#include "tenon/examples/support/image_data.h"

#include <algorithm>
#include <vector>

#include "tenon/nn/idx.h"

namespace examples {
namespace {

namespace fs = std::filesystem;

constexpr const char* kDebianFolder = "/usr/share/datasets/fashion-mnist";
constexpr const char* kShippedFolder = TENON_EXAMPLE_DATA;

/// The first file by name in `folder` that begins with one of `prefixes` and contains "images".
fs::path find_images(const fs::path& folder, const std::vector<std::string>& prefixes) {
  TENON_CHECK(fs::is_directory(folder), "data: ", folder.string(), " is not a folder");
  std::vector<fs::path> found;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    const bool begins = std::any_of(
        prefixes.begin(), prefixes.end(),
        [&](const std::string& prefix) { return name.compare(0, prefix.size(), prefix) == 0; });
    if (begins && name.find("images") != std::string::npos) found.push_back(entry.path());
  }
  TENON_CHECK(!found.empty(), "data: ", folder.string(), " has no file ", prefixes.front(),
              "*images* (IDX, gzipped or not)");
  return *std::min_element(found.begin(), found.end());
}

tenon::Tensor load_images(const fs::path& path) {
  const tenon::Tensor images = tenon::data::load_idx(path.string());
  TENON_CHECK(images.dim() == 3 && images.dtype() == tenon::DType::UInt8 && images.numel() > 0,
              "data: ", path.string(), " should hold bytes [N, H, W], but holds ", images.spec());
  return images.unsqueeze(1);
}

}  // namespace

ImageData load_image_data(const fs::path& folder) {
  ImageData data;
  fs::path from = folder;
  if (!folder.empty()) {
    data.source = folder.string();
  } else if (fs::is_directory(kDebianFolder)) {
    from = kDebianFolder;
    data.source = std::string("Fashion-MNIST, ") + kDebianFolder;
  } else {
    from = kShippedFolder;
    data.source =
        "the small Fashion-MNIST of examples/data; Debian's package dataset-fashion-mnist has all";
  }
  data.train = load_images(find_images(from, {"train"}));
  data.test = load_images(find_images(from, {"t10k", "test"}));
  TENON_CHECK(data.train.size(2) == data.test.size(2) && data.train.size(3) == data.test.size(3),
              "data: training images are ", data.train.shape(), ", test images ",
              data.test.shape());
  return data;
}

}  // namespace examples
