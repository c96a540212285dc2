// The program run_block: its results beside PyTorch's, and what it says to bad input.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tenon/core/factories.h"
#include "tenon/core/stream.h"
#include "tenon/nn/safetensors.h"

namespace tenon {
namespace {

namespace fs = std::filesystem;

/// What a program wrote to both of its outputs, and its exit status (-1 after a crash).
struct Outcome {
  int status = -1;
  std::string text;
};

Outcome run_block(const std::string& arguments) {
  const std::string command = std::string(TENON_RUN_BLOCK) + " " + arguments + " 2>&1";
  FILE* pipe = popen(command.c_str(), "r");
  Outcome outcome;
  if (pipe == nullptr) return outcome;
  std::array<char, 4096> buffer;
  while (const std::size_t count = std::fread(buffer.data(), 1, buffer.size(), pipe)) {
    outcome.text.append(buffer.data(), count);
  }
  const int status = pclose(pipe);
  if (WIFEXITED(status)) outcome.status = WEXITSTATUS(status);
  return outcome;
}

/// A folder for the files of one test.
class RunBlockTest : public testing::Test {
 protected:
  RunBlockTest() {
    const testing::TestInfo* test = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = fs::temp_directory_path() /
              ("tenon_run_block_" + std::to_string(getpid()) + "_" + test->name());
    fs::create_directories(folder_);
  }
  ~RunBlockTest() override { fs::remove_all(folder_); }

  std::string in() const { return (folder_ / "in.safetensors").string(); }
  std::string out() const { return (folder_ / "out.safetensors").string(); }
  std::string files() const { return "--in " + in() + " --out " + out(); }

  /// Runs a case and gives what it wrote.
  nn::TensorMap results(const nn::TensorMap& tensors, const nn::Metadata& metadata,
                        const std::string& options = "") const {
    nn::save_safetensors(in(), tensors, metadata);
    const Outcome outcome = run_block(files() + " " + options);
    EXPECT_EQ(outcome.status, 0) << outcome.text;
    return nn::load_safetensors(out()).tensors;
  }

  /// Expects exit status 1, one line that names the program and holds `part`, and no output file.
  void expect_refusal(const nn::TensorMap& tensors, const nn::Metadata& metadata,
                      const std::string& part, const std::string& options = "") const {
    nn::save_safetensors(in(), tensors, metadata);
    expect_refusal(files() + " " + options, part);
  }
  void expect_refusal(const std::string& arguments, const std::string& part) const {
    const Outcome outcome = run_block(arguments);
    EXPECT_EQ(outcome.status, 1) << outcome.text;
    EXPECT_EQ(outcome.text.rfind("run_block: ", 0), 0U) << outcome.text;
    EXPECT_NE(outcome.text.find(part), std::string::npos)
        << "'" << outcome.text << "' lacks '" << part << "'";
    EXPECT_EQ(std::count(outcome.text.begin(), outcome.text.end(), '\n'), 1) << outcome.text;
    EXPECT_FALSE(fs::exists(out()));
  }

 private:
  fs::path folder_;
};

/// ‖a − b‖ / ‖b‖; elements that are equal, or NaN in both, count as no difference.
double relative_error(const Tensor& a, const Tensor& b) {
  EXPECT_EQ(a.shape(), b.shape());
  const std::vector<double> x = a.to_vector<double>();
  const std::vector<double> y = b.to_vector<double>();
  double difference = 0;
  double norm = 0;
  for (std::size_t i = 0; i < y.size(); ++i) {
    if (x[i] == y[i] || (std::isnan(x[i]) && std::isnan(y[i]))) continue;
    difference += (x[i] - y[i]) * (x[i] - y[i]);
  }
  for (const double value : y) norm += std::isfinite(value) ? value * value : 0.0;
  return std::sqrt(difference) / std::sqrt(std::max(norm, 1e-300));
}

nn::TensorMap small_case() {
  Generator generator(3);
  return {{"x", randn({1, 2, 3, 4}, {}, generator)},
          {"weight", randn({2, 3, 3, 3}, {}, generator)},
          {"bias", randn({3}, {}, generator)}};
}

/// PyTorch's numbers as run_block's metadata.
nn::Metadata as_metadata(const nlohmann::json& attributes) {
  nn::Metadata metadata{{"min", "-inf"}, {"max", "inf"}};
  for (const auto& [key, value] : attributes.items()) {
    if (key == "gradient_at_bounds") continue;
    std::string text = value.dump();
    if (value.is_array()) text = value[0].dump() + "," + value[1].dump();
    if (key == "min") {
      metadata[0].second = text;
    } else if (key == "max") {
      metadata[1].second = text;
    } else {
      metadata.emplace_back(key, text);
    }
  }
  return metadata;
}

TEST_F(RunBlockTest, AgreesWithPyTorchForwardAndBackward) {
  const nn::SafeTensors golden =
      nn::load_safetensors(std::string(TENON_TEST_DATA) + "/golden/fused_block.safetensors");
  int cases = 0;
  for (const auto& entry : golden.metadata) {
    const nlohmann::json attributes = nlohmann::json::parse(entry.second);
    if (attributes.value("gradient_at_bounds", false)) continue;  // clamp's rule, not hardtanh's
    SCOPED_TRACE(entry.first);
    nn::TensorMap tensors;
    for (const char* name : {"x", "weight", "bias", "grad_out"}) {
      const auto found = golden.tensors.find(entry.first + "/" + name);
      if (found != golden.tensors.end()) tensors[name] = found->second;
    }
    for (const char* options : {"", "--no-fuse"}) {
      for (const auto& result : results(tensors, as_metadata(attributes), options)) {
        const Tensor& expected = golden.tensors.at(entry.first + "/" + result.first);
        EXPECT_LT(relative_error(result.second, expected), 1e-12) << result.first << options;
      }
    }
    ++cases;
  }
  EXPECT_GE(cases, 8);
}

TEST_F(RunBlockTest, WritesOnlyWhatWasAskedFor) {
  nn::TensorMap tensors = small_case();
  EXPECT_EQ(results(tensors, {}).size(), 1U);
  tensors["grad_out"] = ones({1, 3, 5, 6});
  EXPECT_EQ(results(tensors, {}).size(), 4U);
  tensors.erase("bias");
  const nn::TensorMap written = results(tensors, {});
  EXPECT_EQ(written.size(), 3U);
  EXPECT_EQ(written.count("grad_bias"), 0U);
}

TEST_F(RunBlockTest, OneNumberStandsForBothAndSpacesAreAllowed) {
  const nn::TensorMap once = results(small_case(), {{"stride", "2"}, {"add", "0.5"}});
  const nn::TensorMap twice = results(small_case(), {{"stride", " 2, 2 "}, {"add", "0.5"}});
  EXPECT_EQ(once.at("y").to_vector<double>(), twice.at("y").to_vector<double>());
  EXPECT_EQ(once.at("y").shape(), Shape({1, 3, 7, 9}));
}

TEST_F(RunBlockTest, ComputesInThePrecisionAskedFor) {
  EXPECT_EQ(results(small_case(), {}).at("y").dtype(), DType::Float32);
  EXPECT_EQ(results(small_case(), {}, "--precision float64").at("y").dtype(), DType::Float64);
  EXPECT_EQ(results(small_case(), {}, "--precision tf32").at("y").dtype(), DType::Float32);
  const Tensor reference = results(small_case(), {}, "--precision float64").at("y");
  const Tensor bfloat = results(small_case(), {}, "--precision bfloat16").at("y");
  const Tensor half = results(small_case(), {}, "--precision float16").at("y");
  EXPECT_EQ(bfloat.dtype(), DType::BFloat16);
  EXPECT_EQ(half.dtype(), DType::Float16);
  EXPECT_LT(relative_error(bfloat, reference), 2e-2);
  EXPECT_LT(relative_error(half, reference), 2e-3);
}

TEST_F(RunBlockTest, ExplainShowsBothGraphsAndTheReport) {
  nn::save_safetensors(in(), small_case(), {{"stride", "2"}});
  const Outcome fused = run_block(files() + " --explain");
  EXPECT_EQ(fused.status, 0);
  EXPECT_NE(fused.text.find("mish("), std::string::npos) << fused.text;
  EXPECT_NE(fused.text.find("conv_transpose2d_epilogue"), std::string::npos) << fused.text;
  const Outcome unfused = run_block(files() + " --explain --no-fuse");
  EXPECT_EQ(unfused.text.find("= conv_transpose2d_epilogue("), std::string::npos) << unfused.text;
}

TEST_F(RunBlockTest, SaysWhatMetadataMeansNothing) {
  nn::save_safetensors(in(), small_case(), {{"format", "pt"}, {"strides", "2"}});
  const Outcome outcome = run_block(files());
  EXPECT_EQ(outcome.status, 0);
  EXPECT_NE(outcome.text.find("\"strides\""), std::string::npos);
  EXPECT_EQ(outcome.text.find("format"), std::string::npos);
}

TEST_F(RunBlockTest, RefusesNumbersThatAreNone) {
  expect_refusal(small_case(), {{"stride", "two"}}, "stride");
  expect_refusal(small_case(), {{"stride", "2,"}}, "stride");
  expect_refusal(small_case(), {{"stride", "1,2,3"}}, "stride");
  expect_refusal(small_case(), {{"padding", "1.5"}}, "padding");
  expect_refusal(small_case(), {{"groups", ""}}, "groups");
  expect_refusal(small_case(), {{"scale", "0x"}}, "scale");
  expect_refusal(small_case(), {{"dilation", "99999999999999999999"}}, "dilation");
}

TEST_F(RunBlockTest, RefusesGeometryThatDoesNotFit) {
  expect_refusal(small_case(), {{"stride", "0"}}, "stride");
  expect_refusal(small_case(), {{"padding", "-1"}}, "padding");
  expect_refusal(small_case(), {{"padding", "9"}}, "conv_transpose2d");
  expect_refusal(small_case(), {{"groups", "2"}, {"output_padding", "1"}}, "output_padding");
  expect_refusal(small_case(), {{"groups", "3"}}, "groups");
  expect_refusal(small_case(), {{"stride", "4611686018427387904"}}, "conv_transpose2d");
}

TEST_F(RunBlockTest, RefusesBoundsInTheWrongOrder) {
  expect_refusal(small_case(), {{"min", "1"}, {"max", "1"}}, "min 1 must be below max 1");
  expect_refusal(small_case(), {{"min", "2"}, {"max", "-2"}}, "min 2 must be below max -2");
  expect_refusal(small_case(), {{"min", "nan"}}, "min nan");
}

TEST_F(RunBlockTest, RefusesTensorsThatAreMissingOrDoNotFit) {
  nn::TensorMap tensors = small_case();
  tensors.erase("weight");
  expect_refusal(tensors, {}, "no tensor \"weight\"");
  tensors = small_case();
  tensors.erase("x");
  expect_refusal(tensors, {}, "no tensor \"x\"");
  tensors = small_case();
  tensors["weight"] = ones({5, 3, 3, 3});
  expect_refusal(tensors, {}, "conv_transpose2d");
  tensors = small_case();
  tensors["bias"] = ones({4});
  expect_refusal(tensors, {}, "bias");
  tensors = small_case();
  tensors["grad_out"] = ones({1, 3, 5, 5});
  expect_refusal(tensors, {}, "[1, 3, 5, 5]");
  tensors = small_case();
  tensors["x"] = ones({1, 2, 3, 4}, {.dtype = DType::Int64});
  expect_refusal(tensors, {}, "int64");
  tensors = small_case();
  tensors["x"] = ones({3});
  expect_refusal(tensors, {}, "[3]");
}

TEST_F(RunBlockTest, RefusesFilesItCannotReadOrWrite) {
  expect_refusal("--in /nonexistent.safetensors --out " + out(), "/nonexistent.safetensors");
  std::ofstream(in()) << "this is no safetensors file";
  expect_refusal(files(), in());
  nn::save_safetensors(in(), small_case());
  expect_refusal("--in " + in() + " --out /nonexistent/out.safetensors", "/nonexistent");
}

TEST_F(RunBlockTest, RefusesOptionsItDoesNotKnow) {
  expect_refusal(files() + " --precision float8", "float8");
  expect_refusal(files() + " --speed", "--speed");
  expect_refusal("--in " + in(), "--out");
  expect_refusal(small_case(), {}, "toaster", "--device toaster");
}

TEST_F(RunBlockTest, AMachineWithoutCudaSaysSo) {
  if (cuda_device_count() > 0) GTEST_SKIP() << "there is a GPU: it would run";
  expect_refusal(small_case(), {}, "CUDA", "--device cuda");
}

}  // namespace
}  // namespace tenon
