// Fusion: the chain behind a transposed convolution becomes part of it.
#include <limits>

#include "tenon/graph/passes.h"
#include "tenon/ops/binary.h"
#include "tenon/ops/fused/conv_transpose2d_epilogue.h"

namespace tenon::graph {
namespace {

/// The bias of the convolution and what is added to its result as one tensor [C].
Tensor whole_bias(const Captured& c) {
  const Tensor after = c["b_after"];
  if (!after.defined()) return c["b"];
  const Tensor flat = after.reshape({-1});
  return c["b"].defined() ? ops::add(c["b"], flat) : flat;
}

Tensor fuse_epilogue(const Captured& c) {
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

std::vector<Row> fusion_rows() {
  return {{"transposed convolution and its epilogue", epilogue_block(), fuse_epilogue, true}};
}

}  // namespace tenon::graph
