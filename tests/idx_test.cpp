#include "tenon/nn/idx.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <cmath>

#include "tenon/core/factories.h"
#include "tenon/tests/support/matchers.h"
#include "tenon/tests/support/temporary_directory.h"

namespace tenon {
namespace {

using data::load_idx;
using test::expect_error;
using test::expect_values;
using test::TemporaryDirectory;
using test::write_file;

std::string big_endian(std::uint64_t value, int bytes) {
  std::string text;
  for (int i = bytes - 1; i >= 0; --i) text += static_cast<char>(value >> (8 * i));
  return text;
}

/// An IDX file's header.
std::string header(int code, const std::vector<std::uint32_t>& sizes) {
  std::string text("\0\0", 2);
  text += static_cast<char>(code);
  text += static_cast<char>(sizes.size());
  for (std::uint32_t size : sizes) text += big_endian(size, 4);
  return text;
}

std::string compressed(const std::string& contents) {
  const TemporaryDirectory directory;
  const std::string path = directory / "compressed";
  gzFile file = gzopen(path.c_str(), "wb");
  EXPECT_EQ(gzwrite(file, contents.data(), static_cast<unsigned>(contents.size())),
            static_cast<int>(contents.size()));
  gzclose(file);
  return test::read_file(path);
}

Tensor load(const std::string& bytes) {
  const TemporaryDirectory directory;
  write_file(directory / "data.idx", bytes);
  return load_idx(directory / "data.idx");
}

TEST(Idx, ReadsBytesPlainAndCompressed) {
  const std::string bytes = header(0x08, {2, 1, 3}) + std::string("\0\1\2\x7f\x80\xff", 6);
  for (const std::string& file : {bytes, compressed(bytes)}) {
    const Tensor result = load(file);
    EXPECT_EQ(result.dtype(), DType::UInt8);
    expect_values(result, {2, 1, 3}, {0, 1, 2, 127, 128, 255});
  }
}

TEST(Idx, ReadsSignedBytesAsInt64) {
  const Tensor result = load(header(0x09, {3}) + std::string("\x80\xff\x7f", 3));
  EXPECT_EQ(result.dtype(), DType::Int64);
  expect_values(result, {3}, {-128, -1, 127});
}

TEST(Idx, ReadsShortsAsInt64) {
  const Tensor result = load(header(0x0B, {2, 2}) + big_endian(0x8000, 2) + big_endian(0xffff, 2) +
                             big_endian(1, 2) + big_endian(0x7fff, 2));
  EXPECT_EQ(result.dtype(), DType::Int64);
  expect_values(result, {2, 2}, {-32768, -1, 1, 32767});
}

TEST(Idx, ReadsIntegersAsInt64) {
  const Tensor result = load(header(0x0C, {3}) + big_endian(0x80000000, 4) + big_endian(66051, 4) +
                             big_endian(0xfffffffe, 4));
  EXPECT_EQ(result.dtype(), DType::Int64);
  expect_values(result, {3}, {-2147483648.0, 66051, -2});
}

TEST(Idx, ReadsFloats) {
  const Tensor result =
      load(header(0x0D, {4}) + big_endian(0x3fc00000, 4) + big_endian(0xff800000, 4) +
           big_endian(0x80000000, 4) + big_endian(0x7fc00000, 4));
  ASSERT_EQ(result.dtype(), DType::Float32);
  const float* values = result.data<float>();
  EXPECT_EQ(values[0], 1.5f);
  EXPECT_EQ(values[1], -HUGE_VALF);
  EXPECT_TRUE(values[2] == 0 && std::signbit(values[2]));
  EXPECT_TRUE(std::isnan(values[3]));
}

TEST(Idx, ReadsDoubles) {
  const Tensor result =
      load(header(0x0E, {2}) + big_endian(0x400921fb54442d18, 8) + big_endian(1, 8));
  EXPECT_EQ(result.dtype(), DType::Float64);
  expect_values(result, {2}, {3.141592653589793, 5e-324});
}

TEST(Idx, ReadsMoreThanOneChunk) {
  std::string elements;
  for (std::uint32_t i = 0; i < 700'001; ++i) elements += big_endian(i, 4);
  const Tensor result = load(compressed(header(0x0C, {700'001}) + elements));
  const std::int64_t* values = result.data<std::int64_t>();
  for (std::int64_t i = 0; i < 700'001; ++i) ASSERT_EQ(values[i], i);
}

TEST(Idx, ReadsAnEmptyDimension) {
  const Tensor result = load(header(0x08, {0, 28, 28}));
  EXPECT_EQ(result.shape(), (Shape{0, 28, 28}));
}

TEST(Idx, ReadsEightDimensions) {
  const Tensor result = load(header(0x08, {1, 1, 2, 1, 1, 1, 1, 1}) + "ab");
  expect_values(result, {1, 1, 2, 1, 1, 1, 1, 1}, {97, 98});
}

// ---- what is refused ----------------------------------------------------------------------------

struct BadFile {
  const char* name;
  std::string bytes;
  std::vector<std::string> message;
};

void PrintTo(const BadFile& file, std::ostream* out) { *out << file.name; }

class IdxBadFile : public testing::TestWithParam<BadFile> {};

TEST_P(IdxBadFile, IsRefusedWithASentence) {
  const TemporaryDirectory directory;
  const std::string path = directory / "bad.idx";
  write_file(path, GetParam().bytes);
  const MemoryStats before = memory_stats(Device::cpu());
  reset_peak_memory(Device::cpu());
  std::vector<std::string> message = GetParam().message;
  message.insert(message.end(), {"load_idx", path});
  expect_error([&] { load_idx(path); }, message);
  EXPECT_EQ(memory_stats(Device::cpu()).in_use, before.in_use);
  EXPECT_LT(memory_stats(Device::cpu()).peak, before.in_use + (1 << 20));
}

std::vector<BadFile> bad_files() {
  const std::string good = header(0x08, {2, 3}) + "abcdef";
  std::string zipped = compressed(header(0x08, {100, 100}) + std::string(10'000, 'x'));
  std::string wrong_checksum = zipped;
  wrong_checksum[wrong_checksum.size() - 6] ^= 1;
  std::string damaged = compressed(good);
  damaged[11] = '\xff';
  return {
      {"EmptyFile", "", {"0 bytes"}},
      {"ThreeBytes", std::string("\0\0\x08", 3), {"3 bytes"}},
      {"FirstByteNotZero", "\1" + good.substr(1), {"two zero bytes", "1 and 0"}},
      {"SecondByteNotZero", std::string("\0\2", 2) + good.substr(2), {"0 and 2"}},
      {"NotIdxAtAll", "PNG...........", {"two zero bytes", "80 and 78"}},
      {"UnknownType", header(0x0A, {1}) + "a", {"unknown element type 10"}},
      {"TypeZero", header(0, {1}) + "a", {"unknown element type 0"}},
      {"NoDimensions", header(0x08, {}) + "a", {"0 dimensions", "1 to 8"}},
      {"NineDimensions", header(0x08, std::vector<std::uint32_t>(9, 1)) + "a", {"9 dimensions"}},
      {"SizesCutOff", header(0x08, {2, 3}).substr(0, 9), {"take 8 bytes", "only 5"}},
      {"Truncated", good.substr(0, good.size() - 1), {"truncated", "[2, 3]", "only 5"}},
      {"TruncatedBehindTheHeader",
       header(0x0E, {1, 2, 1}) + std::string(2, 'a'),
       {"[1, 2, 1]", "16"}},
      {"TrailingBytes", good + std::string(7, 'z'), {"bytes behind", "6 bytes"}},
      {"AbsurdSize", header(0x08, {0x7fffffff}) + "abc", {"[2147483647]", "more than this file"}},
      {"ProductOverflows",
       header(0x0E, {0xffffffff, 0xffffffff, 0xffffffff}) + std::string(20, 'a'),
       {"4294967295", "2^64"}},
      {"ProductWrapsToNothing",
       header(0x08, {0x80000000, 0x80000000, 4}) + std::string(16, 'a'),
       {"2147483648", "2^64"}},
      {"CompressedAbsurdSize",
       compressed(header(0x08, {0x10000000}) + "abc"),
       {"[268435456]", "more than this file"}},
      {"CompressedShort", compressed(header(0x08, {8}) + "abcdefg"), {"truncated", "only 7"}},
      {"CompressedTrailing", compressed(good + "g"), {"bytes behind"}},
      {"CompressedCutOff", zipped.substr(0, zipped.size() / 2), {"damaged compressed data"}},
      {"CompressedWrongChecksum", wrong_checksum, {"damaged compressed data"}},
      {"CompressedDamaged", damaged, {"load_idx"}},
      {"CompressedHeaderAlone", zipped.substr(0, 10), {"load_idx"}},
  };
}

INSTANTIATE_TEST_SUITE_P(All, IdxBadFile, testing::ValuesIn(bad_files()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(IdxBadPath, NoSuchFile) {
  expect_error([] { load_idx("/nonexistent/images.gz"); },
               {"load_idx", "/nonexistent/images.gz", "no file"});
}

TEST(IdxBadPath, AFolder) {
  const TemporaryDirectory directory;
  expect_error([&] { load_idx(directory / "."); }, {"load_idx", "not a file"});
}

TEST(Idx, EveryPrefixOfAFileIsRefused) {
  const std::string plain = header(0x0B, {2, 2}) + "aabbccdd";
  const std::string zipped = compressed(plain);
  for (const std::string& whole : {plain, zipped}) {
    for (std::size_t length = 0; length < whole.size(); ++length) {
      EXPECT_THROW(load(whole.substr(0, length)), Error) << length << " of " << whole.size();
    }
  }
}

}  // namespace
}  // namespace tenon
