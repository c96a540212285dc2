// Fusion: the chain behind a transposed convolution becomes part of it.
#include <limits>
#include <sstream>

#include "tenon/core/autograd.h"
#include "tenon/graph/passes.h"
#include "tenon/ops/binary.h"
#include "tenon/ops/fused/conv_transpose2d_epilogue.h"
#include "tenon/ops/fused/training_pays.h"

namespace tenon::graph {
namespace {

/// The bias of the convolution and what is added to its result as one tensor [C].
Tensor whole_bias(const Captured& c) {
  const Tensor after = c["b_after"];
  if (!after.defined()) return c["b"];
  const Tensor flat = after.reshape({-1});
  return c["b"].defined() ? ops::add(c["b"], flat) : flat;
}

Tensor fuse_epilogue(const Captured& c, bool gradients) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const auto& options = c.op<ops::ConvTranspose2dOp>("conv_transpose2d").options();
  const bool limits = c.has("hardtanh") || c.has("clamp") || c.has("relu");
  ops::Epilogue epilogue;
  epilogue.mish = c.has("mish") || c.has("softplus");
  epilogue.add = c.scalar("add", 0);
  epilogue.min = c.scalar("min", -kInfinity);
  epilogue.max = c.scalar("max", kInfinity);
  epilogue.scale = c.scalar("scale", 1);
  epilogue.gradient_at_bounds = c.scalar("at_bounds", 0) != 0;
  const bool has_step = epilogue.mish || limits || c.has_scalar("add") || c.has_scalar("scale");
  if (has_step) {
    // While a replacement is traced, gradients are off where the nodes it replaces have none.
    const bool trains = gradients && grad_enabled();
    if (trains && !ops::fused_training_pays(c["x"].spec(), c["w"].shape(), options)) return {};
    return ops::conv_transpose2d_epilogue(c["x"], c["w"], whole_bias(c), options, epilogue);
  }
  if (!c["b_after"].defined()) return {};  // a convolution alone
  return ops::conv_transpose2d(c["x"], c["w"], whole_bias(c), options);
}

}  // namespace

Pattern epilogue_block() {
  const Pattern x = any("x");
  const Pattern w = any("w");
  const Pattern b = optional("b");
  const Pattern activated = maybe(mish(conv_transpose2d(x, w, b)));
  const Pattern shifted = maybe(add(activated, scalar("add")));
  return maybe(mul(maybe(hardtanh(shifted)), scalar("scale")));
}

std::vector<Row> fusion_rows(bool gradients) {
  const auto replacement = [gradients](const Captured& c) { return fuse_epilogue(c, gradients); };
  return {{"transposed convolution and its epilogue", epilogue_block(), replacement, true}};
}

std::string why_training_would_lose(const TensorSpec& x, const TensorSpec& weight,
                                    const ops::ConvTranspose2dOptions& options) {
  if (ops::fused_training_pays(x, weight.shape, options)) return "";
  std::ostringstream why;
  why << "its backward computes the convolution again, which here costs more than the steps save ("
      << ops::products_per_output(weight.shape, x.shape, options)
      << " products an output, channels of a group: " << weight.shape[1]
      << "); it fuses where gradients are off";
  return why.str();
}

}  // namespace tenon::graph
