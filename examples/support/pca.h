// Principal component analysis, the best linear autoencoder: the yardstick for ours.
#pragma once

#include <cstdint>

#include "tenon/core/tensor.h"

namespace examples {

/// Mean squared error an element when the rows of `test` [M, D] are projected on the mean and the
/// first `components` principal components of the rows of `train` [N, D]. Computed in float64.
double pca_reconstruction_error(const tenon::Tensor& train, const tenon::Tensor& test,
                                std::int64_t components);

}  // namespace examples
