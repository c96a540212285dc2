#include "tenon/nn/idx.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <vector>

#include "tenon/core/factories.h"

namespace tenon::data {
namespace {

/// Deflate cannot shrink data to less than this part of its size (zlib, technical details).
constexpr std::uint64_t kLargestRatio = 1032;

/// Bytes converted at a time.
constexpr std::size_t kChunk = std::size_t{1} << 20;

/// A file that zlib reads, compressed or not.
class GzipFile {
 public:
  explicit GzipFile(const std::string& path) : path_(path), file_(nullptr, gzclose) {
    std::error_code error;
    TENON_CHECK(std::filesystem::exists(path, error), "load_idx: there is no file '", path, "'");
    TENON_CHECK(std::filesystem::is_regular_file(path, error), "load_idx: '", path,
                "' is not a file");
    size_ = std::filesystem::file_size(path, error);
    file_.reset(gzopen(path.c_str(), "rb"));
    TENON_CHECK(file_ != nullptr && !error, "load_idx: cannot open '", path,
                "': ", std::strerror(errno));
  }

  /// Most bytes that can come out of it.
  std::uint64_t largest_content() const {
    return gzdirect(file_.get()) != 0 ? size_ : size_ * kLargestRatio;
  }

  /// Reads up to `bytes`; fewer only at the end. Throws when the compressed data are damaged.
  std::size_t read(void* target, std::size_t bytes) {
    std::size_t done = 0;
    while (done < bytes) {
      const auto piece = static_cast<unsigned>(std::min(bytes - done, std::size_t{1} << 30));
      const int count = gzread(file_.get(), static_cast<char*>(target) + done, piece);
      if (count <= 0) break;
      done += static_cast<std::size_t>(count);
    }
    int code = Z_OK;
    const char* message = gzerror(file_.get(), &code);
    TENON_CHECK(code == Z_OK || code == Z_STREAM_END, "load_idx: '", path_,
                "': damaged compressed data behind byte ", position_ + done, ": ",
                code == Z_ERRNO ? std::strerror(errno) : message);
    position_ += done;
    return done;
  }

 private:
  const std::string& path_;
  std::unique_ptr<gzFile_s, int (*)(gzFile)> file_;
  std::uint64_t size_ = 0;
  std::uint64_t position_ = 0;
};

/// What one type code means: the bytes of an element in the file, and the dtype it becomes.
struct ElementType {
  std::size_t bytes;
  DType dtype;
};

ElementType element_type(const std::string& path, int code) {
  switch (code) {
    case 0x08:
      return {1, DType::UInt8};
    case 0x09:
      return {1, DType::Int64};
    case 0x0B:
      return {2, DType::Int64};
    case 0x0C:
      return {4, DType::Int64};
    case 0x0D:
      return {4, DType::Float32};
    case 0x0E:
      return {8, DType::Float64};
    default:
      detail::fail(detail::concat("load_idx: '", path, "': unknown element type ", code,
                                  " (known are 8, 9, 11, 12, 13 and 14)"));
  }
}

std::uint64_t big_endian(const std::uint8_t* bytes, std::size_t count) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < count; ++i) value = value << 8 | bytes[i];
  return value;
}

/// Converts `count` elements of the file's type `code` into `target`.
void convert(int code, const std::uint8_t* source, std::int64_t count, void* target) {
  const auto each = [&](auto* out, std::size_t bytes, auto element) {
    for (std::int64_t i = 0; i < count; ++i) {
      out[i] = element(big_endian(source + static_cast<std::size_t>(i) * bytes, bytes));
    }
  };
  auto* integers = static_cast<std::int64_t*>(target);
  switch (code) {
    case 0x08:
      std::memcpy(target, source, static_cast<std::size_t>(count));
      break;
    case 0x09:
      each(integers, 1, [](std::uint64_t v) { return static_cast<std::int8_t>(v); });
      break;
    case 0x0B:
      each(integers, 2, [](std::uint64_t v) { return static_cast<std::int16_t>(v); });
      break;
    case 0x0C:
      each(integers, 4, [](std::uint64_t v) { return static_cast<std::int32_t>(v); });
      break;
    case 0x0D:  // bit patterns: a NaN keeps its own
      each(static_cast<std::uint32_t*>(target), 4,
           [](std::uint64_t v) { return static_cast<std::uint32_t>(v); });
      break;
    default:
      each(static_cast<std::uint64_t*>(target), 8, [](std::uint64_t v) { return v; });
      break;
  }
}

/// Reads the header's sizes and checks that the file can hold what they promise.
Shape read_shape(GzipFile& file, const std::string& path, std::size_t dims,
                 std::size_t element_bytes) {
  TENON_CHECK(dims >= 1 && dims <= kMaxDims, "load_idx: '", path, "': ", dims,
              " dimensions, must be 1 to ", kMaxDims);
  std::array<std::uint8_t, 4 * kMaxDims> bytes{};
  const std::size_t got = file.read(bytes.data(), 4 * dims);
  TENON_CHECK(got == 4 * dims, "load_idx: '", path, "': the sizes of ", dims, " dimensions take ",
              4 * dims, " bytes, only ", got, " are there");
  Shape shape;
  for (std::size_t i = 0; i < dims; ++i) {
    shape.push_back(static_cast<std::int64_t>(big_endian(&bytes[4 * i], 4)));
  }
  std::uint64_t total = element_bytes;
  bool overflow = false;
  for (std::int64_t size : shape) {
    overflow = overflow || __builtin_mul_overflow(total, static_cast<std::uint64_t>(size), &total);
  }
  TENON_CHECK(!overflow, "load_idx: '", path, "': sizes ", shape, " take more than 2^64 bytes");
  TENON_CHECK(total <= file.largest_content(), "load_idx: '", path, "': sizes ", shape, " take ",
              total, " bytes, more than this file can hold");
  return shape;
}

}  // namespace

Tensor load_idx(const std::string& path) {
  GzipFile file(path);
  std::array<std::uint8_t, 4> magic{};
  const std::size_t got = file.read(magic.data(), magic.size());
  TENON_CHECK(got == magic.size(), "load_idx: '", path, "' is too short: ", got,
              " bytes, an IDX file begins with 4");
  TENON_CHECK(magic[0] == 0 && magic[1] == 0, "load_idx: '", path,
              "' is not an IDX file: it must begin with two zero bytes, got ",
              static_cast<int>(magic[0]), " and ", static_cast<int>(magic[1]));
  const int code = magic[2];
  const ElementType type = element_type(path, code);
  const Shape shape = read_shape(file, path, magic[3], type.bytes);

  const Tensor result = empty(shape, {.dtype = type.dtype});
  const auto total = static_cast<std::uint64_t>(result.numel()) * type.bytes;
  auto* target = static_cast<std::byte*>(result.raw_data());
  std::vector<std::uint8_t> chunk(std::min<std::uint64_t>(kChunk, total));
  for (std::uint64_t done = 0; done < total;) {
    const std::uint64_t wanted = std::min<std::uint64_t>(kChunk, total - done);
    const std::size_t count = file.read(chunk.data(), wanted);
    TENON_CHECK(count == wanted, "load_idx: '", path, "' is truncated: sizes ", shape, " take ",
                total, " bytes, only ", done + count, " are there");
    const auto elements = static_cast<std::int64_t>(count / type.bytes);
    convert(code, chunk.data(), elements, target);
    target += static_cast<std::size_t>(elements) * item_size(type.dtype);
    done += count;
  }
  // Reading past the end also makes zlib compare the checksum.
  std::uint8_t extra = 0;
  TENON_CHECK(file.read(&extra, 1) == 0, "load_idx: '", path, "' has bytes behind its ", total,
              " bytes of elements");
  return result;
}

}  // namespace tenon::data
