#include "shapes.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <sstream>

namespace bench {

tenon::ops::ConvTranspose2dOptions BlockShape::options() const {
  return {.stride = stride, .padding = padding, .output_padding = output_padding};
}

tenon::Shape BlockShape::x() const { return {batch, in_channels, height, width}; }

tenon::Shape BlockShape::weight() const { return {in_channels, out_channels, kernel, kernel}; }

tenon::Shape BlockShape::z() const {
  const auto grown = [&](std::int64_t size) {
    return (size - 1) * stride - 2 * padding + kernel + output_padding;
  };
  return {batch, out_channels, grown(height), grown(width)};
}

double BlockShape::forward_flop() const {
  return 2.0 * static_cast<double>(x().numel()) *
         static_cast<double>(out_channels * kernel * kernel);
}

std::string BlockShape::numbers() const {
  std::ostringstream out;
  out << batch << ',' << in_channels << ',' << height << ',' << width << ',' << out_channels << ','
      << kernel << ',' << stride << ',' << padding << ',' << output_padding;
  return out.str();
}

const std::vector<BlockShape>& known_shapes() {
  static const std::vector<BlockShape> shapes{
      {"mission", 128, 64, 128, 128, 64, 3, 2, 1, 1}, {"dcgan8", 128, 512, 8, 8, 256, 4, 2, 1, 0},
      {"dcgan32", 128, 128, 32, 32, 64, 4, 2, 1, 0},  {"unet", 16, 128, 64, 64, 64, 2, 2, 0, 0},
      {"k5", 32, 128, 32, 32, 64, 5, 2, 2, 1},        {"s1", 32, 64, 64, 64, 64, 3, 1, 1, 0},
      {"small", 128, 32, 16, 16, 64, 4, 2, 1, 1},
  };
  return shapes;
}

BlockShape parse_shape(const std::string& text) {
  const auto& known = known_shapes();
  const auto found = std::find_if(known.begin(), known.end(),
                                  [&](const BlockShape& shape) { return shape.name == text; });
  if (found != known.end()) return *found;

  std::array<std::int64_t, 9> numbers{};
  const char* position = text.data();
  const char* const end = text.data() + text.size();
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const auto [after, error] = std::from_chars(position, end, numbers[i]);
    const bool more = i + 1 < numbers.size();
    TENON_CHECK(error == std::errc() && (more ? after != end && *after == ',' : after == end),
                "--shape: \"", text, "\" is neither mission, dcgan8, dcgan32, unet, k5, s1, small ",
                "nor nine whole numbers N,Cin,H,W,Cout,k,s,p,op");
    position = after + 1;
  }
  const auto [n, cin, h, w, cout, k, s, p, op] = numbers;
  return {text, n, cin, h, w, cout, k, s, p, op};
}

}  // namespace bench
