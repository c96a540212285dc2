#include "tenon/nn/safetensors.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "tenon/core/factories.h"
#include "tenon/core/half.h"
#include "tenon/tests/support/matchers.h"
#include "tenon/tests/support/temporary_directory.h"

namespace tenon {
namespace {

using nn::load_safetensors;
using nn::Metadata;
using nn::SafeTensors;
using nn::save_safetensors;
using nn::TensorMap;
using test::expect_error;
using test::expect_values;
using test::read_file;
using test::TemporaryDirectory;
using test::write_file;

const std::string kGolden = std::string(TENON_TEST_DATA) + "/golden/";

/// The bytes of a file with that header, padded as the format pads, and `data` behind it.
std::string file_of(std::string header, const std::string& data = "") {
  header.append((8 - header.size() % 8) % 8, ' ');
  const std::uint64_t length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + data;
}

std::string with_length(std::uint64_t length, const std::string& rest) {
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + rest;
}

bool same_bytes(const Tensor& a, const Tensor& b) {
  return a.spec() == b.spec() &&
         std::memcmp(a.raw_data(), b.raw_data(),
                     static_cast<std::size_t>(a.numel()) * item_size(a.dtype())) == 0;
}

// ---- agreement with PyTorch ---------------------------------------------------------------------

class GoldenFile : public testing::TestWithParam<const char*> {};

TEST_P(GoldenFile, WrittenAgainIsTheSameByteForByte) {
  const TemporaryDirectory directory;
  const SafeTensors file = load_safetensors(kGolden + GetParam());
  ASSERT_FALSE(file.tensors.empty());
  save_safetensors(directory / "again", file.tensors, file.metadata);
  EXPECT_TRUE(read_file(directory / "again") == read_file(kGolden + GetParam()));
}

INSTANTIATE_TEST_SUITE_P(All, GoldenFile,
                         testing::Values("state_dict.safetensors", "model.safetensors",
                                         "model_output.safetensors", "convolution.safetensors",
                                         "fused_block.safetensors", "activation.safetensors"),
                         [](const auto& info) {
                           const std::string name = info.param;
                           return name.substr(0, name.find('.'));
                         });

TEST(Safetensors, ReadsWhatPyTorchWrote) {
  const SafeTensors file = load_safetensors(kGolden + "state_dict.safetensors");
  EXPECT_EQ(file.tensors.size(), 11u);
  ASSERT_NE(nn::find_metadata(file.metadata, "note"), nullptr);
  EXPECT_EQ(*nn::find_metadata(file.metadata, "note"),
            "quote \" backslash \\ newline \n unicode \u00e9");
  EXPECT_EQ(*nn::find_metadata(file.metadata, "format"), "pt");
  EXPECT_EQ(nn::find_metadata(file.metadata, "nothing"), nullptr);

  const TensorMap& tensors = file.tensors;
  constexpr auto kLowest = std::numeric_limits<std::int64_t>::min();
  constexpr auto kHighest = std::numeric_limits<std::int64_t>::max();
  EXPECT_EQ(tensors.at("steps").to_vector<std::int64_t>(),
            (std::vector<std::int64_t>{kLowest, -1, 0, kHighest}));
  EXPECT_EQ(tensors.at("num_batches_tracked").shape(), Shape{});
  EXPECT_EQ(tensors.at("num_batches_tracked").item<std::int64_t>(), 12345);
  EXPECT_EQ(tensors.at("empty").shape(), (Shape{0, 3}));
  EXPECT_EQ(tensors.at("empty").dtype(), DType::Float32);
  EXPECT_EQ(tensors.at("encoder.0.weight").shape(), (Shape{3, 2, 3, 3}));
  const std::vector<float> bias = tensors.at("encoder.0.bias").to_vector<float>();
  EXPECT_TRUE(std::signbit(bias[1]) && !std::signbit(bias[0]) && std::isinf(bias[2]));
  const std::vector<double> doubles = tensors.at("double").to_vector<double>();
  EXPECT_EQ(doubles[0], 3.141592653589793);
  EXPECT_TRUE(std::isnan(doubles[1]));
  EXPECT_EQ(doubles[3], 5e-324);
  EXPECT_EQ(tensors.at("bytes").dtype(), DType::UInt8);
  EXPECT_EQ(tensors.at("bytes").to_vector<std::uint8_t>()[15], 255);
  expect_values(tensors.at("mask"), {3, 4}, {1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0});
  for (std::int64_t i = 0; i < 12; ++i) {
    const float third = static_cast<float>(i - 6) / 3;
    EXPECT_EQ(static_cast<float>(tensors.at("half").data<float16>()[i]),
              static_cast<float>(float16(third)));
    EXPECT_EQ(static_cast<float>(tensors.at("brain").data<bfloat16>()[i]),
              static_cast<float>(bfloat16(third)));
  }
  expect_values(tensors.at("name with spaces \u00e9"), {1}, {1});
}

// ---- writing ------------------------------------------------------------------------------------

TEST(Safetensors, OrdersByTypeThenNameAndPadsTheHeader) {
  // The bytes that safetensors 0.8 writes for the same tensors.
  const TemporaryDirectory directory;
  save_safetensors(directory / "file",
                   {{"b", tensor<float>({1.0f})},
                    {"a", tensor<float>({2.0f})},
                    {"z", scalar_tensor(-1, {.dtype = DType::Int64})},
                    {"d", tensor<double>({0.5})},
                    {"c", tensor<std::uint8_t>({7, 8, 9})},
                    {"f", tensor<bool>({true, false})},
                    {"g", tensor<float>({1.0f}).to(DType::Float16)},
                    {"h", tensor<float>({1.0f}).to(DType::BFloat16)}},
                   {{"format", "pt"}});
  std::string data;
  data += std::string(8, '\xff');
  data += std::string("\0\0\0\0\0\0\xe0\x3f", 8);
  data += std::string("\0\0\0\x40\0\0\x80\x3f", 8);
  data += std::string("\x80\x3f\0\x3c", 4);
  data += std::string("\x07\x08\x09\x01\0", 5);
  EXPECT_EQ(read_file(directory / "file"),
            file_of(R"({"__metadata__":{"format":"pt"},)"
                    R"("z":{"dtype":"I64","shape":[],"data_offsets":[0,8]},)"
                    R"("d":{"dtype":"F64","shape":[1],"data_offsets":[8,16]},)"
                    R"("a":{"dtype":"F32","shape":[1],"data_offsets":[16,20]},)"
                    R"("b":{"dtype":"F32","shape":[1],"data_offsets":[20,24]},)"
                    R"("h":{"dtype":"BF16","shape":[1],"data_offsets":[24,26]},)"
                    R"("g":{"dtype":"F16","shape":[1],"data_offsets":[26,28]},)"
                    R"("c":{"dtype":"U8","shape":[3],"data_offsets":[28,31]},)"
                    R"("f":{"dtype":"BOOL","shape":[2],"data_offsets":[31,33]}})",
                    data));
}

TEST(Safetensors, WritesNamesAsJson) {
  const TemporaryDirectory directory;
  save_safetensors(directory / "file", {{"q\"\\\n\x01\x7f\u00e9", zeros({0})}});
  EXPECT_EQ(read_file(directory / "file"),
            file_of("{\"q\\\"\\\\\\n\\u0001\x7f\u00e9\":"
                    R"({"dtype":"F32","shape":[0],"data_offsets":[0,0]}})"));
  EXPECT_EQ(load_safetensors(directory / "file").tensors.count("q\"\\\n\x01\x7f\u00e9"), 1u);
}

TEST(Safetensors, NoTensorsMakeAValidFile) {
  const TemporaryDirectory directory;
  save_safetensors(directory / "file", {});
  EXPECT_EQ(read_file(directory / "file"), file_of("{}"));
  EXPECT_TRUE(load_safetensors(directory / "file").tensors.empty());
}

TEST(Safetensors, KeepsTheOrderOfMetadata) {
  const TemporaryDirectory directory;
  const Metadata metadata = {{"z", "1"}, {"a", ""}, {"m", "{}"}};
  save_safetensors(directory / "file", {{"x", zeros({2})}}, metadata);
  EXPECT_EQ(load_safetensors(directory / "file").metadata, metadata);
}

TEST(Safetensors, EveryDtypeComesBackBitForBit) {
  const TemporaryDirectory directory;
  TensorMap tensors;
  Generator generator(3);
  const Tensor draws = randn({3, 5, 7}, {.dtype = DType::Float64}, generator);
  for (DType dtype : {DType::Bool, DType::UInt8, DType::Int64, DType::Float16, DType::BFloat16,
                      DType::Float32, DType::Float64}) {
    tensors.emplace(std::string(name(dtype)), draws.to(dtype));
    tensors.emplace(std::string(name(dtype)) + ".empty", empty({2, 0, 3}, {.dtype = dtype}));
    tensors.emplace(std::string(name(dtype)) + ".scalar", zeros({}, {.dtype = dtype}));
  }
  save_safetensors(directory / "file", tensors);
  const SafeTensors file = load_safetensors(directory / "file");
  ASSERT_EQ(file.tensors.size(), tensors.size());
  for (const auto& item : tensors) {
    EXPECT_TRUE(same_bytes(item.second, file.tensors.at(item.first))) << item.first;
  }
}

TEST(Safetensors, WritesStridedTensorsInRowMajorOrder) {
  const TemporaryDirectory directory;
  const Tensor base = test::counting({2, 3, 4});
  save_safetensors(directory / "file", {{"transposed", base.transpose(0, 2)},
                                        {"sliced", base.slice(2, 1, 4, 2)},
                                        {"expanded", base.select(0, 0).select(0, 0).expand({2, 4})},
                                        {"leaf", zeros({1}, {.requires_grad = true})}});
  const SafeTensors file = load_safetensors(directory / "file");
  EXPECT_TRUE(same_bytes(file.tensors.at("transposed"), base.transpose(0, 2).contiguous()));
  EXPECT_TRUE(same_bytes(file.tensors.at("sliced"), base.slice(2, 1, 4, 2).contiguous()));
  expect_values(file.tensors.at("expanded"), {2, 4}, {0, 1, 2, 3, 0, 1, 2, 3});
  EXPECT_FALSE(file.tensors.at("leaf").requires_grad());
}

TEST(Safetensors, ReplacesAFileAtOnceAndLeavesNothingElse) {
  const TemporaryDirectory directory;
  save_safetensors(directory / "file", {{"x", zeros({3})}});
  save_safetensors(directory / "file", {{"x", ones({3})}});
  expect_values(load_safetensors(directory / "file").tensors.at("x"), {3}, {1, 1, 1});
  EXPECT_EQ(directory.count(), 1u);
}

TEST(Safetensors, AFailedSaveKeepsTheOldFile) {
  const TemporaryDirectory directory;
  save_safetensors(directory / "file", {{"x", ones({3})}});
  expect_error(
      [&] {
        save_safetensors(directory / "file", {{"x", Tensor()}});
      },
      {"save_safetensors", "file", "'x'", "undefined"});
  expect_values(load_safetensors(directory / "file").tensors.at("x"), {3}, {1, 1, 1});
  EXPECT_EQ(directory.count(), 1u);
}

TEST(SafetensorsBadSave, FolderThatDoesNotExist) {
  const TemporaryDirectory directory;
  expect_error(
      [&] {
        save_safetensors(directory / "no/file", {{"x", zeros({1})}});
      },
      {"save_safetensors", "no/file", "No such file"});
}

TEST(SafetensorsBadSave, PathOfAFolder) {
  const TemporaryDirectory directory;
  std::filesystem::create_directory(directory / "folder");
  expect_error(
      [&] {
        save_safetensors(directory / "folder", {{"x", zeros({1})}});
      },
      {"save_safetensors", "folder"});
  EXPECT_EQ(directory.count(), 1u);  // the temporary file is gone
}

TEST(SafetensorsBadSave, TheNameOfTheMetadata) {
  const TemporaryDirectory directory;
  expect_error(
      [&] {
        save_safetensors(directory / "f", {{"__metadata__", zeros({1})}});
      },
      {"save_safetensors", "__metadata__"});
  EXPECT_EQ(directory.count(), 0u);
}

TEST(SafetensorsBadSave, NamesThatAreNotUtf8) {
  const TemporaryDirectory directory;
  expect_error(
      [&] {
        save_safetensors(directory / "f", {{"a\xff", zeros({1})}});
      },
      {"save_safetensors", "not UTF-8", "a\xff"});
}

TEST(SafetensorsBadSave, AMetadataKeyThatComesTwice) {
  const TemporaryDirectory directory;
  expect_error(
      [&] {
        save_safetensors(directory / "f", {}, {{"k", "1"}, {"k", "2"}});
      },
      {"save_safetensors", "'k'", "twice"});
}

// ---- reading what is wrong ----------------------------------------------------------------------

/// A file that must be refused, and what the message must say besides the file's name.
struct BadFile {
  const char* name;
  std::string bytes;
  std::vector<std::string> message;
};

void PrintTo(const BadFile& file, std::ostream* out) { *out << file.name; }

class SafetensorsBadFile : public testing::TestWithParam<BadFile> {};

TEST_P(SafetensorsBadFile, IsRefusedWithASentence) {
  const TemporaryDirectory directory;
  const std::string path = directory / "bad.safetensors";
  write_file(path, GetParam().bytes);
  const std::int64_t before = memory_stats(Device::cpu()).in_use;
  std::vector<std::string> message = GetParam().message;
  message.insert(message.end(), {"load_safetensors", path});
  expect_error([&] { load_safetensors(path); }, message);
  EXPECT_EQ(memory_stats(Device::cpu()).in_use, before);
}

/// A header of one tensor "x".
std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"x":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets +
         "}}";
}

std::string two(const std::string& first, const std::string& second) {
  return R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)" + first +
         R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)" + second + "}}";
}

std::vector<BadFile> bad_files() {
  const std::string four(4, '\0');
  const std::string eight(8, '\0');
  const std::string good = one("\"F32\"", "[1]", "[0,4]");
  return {
      // lengths
      {"EmptyFile", "", {"0 bytes"}},
      {"ShorterThanItsLength", "1234567", {"7 bytes"}},
      {"HeaderBeyondTheFile", with_length(100, "{}"), {"100", "2 bytes left"}},
      {"HeaderLengthOverflows", with_length(~0ull, "{}"), {"18446744073709551615"}},
      {"HeaderLengthOverflowsWithEight", with_length(~0ull - 7, "{}"), {"18446744073709551608"}},
      {"HeaderAboveTheLimit", with_length(100'000'001, "{}"), {"100000001", "100000000"}},
      {"EmptyHeader", with_length(0, "{}      "), {"empty"}},
      // JSON
      {"HeaderBeginsWithSpace", file_of(" {}"), {"begin with '{'", "32"}},
      {"HeaderIsAList", file_of("[]"), {"begin with '{'", "91"}},
      {"HeaderIsCutOff", file_of(good.substr(0, good.size() - 2)), {"not JSON"}},
      {"TwoObjects", file_of("{}{}"), {"not JSON", "byte 3"}},
      {"NotUtf8", file_of("{\"a\xff\":1}"), {"not JSON in UTF-8", "byte 4"}},
      {"OverlongUtf8", file_of("{\"\xc0\xaf\":1}"), {"not JSON in UTF-8"}},
      {"LoneSurrogate", file_of(R"({"\ud800":1})"), {"not JSON"}},
      {"NulByte", file_of(std::string("{\"a\0\":1}", 8)), {"not JSON"}},
      {"DepthBombOfLists", file_of("{\"x\":" + std::string(1'000'000, '[')), {"'x'", "a list"}},
      {"DepthBombOfObjects",
       [] {
         std::string text = "{";
         for (int i = 0; i < 100'000; ++i) text += "\"x\":{";
         return file_of(text);
       }(),
       {"'x'", "unknown key"}},
      {"DepthBombInTheShape",
       file_of(one("\"F32\"", std::string(1'000'000, '['), "[0,4]")),
       {"'x'", "sizes", "a list"}},
      // types
      {"TensorIsANumber", file_of(R"({"x":3})"), {"'x'", "must be an object", "3"}},
      {"TensorIsAList", file_of(R"({"x":[]})"), {"'x'", "must be an object", "list"}},
      {"DtypeIsANumber", file_of(one("32", "[1]", "[0,4]"), four), {"'x'", "dtype", "32"}},
      {"DtypeIsNull", file_of(one("null", "[1]", "[0,4]"), four), {"'x'", "dtype", "null"}},
      {"ShapeIsANumber", file_of(one("\"F32\"", "1", "[0,4]"), four), {"'x'", "shape", "1"}},
      {"ShapeIsAnObject", file_of(one("\"F32\"", "{}", "[0,4]"), four), {"'x'", "an object"}},
      {"SizeIsNegative", file_of(one("\"F32\"", "[-1]", "[0,4]"), four), {"'x'", "sizes", "-1"}},
      {"SizeIsAFraction", file_of(one("\"F32\"", "[1.5]", "[0,4]"), four), {"'x'", "1.5"}},
      {"SizeIsAText", file_of(one("\"F32\"", "[\"1\"]", "[0,4]"), four), {"'x'", "text '1'"}},
      {"SizeIsTrue", file_of(one("\"F32\"", "[true]", "[0,4]"), four), {"'x'", "true"}},
      {"OffsetsAreAText", file_of(one("\"F32\"", "[1]", "\"0,4\""), four), {"'x'", "'0,4'"}},
      {"OffsetIsNegative", file_of(one("\"F32\"", "[1]", "[-4,0]"), four), {"'x'", "-4"}},
      {"OffsetIsHuge",
       file_of(one("\"F32\"", "[1]", "[0,18446744073709551616]"), four),
       {"'x'", "18446744073709551616"}},
      {"OneOffset", file_of(one("\"F32\"", "[1]", "[4]"), four), {"'x'", "1 number"}},
      {"ThreeOffsets", file_of(one("\"F32\"", "[1]", "[0,4,4]"), four), {"'x'", "3 number"}},
      {"MetadataIsAText", file_of(R"({"__metadata__":"a"})"), {"__metadata__", "'a'"}},
      {"MetadataOfANumber", file_of(R"({"__metadata__":{"k":1}})"), {"'k'", "text", "1"}},
      {"MetadataOfAnObject", file_of(R"({"__metadata__":{"k":{}}})"), {"'k'", "an object"}},
      // keys
      {"NameTwice",
       file_of(R"({"x":{"dtype":"U8","shape":[],"data_offsets":[0,1]},)"
               R"("x":{"dtype":"U8","shape":[],"data_offsets":[1,2]}})",
               "ab"),
       {"'x'", "twice"}},
      {"MetadataTwice", file_of(R"({"__metadata__":{},"__metadata__":{}})"), {"twice"}},
      {"MetadataKeyTwice", file_of(R"({"__metadata__":{"k":"","k":""}})"), {"'k'", "twice"}},
      {"DtypeTwice",
       file_of(R"({"x":{"dtype":"U8","dtype":"U8","shape":[],"data_offsets":[0,1]}})", "a"),
       {"'x'", "'dtype' comes twice"}},
      {"NoDtype", file_of(R"({"x":{"shape":[],"data_offsets":[0,4]}})", four), {"no dtype"}},
      {"NoShape", file_of(R"({"x":{"dtype":"F32","data_offsets":[0,4]}})", four), {"no shape"}},
      {"NoOffsets", file_of(R"({"x":{"dtype":"F32","shape":[]}})"), {"no data_offsets"}},
      {"UnknownKey",
       file_of(R"({"x":{"dtype":"F32","shape":[],"data_offsets":[0,4],"extra":1}})", four),
       {"'x'", "'extra'"}},
      // dtypes
      {"Int8", file_of(one("\"I8\"", "[4]", "[0,4]"), four), {"'x'", "'I8'", "not supported"}},
      {"Int32", file_of(one("\"I32\"", "[1]", "[0,4]"), four), {"'x'", "'I32'"}},
      {"Float8", file_of(one("\"F8_E4M3\"", "[4]", "[0,4]"), four), {"'x'", "'F8_E4M3'"}},
      {"UnknownDtype", file_of(one("\"float\"", "[1]", "[0,4]"), four), {"'x'", "'float'"}},
      // shapes and offsets
      {"TooManyDimensions",
       file_of(one("\"F32\"", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), four),
       {"'x'", "more than 8"}},
      {"SizeAboveInt64",
       file_of(one("\"F32\"", "[9223372036854775808]", "[0,4]"), four),
       {"'x'", "9223372036854775808"}},
      {"ProductOverflows",
       file_of(one("\"F32\"", "[4294967296,4294967296,4294967296]", "[0,4]"), four),
       {"'x'", "4294967296", "2^63"}},
      {"ProductWrapsToTheSize",
       file_of(one("\"F32\"", "[4611686018427387905]", "[0,4]"), four),
       {"'x'", "4611686018427387905"}},
      {"FewerBytesThanTheShape",
       file_of(one("\"F32\"", "[2]", "[0,4]"), four),
       {"'x'", "4 bytes", "takes 8"}},
      {"MoreBytesThanTheShape",
       file_of(one("\"F32\"", "[1]", "[0,8]"), eight),
       {"'x'", "8 bytes", "takes 4"}},
      {"EndBeforeBegin",
       file_of(one("\"F32\"", "[1]", "[4,0]"), four),
       {"'x'", "[4, 0]", "end before"}},
      {"BeyondTheFile",
       file_of(one("\"F32\"", "[2]", "[0,8]"), four),
       {"'x'", "[0, 8]", "beyond the 4 bytes"}},
      {"OffsetsNearTheMaximum",
       file_of(one("\"F32\"", "[1]", "[18446744073709551612,18446744073709551615]"), four),
       {"'x'", "18446744073709551615", "beyond"}},
      {"GapAtTheFront", file_of(one("\"F32\"", "[1]", "[4,8]"), eight), {"'x'", "gap of 4"}},
      {"GapBetween", file_of(two("[0,4]", "[5,9]"), eight + "a"), {"'b'", "gap of 1"}},
      {"Overlap", file_of(two("[0,4]", "[2,6]"), eight.substr(2)), {"'b'", "overlap", "4"}},
      {"SameBytesTwice", file_of(two("[0,4]", "[0,4]"), four), {"overlap"}},
      {"TrailingBytes", file_of(good, four + "abc"), {"3 bytes", "belong to none"}},
      {"DataWithoutTensors", file_of("{}", four), {"4 bytes", "belong to none"}},
      {"Truncated", file_of(good, "abc"), {"'x'", "beyond the 3 bytes"}},
      {"BoolOfTwo",
       file_of(one("\"BOOL\"", "[3]", "[0,3]"), std::string("\0\1\2", 3)),
       {"'x'", "element 2", "is 2"}},
  };
}

INSTANTIATE_TEST_SUITE_P(All, SafetensorsBadFile, testing::ValuesIn(bad_files()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(SafetensorsBadPath, NoSuchFile) {
  expect_error([] { load_safetensors("/nonexistent/weights.safetensors"); },
               {"load_safetensors", "/nonexistent/weights.safetensors", "no file"});
}

TEST(SafetensorsBadPath, AFolder) {
  const TemporaryDirectory directory;
  expect_error([&] { load_safetensors(directory / "."); }, {"load_safetensors", "not a file"});
}

TEST(Safetensors, ReadsEntriesInAnyOrder) {
  const TemporaryDirectory directory;
  write_file(directory / "file", file_of(two("[4,8]", "[0,4]"), "bbbbaaaa"));
  const SafeTensors file = load_safetensors(directory / "file");
  expect_values(file.tensors.at("a"), {4}, {97, 97, 97, 97});
  expect_values(file.tensors.at("b"), {4}, {98, 98, 98, 98});
}

TEST(Safetensors, EveryPrefixOfAFileIsRefused) {
  const TemporaryDirectory directory;
  const std::string whole = file_of(two("[0,4]", "[4,8]"), "aaaabbbb");
  for (std::size_t length = 0; length < whole.size(); ++length) {
    write_file(directory / "file", whole.substr(0, length));
    EXPECT_THROW(load_safetensors(directory / "file"), Error) << length;
  }
}

TEST(Safetensors, NoDamagedByteOfTheHeaderCrashes) {
  const TemporaryDirectory directory;
  const std::string whole = file_of(two("[0,4]", "[4,8]"), "aaaabbbb");
  for (std::size_t at = 0; at < whole.size() - 8; ++at) {
    for (const char byte : {'\0', '"', '9', '\xff', '}'}) {
      std::string damaged = whole;
      damaged[at] = byte;
      write_file(directory / "file", damaged);
      try {
        load_safetensors(directory / "file");  // a changed name or shape may still be valid
      } catch (const Error& error) {
        EXPECT_NE(std::string(error.what()).find("load_safetensors"), std::string::npos);
      }
    }
  }
}

}  // namespace
}  // namespace tenon
