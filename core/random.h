// Random numbers: Philox 4x32-10, counter-based, so that a seed gives the same values on every
// device and for every number of threads.
#pragma once

#include <array>
#include <cstdint>

#include "tenon/core/tensor.h"

namespace tenon {

/// Four 32-bit words from a counter and a key (Salmon et al., "Parallel random numbers: as easy as
/// 1, 2, 3", SC 2011; ten rounds).
std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key);

/// A stream of random numbers: a seed and how many blocks of four words were used. Copyable; a
/// copy continues with the same numbers.
class Generator {
 public:
  explicit Generator(std::uint64_t seed = 0) : seed_(seed) {}

  std::uint64_t seed() const { return seed_; }
  /// Blocks of four 32-bit words drawn so far; with the seed, the whole state.
  std::uint64_t offset() const { return offset_; }
  void set_state(std::uint64_t seed, std::uint64_t offset) {
    seed_ = seed;
    offset_ = offset;
  }
  /// Reserves `blocks` and returns the first one's counter.
  std::uint64_t advance(std::uint64_t blocks) {
    const std::uint64_t first = offset_;
    offset_ += blocks;
    return first;
  }
  /// One uniform 32-bit word (uses a whole block).
  std::uint32_t next();

 private:
  std::uint64_t seed_;
  std::uint64_t offset_ = 0;
};

/// The generator of this thread that is used where none is given.
Generator& default_generator();
/// Restarts this thread's default generator.
void manual_seed(std::uint64_t seed);

// In place, on a floating tensor. Element i of the row-major order is made of word i mod 4 of block
// i / 4, in float64, and rounded to the dtype; values do not depend on the number of threads.

/// Uniform in [low, high): low + (high - low)·u, where u is the word's leading bits as a binary
/// fraction, as many as the dtype's significand has (32 for float64). The bounds are rounded to
/// the dtype first, and `high` is never returned unless it equals `low`.
void uniform_(const Tensor& tensor, double low, double high,
              Generator& generator = default_generator());
/// Normal, by Box and Muller: words a and b of a pair (0 and 1, or 2 and 3) give the radius
/// √(-2 ln((a + 1)/2³²)) and the angle 2π·b/2³², whose cosine makes the pair's first element and
/// whose sine makes the second.
void normal_(const Tensor& tensor, double mean, double stddev,
             Generator& generator = default_generator());
/// 1 with probability `p` (where word/2³² < p), otherwise 0.
void bernoulli_(const Tensor& tensor, double p, Generator& generator = default_generator());

}  // namespace tenon
