#include "tenon/ops/cpu/map.h"

#include <algorithm>
#include <vector>

#include "tenon/core/factories.h"
#include "tenon/ops/cpu/batched/lane_order.h"

namespace tenon::ops::cpu {
namespace {

using tenon::cpu::kBlock;

/// The type in which elements of type `T` are computed.
template <class T>
using map_type = std::conditional_t<std::is_integral_v<T>, std::int64_t, compute_type<T>>;

template <class T, class Result, std::size_t kInputs>
void map_typed(const std::array<Tensor, kInputs>& inputs, const Tensor& out,
               const BlockFunction<kInputs>& function) {
  using C = map_type<T>;
  std::array<Tensor, kInputs + 1> operands;
  operands[0] = out;
  for (std::size_t k = 0; k < kInputs; ++k) operands[k + 1] = inputs[k];
  const bool lanes = function.wants_lanes();
  tenon::cpu::for_each_block<kInputs + 1>(
      out.shape(), operands, [&](std::int64_t count, const auto& blocks) {
        alignas(kLaneAlignment) C buffers[kInputs + 1][kBlock];
        std::array<const C*, kInputs> values;
        for (std::size_t k = 0; k < kInputs; ++k) {
          values[k] = lanes ? load_lanes<T, C>(blocks[k + 1], count, buffers[k + 1])
                            : tenon::cpu::load_block<T, C>(blocks[k + 1], count, buffers[k + 1]);
        }
        C* results = lanes ? result_lanes<C, Result>(blocks[0], count, buffers[0])
                           : tenon::cpu::result_block<C, Result>(blocks[0], buffers[0]);
        function.run(lanes ? whole_lanes(count) : count, values, results);
        tenon::cpu::store_block<C, Result>(blocks[0], count, results);
      });
}

/// Works on operands that all lie side by side in vectors (batched/lane_order.h) as they lie, and
/// leaves the result so. Returns false, having done nothing, where they do not.
template <std::size_t kInputs>
bool map_in_lanes(const std::array<Tensor, kInputs>& inputs, const Tensor& out,
                  const BlockFunction<kInputs>& function) {
  const bool alike = std::all_of(inputs.begin(), inputs.end(), [&](const Tensor& input) {
    return input.dtype() == DType::Float32 && input.shape() == out.shape() && in_lanes(input);
  });
  if (!alike || out.dtype() != DType::Float32) return false;
  const LaneResult result(out);
  if (!result.images().side_by_side) return false;
  std::vector<LaneOperand> operands;
  std::array<Tensor, kInputs> rows;
  for (std::size_t k = 0; k < kInputs; ++k) {
    operands.emplace_back(inputs[k]);
    rows[k] =
        from_blob(const_cast<float*>(operands[k].images().data), {out.numel()}, DType::Float32);
  }
  map_typed<float, float>(rows, from_blob(result.images().data, {out.numel()}, DType::Float32),
                          function);
  result.done();
  return true;
}

}  // namespace

template <std::size_t kInputs>
void map(const std::array<Tensor, kInputs>& inputs, const Tensor& out,
         const BlockFunction<kInputs>& function) {
  if (map_in_lanes(inputs, out, function)) return;
  visit_dtype(inputs[0].dtype(), [&]<class T>() {
    if (out.dtype() == dtype_of<T>) {
      map_typed<T, T>(inputs, out, function);
    } else {
      map_typed<T, bool>(inputs, out, function);
    }
  });
}

template void map<1>(const std::array<Tensor, 1>&, const Tensor&, const BlockFunction<1>&);
template void map<2>(const std::array<Tensor, 2>&, const Tensor&, const BlockFunction<2>&);

}  // namespace tenon::ops::cpu
