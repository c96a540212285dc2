// Random numbers for benchmarks.
#pragma once

#include "tenon/core/tensor.h"

namespace bench {

/// Normal random numbers of mean 0. Beyond four million they repeat: drawing them all on the host
/// would take longer than the benchmark. The period is prime, so that no two images are alike.
tenon::Tensor normal(const tenon::Shape& shape, double stddev, tenon::DType dtype,
                     tenon::Device device);

}  // namespace bench
