#include "tenon/nn/safetensors_header.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <nlohmann/json.hpp>
#include <unordered_set>
#include <utility>

#include "tenon/core/error.h"

namespace tenon::nn::detail {
namespace {

using tenon::detail::concat;
using tenon::detail::fail;
using Json = nlohmann::json;

struct FormatName {
  const char* name;
  DType dtype;
};

constexpr std::array<FormatName, 7> kFormatNames = {{{"BOOL", DType::Bool},
                                                     {"U8", DType::UInt8},
                                                     {"I64", DType::Int64},
                                                     {"F16", DType::Float16},
                                                     {"BF16", DType::BFloat16},
                                                     {"F32", DType::Float32},
                                                     {"F64", DType::Float64}}};

/// `text` in quotes, shortened: a hostile file may hold names of megabytes.
std::string in_quotes(const std::string& text) {
  constexpr std::size_t kLongest = 80;
  if (text.size() <= kLongest) return concat("'", text, "'");
  return concat("'", text.substr(0, kLongest), "…' (", text.size(), " bytes)");
}

/// Takes the parser's events one by one, so that a wrong type, a key that comes twice or an
/// object within an object is reported where it stands, and nothing that the format does not know
/// is ever stored.
class HeaderParser : public nlohmann::json_sax<Json> {
 public:
  explicit HeaderParser(const std::string& path) : path_(path) {}

  Header take() { return std::move(header_); }

  bool start_object(std::size_t) override {
    switch (state_) {
      case State::Begin:
        state_ = State::Names;
        return true;
      case State::MetadataValue:
        state_ = State::MetadataKeys;
        return true;
      case State::TensorValue:
        state_ = State::Fields;
        return true;
      default:
        wrong("an object");
    }
  }

  bool key(string_t& key) override {
    switch (state_) {
      case State::Names:
        once(names_, key, "name");
        if (key == "__metadata__") {
          state_ = State::MetadataValue;
        } else {
          entry_ = {};
          entry_.name = key;
          has_dtype_ = has_shape_ = has_offsets_ = false;
          state_ = State::TensorValue;
        }
        return true;
      case State::MetadataKeys:
        once(metadata_keys_, key, "metadata key");
        header_.metadata.emplace_back(key, "");
        state_ = State::MetadataText;
        return true;
      default:  // the parser gives keys inside objects only: State::Fields
        field(key);
        return true;
    }
  }

  bool end_object() override {
    switch (state_) {
      case State::Names:
        state_ = State::End;
        return true;
      case State::MetadataKeys:
        state_ = State::Names;
        return true;
      default:
        finish_entry();
        state_ = State::Names;
        return true;
    }
  }

  bool start_array(std::size_t) override {
    if (state_ == State::ShapeValue) {
      state_ = State::ShapeItems;
    } else if (state_ == State::OffsetsValue) {
      state_ = State::OffsetItems;
      offset_count_ = 0;
    } else {
      wrong("a list");
    }
    return true;
  }

  bool end_array() override {
    if (state_ == State::OffsetItems) {
      check(offset_count_ == 2, "data_offsets must be [begin, end], got ", offset_count_,
            " number(s)");
    }
    state_ = State::Fields;
    return true;
  }

  bool string(string_t& value) override {
    if (state_ == State::MetadataText) {
      header_.metadata.back().second = value;
      state_ = State::MetadataKeys;
    } else if (state_ == State::DtypeValue) {
      entry_.dtype = parse_format_name(value);
      state_ = State::Fields;
    } else {
      wrong(concat("the text ", in_quotes(value)));
    }
    return true;
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (state_ == State::ShapeItems) {
      check(value <= static_cast<std::uint64_t>(INT64_MAX), "size ", value, " is too large");
      check(entry_.shape.size() < kMaxDims, "shape has more than ", kMaxDims, " dimensions");
      entry_.shape.push_back(static_cast<std::int64_t>(value));
    } else if (state_ == State::OffsetItems) {
      if (offset_count_ == 0) entry_.begin = value;
      if (offset_count_ == 1) entry_.end = value;
      ++offset_count_;
    } else {
      wrong(concat("the number ", value));
    }
    return true;
  }

  bool number_integer(number_integer_t value) override { wrong(concat("the number ", value)); }
  bool number_float(number_float_t, const string_t& text) override {
    wrong(concat("the number ", text.size() > 80 ? text.substr(0, 80) + "…" : text));
  }
  bool null() override { wrong("null"); }
  bool boolean(bool value) override { wrong(value ? "true" : "false"); }
  bool binary(binary_t&) override { wrong("binary data"); }

  bool parse_error(std::size_t position, const std::string& /*token*/,
                   const nlohmann::detail::exception& error) override {
    // Without the library's error number, and without the file's bytes run amok.
    std::string what = error.what();
    if (const std::size_t bracket = what.find("] "); bracket != std::string::npos) {
      what = what.substr(bracket + 2);
    }
    fail(concat(file(), "the header is not JSON in UTF-8 at byte ", position,
                " of it: ", what.substr(0, 200)));
  }

 private:
  enum class State {
    Begin,          // before the header's {
    Names,          // inside it
    MetadataValue,  // after "__metadata__":
    MetadataKeys,
    MetadataText,
    TensorValue,  // after a tensor's name
    Fields,       // inside its object
    DtypeValue,
    ShapeValue,
    ShapeItems,
    OffsetsValue,
    OffsetItems,
    End,
  };

  std::string file() const { return concat("load_safetensors: '", path_, "': "); }

  /// `check` inside a tensor's object.
  template <class... Parts>
  void check(bool condition, const Parts&... parts) const {
    if (!condition) fail(concat(file(), "tensor ", in_quotes(entry_.name), ": ", parts...));
  }

  void once(std::unordered_set<std::string>& seen, const std::string& key, const char* kind) const {
    if (!seen.insert(key).second) fail(concat(file(), kind, " ", in_quotes(key), " comes twice"));
  }

  void field(const std::string& key) {
    if (key == "dtype") {
      check(!std::exchange(has_dtype_, true), "key 'dtype' comes twice");
      state_ = State::DtypeValue;
    } else if (key == "shape") {
      check(!std::exchange(has_shape_, true), "key 'shape' comes twice");
      state_ = State::ShapeValue;
    } else if (key == "data_offsets") {
      check(!std::exchange(has_offsets_, true), "key 'data_offsets' comes twice");
      state_ = State::OffsetsValue;
    } else {
      check(false, "unknown key ", in_quotes(key), " (known are dtype, shape and data_offsets)");
    }
  }

  void finish_entry() {
    check(has_dtype_, "has no dtype");
    check(has_shape_, "has no shape");
    check(has_offsets_, "has no data_offsets");
    header_.entries.push_back(std::move(entry_));
  }

  DType parse_format_name(const std::string& text) const {
    for (const FormatName& known : kFormatNames) {
      if (text == known.name) return known.dtype;
    }
    check(false, "dtype ", in_quotes(text),
          " is not supported (BOOL, U8, I64, F16, BF16, F32 and F64 are)");
    return DType::Float32;
  }

  /// A value of a kind that cannot stand here.
  [[noreturn]] void wrong(const std::string& got) const {
    const auto in_entry = [&](const char* what) {
      fail(concat(file(), "tensor ", in_quotes(entry_.name), ": ", what, ", got ", got));
    };
    switch (state_) {
      case State::MetadataValue:
        fail(concat(file(), "__metadata__ must be an object, got ", got));
      case State::MetadataText:
        fail(concat(file(), "metadata ", in_quotes(header_.metadata.back().first),
                    " must be a text, got ", got));
      case State::TensorValue:
        in_entry("must be an object");
        break;
      case State::DtypeValue:
        in_entry("dtype must be a text");
        break;
      case State::ShapeValue:
        in_entry("shape must be a list");
        break;
      case State::ShapeItems:
        in_entry("sizes must be non-negative 64-bit integers");
        break;
      case State::OffsetsValue:
        in_entry("data_offsets must be a list");
        break;
      case State::OffsetItems:
        in_entry("data_offsets must be non-negative 64-bit integers");
        break;
      default:
        break;
    }
    fail(concat(file(), "the header must be a JSON object, got ", got));
  }

  const std::string& path_;
  State state_ = State::Begin;
  Header header_;
  TensorEntry entry_;  // the one being read
  bool has_dtype_ = false;
  bool has_shape_ = false;
  bool has_offsets_ = false;
  int offset_count_ = 0;
  std::unordered_set<std::string> names_;
  std::unordered_set<std::string> metadata_keys_;
};

/// Bytes that `entry`'s dtype and shape ask for; false when they exceed 64 bits.
bool expected_bytes(const TensorEntry& entry, std::uint64_t* bytes) {
  *bytes = item_size(entry.dtype);
  // A size of 0 empties the tensor however large the others are.
  if (std::find(entry.shape.begin(), entry.shape.end(), 0) != entry.shape.end()) {
    *bytes = 0;
    return true;
  }
  for (std::int64_t size : entry.shape) {
    if (__builtin_mul_overflow(*bytes, static_cast<std::uint64_t>(size), bytes)) return false;
  }
  return *bytes <= static_cast<std::uint64_t>(INT64_MAX);
}

void check_layout(const std::string& path, Header& header, std::uint64_t data_bytes) {
  std::stable_sort(header.entries.begin(), header.entries.end(),
                   [](const TensorEntry& a, const TensorEntry& b) {
                     return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
                   });
  std::uint64_t covered = 0;
  for (const TensorEntry& entry : header.entries) {
    const std::string where =
        concat("load_safetensors: '", path, "': tensor ", in_quotes(entry.name), ": ");
    const std::string offsets = concat("data_offsets [", entry.begin, ", ", entry.end, "]");
    TENON_CHECK(entry.begin <= entry.end, where, offsets, " end before they begin");
    TENON_CHECK(entry.end <= data_bytes, where, offsets, " reach beyond the ", data_bytes,
                " bytes that follow the header");
    TENON_CHECK(entry.begin >= covered, where, offsets, " overlap another tensor, which ends at ",
                covered);
    TENON_CHECK(entry.begin == covered, where, offsets, " leave a gap of ", entry.begin - covered,
                " bytes behind byte ", covered);
    std::uint64_t expected = 0;
    TENON_CHECK(expected_bytes(entry, &expected), where, "shape ", entry.shape, " of ",
                format_name(entry.dtype), " takes more than 2^63 bytes");
    TENON_CHECK(entry.end - entry.begin == expected, where, offsets, " hold ",
                entry.end - entry.begin, " bytes but shape ", entry.shape, " of ",
                format_name(entry.dtype), " takes ", expected);
    covered = entry.end;
  }
  TENON_CHECK(covered == data_bytes, "load_safetensors: '", path, "': ", data_bytes - covered,
              " bytes behind the last tensor belong to none (the file is ", data_bytes,
              " bytes long after its header)");
}

}  // namespace

const char* format_name(DType dtype) {
  for (const FormatName& known : kFormatNames) {
    if (known.dtype == dtype) return known.name;
  }
  fail(concat("save_safetensors: no name for dtype ", dtype));
}

Header parse_header(const std::string& path, const std::string& text, std::uint64_t data_bytes) {
  TENON_CHECK(!text.empty() && text[0] == '{', "load_safetensors: '", path,
              "': the header must begin with '{'",
              text.empty() ? ", it is empty"
                           : concat(", it begins with byte ",
                                    static_cast<int>(static_cast<unsigned char>(text[0]))));
  HeaderParser parser(path);
  Json::sax_parse(text, &parser);
  Header header = parser.take();
  check_layout(path, header, data_bytes);
  return header;
}

std::string format_header(const std::string& path, const Header& header) {
  // By hand: a Json object would sort its keys, and the order of the entries is the format's.
  const auto text = [&](const std::string& value) {
    try {
      return Json(value).dump();
    } catch (const Json::exception&) {
      fail(concat("save_safetensors: '", path, "': the text ", in_quotes(value), " is not UTF-8"));
    }
  };
  std::string out = "{";
  const auto separate = [&out] {
    if (out.back() != '{') out += ',';
  };
  if (!header.metadata.empty()) {
    out += "\"__metadata__\":{";
    for (const std::pair<std::string, std::string>& item : header.metadata) {
      separate();
      out += text(item.first) + ":" + text(item.second);
    }
    out += "}";
  }
  for (const TensorEntry& entry : header.entries) {
    separate();
    out += text(entry.name) + ":{\"dtype\":\"" + format_name(entry.dtype) + "\",\"shape\":[";
    for (std::size_t i = 0; i < entry.shape.size(); ++i) {
      if (i > 0) out += ',';
      out += std::to_string(entry.shape[i]);
    }
    out += "],\"data_offsets\":[" + std::to_string(entry.begin) + "," + std::to_string(entry.end) +
           "]}";
  }
  out += '}';
  out.append((8 - out.size() % 8) % 8, ' ');
  return out;
}

}  // namespace tenon::nn::detail
