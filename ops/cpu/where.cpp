#include "tenon/ops/cpu/where.h"

#include "tenon/core/cpu/strided.h"

namespace tenon::ops::cpu {
namespace {

/// Elements are only moved, so that one instance serves all dtypes of a size.
template <class Bits>
void where_typed(const Tensor& condition, const Tensor& x, const Tensor& y, const Tensor& out) {
  tenon::cpu::for_each_block<4>(
      out.shape(), {out, condition, x, y}, [](std::int64_t count, const auto& blocks) {
        Bits* z = reinterpret_cast<Bits*>(blocks[0].data);
        const bool* c = reinterpret_cast<const bool*>(blocks[1].data);
        const Bits* a = reinterpret_cast<const Bits*>(blocks[2].data);
        const Bits* b = reinterpret_cast<const Bits*>(blocks[3].data);
        const std::int64_t c_step = blocks[1].stride;
        const std::int64_t a_step = blocks[2].stride;
        const std::int64_t b_step = blocks[3].stride;
        for (std::int64_t i = 0; i < count; ++i) {
          // With masks: the processor would guess a branch wrong for every other element.
          const Bits mask = static_cast<Bits>(Bits{0} - static_cast<Bits>(c[i * c_step]));
          z[i * blocks[0].stride] =
              static_cast<Bits>((a[i * a_step] & mask) | (b[i * b_step] & ~mask));
        }
      });
}

}  // namespace

void where(const Tensor& condition, const Tensor& x, const Tensor& y, const Tensor& out) {
  switch (item_size(out.dtype())) {
    case 1:
      return where_typed<std::uint8_t>(condition, x, y, out);
    case 2:
      return where_typed<std::uint16_t>(condition, x, y, out);
    case 4:
      return where_typed<std::uint32_t>(condition, x, y, out);
    default:
      return where_typed<std::uint64_t>(condition, x, y, out);
  }
}

}  // namespace tenon::ops::cpu
