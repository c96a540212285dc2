// The helpers of the examples: pictures, charts, PCA.
#include <gtest/gtest.h>
#include <png.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "tenon/core/factories.h"
#include "tenon/examples/support/image.h"
#include "tenon/examples/support/line_chart.h"
#include "tenon/examples/support/pca.h"

namespace examples {
namespace {

TEST(PcaTest, IsExactForDataInASubspace) {
  // Rows mean + a·u + b·v: two components hold everything.
  std::vector<double> rows;
  for (int i = 0; i < 20; ++i) {
    const double a = std::sin(i);
    const double b = std::cos(3 * i);
    for (int d = 0; d < 5; ++d) rows.push_back(0.3 * d + a * (d + 1) + b * (d % 2));
  }
  const tenon::Tensor data = tenon::tensor(rows, {20, 5});
  EXPECT_LT(pca_reconstruction_error(data, data, 2), 1e-24);
  EXPECT_GT(pca_reconstruction_error(data, data, 1), 1e-3);
}

TEST(PcaTest, DropsTheDirectionOfLeastVariance) {
  // Variances 9 and 1 along the axes; one component leaves the second axis' variance, and the mean
  // is over both elements.
  const tenon::Tensor data = tenon::tensor(std::vector<float>{3, 1, -3, 1, 3, -1, -3, -1}, {4, 2});
  EXPECT_NEAR(pca_reconstruction_error(data, data, 1), 0.5, 1e-12);
}

TEST(PcaTest, RejectsMoreComponentsThanFeatures) {
  const tenon::Tensor data = tenon::zeros({4, 2});
  EXPECT_THROW(pca_reconstruction_error(data, data, 3), tenon::Error);
  EXPECT_THROW(pca_reconstruction_error(data, tenon::zeros({4, 3}), 1), tenon::Error);
}

TEST(ImageTest, PngHoldsThePixelsOfTheGrid) {
  const tenon::Tensor originals = tenon::ones({2, 1, 3, 2});
  const tenon::Tensor reconstructions = tenon::zeros({2, 1, 3, 2});
  const GreyImage picture = compare_images(originals, reconstructions, 1, 2, 2);
  const auto path = std::filesystem::temp_directory_path() / "tenon_image_test.png";
  write_png(path, picture);

  png_image header{};
  header.version = PNG_IMAGE_VERSION;
  ASSERT_NE(png_image_begin_read_from_file(&header, path.c_str()), 0);
  header.format = PNG_FORMAT_GRAY;
  std::vector<std::uint8_t> pixels(PNG_IMAGE_SIZE(header));
  ASSERT_NE(png_image_finish_read(&header, nullptr, pixels.data(), 0, nullptr), 0);
  EXPECT_EQ(header.width, 20U);   // 2 images of 4 and 3 gaps of 4
  EXPECT_EQ(header.height, 24U);  // 2 images of 6 and 3 gaps of 4
  EXPECT_EQ(pixels, picture.pixels);
  EXPECT_EQ(pixels[4 * 20 + 4], 255);  // the first original
  EXPECT_EQ(pixels[14 * 20 + 4], 0);   // its reconstruction below
  EXPECT_EQ(pixels[0], 245);           // paper
  std::filesystem::remove(path);
}

TEST(ImageTest, UnwritableFileIsAnError) {
  EXPECT_THROW(write_png("/nonexistent/folder/x.png", GreyImage(2, 2, 0)), tenon::Error);
}

TEST(LineChartTest, TicksAreRoundNumbersInTheRange) {
  EXPECT_EQ(linear_ticks(0, 10, 5), (std::vector<double>{0, 2, 4, 6, 8, 10}));
  EXPECT_EQ(linear_ticks(-7, 12, 4), (std::vector<double>{-5, 0, 5, 10}));
  const std::vector<double> ticks = logarithmic_ticks(0.009, 0.21);
  ASSERT_EQ(ticks.size(), 5U);
  EXPECT_NEAR(ticks.front(), 0.01, 1e-12);
  EXPECT_NEAR(ticks.back(), 0.2, 1e-12);
}

TEST(LineChartTest, LeavesOutWhatALogarithmicAxisCannotShow) {
  const std::string svg =
      line_chart({"loss & error", "x", "y"}, {{"a<b", {0, 1, 2, 3}, {1, NAN, 0, 0.5}, "#000"}});
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_EQ(svg.find("inf"), std::string::npos);
  EXPECT_NE(svg.find("loss &amp; error"), std::string::npos);
  EXPECT_NE(svg.find("a&lt;b"), std::string::npos);
}

TEST(LineChartTest, AnEmptyChartIsStillAChart) {
  const std::string svg = line_chart({"t", "x", "y"}, {});
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_EQ(svg.find("inf"), std::string::npos);
  EXPECT_NE(svg.find("</svg>"), std::string::npos);
}

}  // namespace
}  // namespace examples
