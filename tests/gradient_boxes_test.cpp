// Where the consumers of the fused backward look for the gradient of z in shared memory, against
// where the tensor memory accelerator puts it. No GPU is asked.
#include <gtest/gtest.h>

#ifdef TENON_WITH_CUDA

#include <algorithm>
#include <array>
#include <set>
#include <tuple>
#include <vector>

#include "tenon/ops/cuda/fused/kernel_config.h"

namespace tenon {
namespace {

using ops::cuda::GradientBox;
using ops::cuda::KernelConfig;
using ops::cuda::Work;

/// Columns of the tile, stride, bytes of an element.
using Parameters = std::tuple<int, int, int>;

KernelConfig config_of(int columns, int stride) {
  KernelConfig config{};
  config.channels = 64;
  config.row_phases = config.column_phases = config.stride = stride;
  config.blocks = 1;
  config.groups = 2;
  config.kernel = 3;
  config.columns = columns;
  config.work = Work::SumGradient;
  return config;
}

/// A number of the gradient of z, relative to the step's first.
struct Number {
  int channel;
  int row;
  int column;

  auto operator<=>(const Number&) const = default;
};

class GradientBoxes : public testing::TestWithParam<Parameters> {
 protected:
  const int columns_ = std::get<0>(GetParam());
  const int stride_ = std::get<1>(GetParam());
  const int item_ = std::get<2>(GetParam());
  const KernelConfig config_ = config_of(columns_, stride_);
  const GradientBox box_{config_, item_};

  /// The step as bulk copies leave it, an element at each multiple of an element's bytes. In CUDA's
  /// words: of patterns of 32, 64 and 128 bytes, bits 4.. of an address are exchanged with (xor) as
  /// many bits from bit 7 on.
  std::vector<Number> step() const {
    const int line = columns_ * stride_ * item_;
    const int bits = line >= 128 ? 3 : line == 64 ? 2 : line == 32 ? 1 : 0;
    std::vector<Number> memory(static_cast<std::size_t>(config_.gradient_step_bytes(item_) / item_),
                               Number{-1, -1, -1});
    const int rows = 64 / columns_ * stride_;
    const int box_columns = std::min(line, 128) / item_;
    int address = 0;
    for (int first = 0; first < columns_ * stride_; first += box_columns) {
      for (int row = 0; row < rows; ++row) {
        for (int channel = 0; channel < 8; ++channel) {
          for (int column = 0; column < box_columns; ++column, address += item_) {
            const int exchanged = address ^ ((address >> 7) & ((1 << bits) - 1)) << 4;
            memory.at(static_cast<std::size_t>(exchanged / item_)) = {channel, row, first + column};
          }
        }
      }
    }
    return memory;
  }

  /// Where a warp's lane reads row phase i of one of its channels.
  int address_of(int warp, int lane, int half, int odd, int i) const {
    const int even = box_.offset(warp * 16 + half * 8 + lane / 4, lane % 4 * 2);
    return (odd == 0 ? even : box_.next_channel(even)) + i * box_.row_bytes();
  }
};

TEST_P(GradientBoxes, FillAStep) {
  EXPECT_EQ(box_.count * box_.bytes(), config_.gradient_step_bytes(item_));
  EXPECT_LE(box_.columns, 256);  // what a box may have
  EXPECT_LE(box_.rows, 256);
  const std::vector<Number> memory = step();
  EXPECT_EQ(std::set<Number>(memory.begin(), memory.end()).size(), memory.size());
}

TEST_P(GradientBoxes, AreReadWhereTheyLie) {
  const std::vector<Number> memory = step();
  std::set<Number> read;
  for (int warp = 0; warp < 4; ++warp) {
    for (int lane = 0; lane < 32; ++lane) {
      for (int half = 0; half < 2; ++half) {
        const int position = warp * 16 + half * 8 + lane / 4;
        for (int odd = 0; odd < 2; ++odd) {
          for (int i = 0; i < stride_; ++i) {
            const int address = address_of(warp, lane, half, odd, i);
            ASSERT_EQ(address % (stride_ * item_), 0) << "a run is read at once";
            for (int k = 0; k < stride_; ++k) {
              const Number wanted{lane % 4 * 2 + odd, position / columns_ * stride_ + i,
                                  position % columns_ * stride_ + k};
              const Number& found = memory.at(static_cast<std::size_t>(address / item_ + k));
              ASSERT_EQ(found, wanted) << "channel " << found.channel << " row " << found.row
                                       << " column " << found.column << " for " << wanted.channel
                                       << ' ' << wanted.row << ' ' << wanted.column;
              EXPECT_TRUE(read.insert(wanted).second) << "read twice";
            }
          }
        }
      }
    }
  }
  EXPECT_EQ(read.size(), memory.size());
}

// Lanes that are served at once, of which there are as many as 128 bytes hold, must not want
// different words of one of the 32 banks; where lines are shorter than 128 bytes, at most two.
TEST_P(GradientBoxes, AreReadWithFewBankConflicts) {
  const std::size_t most = columns_ == 64 ? 1 : 2;
  const int run = stride_ * item_;
  const int together = std::min(32, 128 / run);
  for (int warp = 0; warp < 4; ++warp) {
    for (int half = 0; half < 2; ++half) {
      for (int first = 0; first < 32; first += together) {
        std::array<std::set<int>, 32> words;
        for (int lane = first; lane < first + together; ++lane) {
          const int address = address_of(warp, lane, half, 0, 0);
          for (int word = address / 4; word <= (address + run - 1) / 4; ++word) {
            words[static_cast<std::size_t>(word % 32)].insert(word);
          }
        }
        for (const std::set<int>& of_bank : words) EXPECT_LE(of_bank.size(), most);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, GradientBoxes,
                         testing::Combine(testing::Values(8, 64), testing::Values(1, 2),
                                          testing::Values(2, 4)),
                         [](const auto& info) {
                           return std::to_string(std::get<0>(info.param)) + "_columns_stride_" +
                                  std::to_string(std::get<1>(info.param)) + "_bytes_" +
                                  std::to_string(std::get<2>(info.param));
                         });

}  // namespace
}  // namespace tenon

#else

TEST(GradientBoxes, NeedCuda) { GTEST_SKIP() << "built without CUDA"; }

#endif
