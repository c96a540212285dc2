// The highest peer: what an expert builds from cuDNN, and the pointwise passes by themselves.
#pragma once

#include <cstddef>
#include <vector>

#include "paths.h"

namespace bench {

#ifdef TENON_WITH_CUDA

/// In both memory formats the fastest of all cuDNN plans for each convolution, and their
/// composition with one pointwise pass forward (and one backward, for training); and for a forward
/// alone cuDNN's own fusion of the whole block, by the fastest of its first `most_fusion_plans`
/// plans (of all when that is 0). Only for problems on a GPU.
std::vector<Row> expert_rows(const Problem& problem, std::size_t most_fusion_plans);

/// The pointwise pass that follows a convolution, alone; for training that of the backward too; and
/// the conversions between the memory formats where Tenon's convolutions need them.
std::vector<Row> pass_rows(const Problem& problem);

#else

inline std::vector<Row> expert_rows(const Problem&, std::size_t) { return {}; }
inline std::vector<Row> pass_rows(const Problem&) { return {}; }

#endif

}  // namespace bench
