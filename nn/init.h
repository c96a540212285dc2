// Initial values of parameters, as torch.nn.init draws them.
#pragma once

#include "tenon/core/random.h"
#include "tenon/core/tensor.h"

namespace tenon::nn::init {

/// Inputs and outputs of one unit of a weight.
struct Fans {
  std::int64_t in;
  std::int64_t out;
};

/// Of a weight [out, in, kernel...]: in·kernel and out·kernel elements. A transposed convolution's
/// [Cin, Cout/groups, kH, kW] is read the same way, as PyTorch does. Throws `Error` below 2
/// dimensions.
Fans fans(const Tensor& weight);

/// What `gain` corrects for.
enum class Nonlinearity { Linear, Sigmoid, Tanh, Relu, LeakyRelu, Selu };
/// The factor that keeps the variance through a nonlinearity (torch.nn.init.calculate_gain);
/// `slope` is LeakyRelu's.
double gain(Nonlinearity nonlinearity, double slope = 0.01);

/// Which fan `kaiming` keeps the variance over.
enum class FanMode { In, Out };

/// PyTorch's arguments. The default of `slope` and `nonlinearity` gives a gain of sqrt(2).
struct KaimingOptions {
  double slope = 0.0;
  FanMode mode = FanMode::In;
  Nonlinearity nonlinearity = Nonlinearity::LeakyRelu;
};

// All overwrite `tensor` in place, without history, and return it. Each throws `Error` naming the
// argument that makes no sense.

const Tensor& constant_(const Tensor& tensor, Scalar value);
const Tensor& zeros_(const Tensor& tensor);
const Tensor& ones_(const Tensor& tensor);
/// The identity; `tensor` has 2 dimensions.
const Tensor& eye_(const Tensor& tensor);
/// Uniform in [low, high).
const Tensor& uniform_(const Tensor& tensor, double low = 0.0, double high = 1.0,
                       Generator& generator = default_generator());
const Tensor& normal_(const Tensor& tensor, double mean = 0.0, double stddev = 1.0,
                      Generator& generator = default_generator());
/// Normal, redrawn where outside [low, high] (by the inverse of the distribution's integral).
const Tensor& trunc_normal_(const Tensor& tensor, double mean = 0.0, double stddev = 1.0,
                            double low = -2.0, double high = 2.0,
                            Generator& generator = default_generator());
/// Uniform in ±gain·sqrt(6/(fan in + fan out)) (Glorot and Bengio 2010).
const Tensor& xavier_uniform_(const Tensor& tensor, double gain = 1.0,
                              Generator& generator = default_generator());
/// Normal of deviation gain·sqrt(2/(fan in + fan out)).
const Tensor& xavier_normal_(const Tensor& tensor, double gain = 1.0,
                             Generator& generator = default_generator());
/// Uniform in ±gain·sqrt(3/fan) (He et al. 2015, arXiv:1502.01852).
const Tensor& kaiming_uniform_(const Tensor& tensor, const KaimingOptions& options = {},
                               Generator& generator = default_generator());
/// Normal of deviation gain/sqrt(fan).
const Tensor& kaiming_normal_(const Tensor& tensor, const KaimingOptions& options = {},
                              Generator& generator = default_generator());

/// PyTorch's default for the layers: `weight` kaiming_uniform_ with slope sqrt(5), `bias` (may be
/// undefined) uniform in ±1/sqrt(fan in).
void default_layer_(const Tensor& weight, const Tensor& bias);

}  // namespace tenon::nn::init
