#include "tenon/ops/cpu/dropout.h"

#include <algorithm>

#include "tenon/core/cpu/strided.h"
#include "tenon/core/random.h"

namespace tenon::ops::cpu {
namespace {

/// Philox blocks handed to one thread at a time.
constexpr std::int64_t kBlockGrain = 1 << 12;

}  // namespace

void keep_mask(const Tensor& mask, double p, std::uint64_t seed, std::uint64_t first_block) {
  std::uint8_t* out = mask.data<std::uint8_t>();
  const std::int64_t count = mask.numel();
  // A word below the threshold drops: of 2^32 equally likely words, p·2^32 are.
  const auto threshold = static_cast<std::uint64_t>(p * 0x1p32);
  parallel_for(0, (count + 3) / 4, kBlockGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t block = begin; block < end; ++block) {
      const std::uint64_t counter = first_block + static_cast<std::uint64_t>(block);
      const auto words = philox4x32(
          {static_cast<std::uint32_t>(counter), static_cast<std::uint32_t>(counter >> 32)},
          {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
      const std::int64_t used = std::min<std::int64_t>(4, count - 4 * block);
      for (std::int64_t i = 0; i < used; ++i) {
        out[4 * block + i] = words[static_cast<std::size_t>(i)] >= threshold ? 1 : 0;
      }
    }
  });
}

void mask_scale(const Tensor& x, const Tensor& mask, double scale, const Tensor& y) {
  visit_floating(x.dtype(), "mask_scale", [&]<class T>() {
    using Compute = compute_type<T>;
    const auto factor = static_cast<Compute>(scale);
    tenon::cpu::for_each_block<3>(
        x.shape(), {y, x, mask}, [&](std::int64_t count, const auto& blocks) {
          std::array<Compute, tenon::cpu::kBlock> values_buffer;
          std::array<Compute, tenon::cpu::kBlock> mask_buffer;
          std::array<Compute, tenon::cpu::kBlock> result_buffer;
          const Compute* values =
              tenon::cpu::load_block<T, Compute>(blocks[1], count, values_buffer.data());
          const Compute* kept =
              tenon::cpu::load_block<std::uint8_t, Compute>(blocks[2], count, mask_buffer.data());
          Compute* results = tenon::cpu::result_block<Compute, T>(blocks[0], result_buffer.data());
          for (std::int64_t i = 0; i < count; ++i) results[i] = values[i] * (kept[i] * factor);
          tenon::cpu::store_block<Compute, T>(blocks[0], count, results);
        });
  });
}

}  // namespace tenon::ops::cpu
