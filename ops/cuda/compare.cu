#include "tenon/ops/cuda/compare.h"
#include "tenon/ops/cuda/map.cuh"

namespace tenon::ops::cuda {
namespace {

// One kernel serves several kinds without a branch: operands are sorted into classes, and a truth
// table, which the kind stands for, has a bit for each class.

__device__ bool look_up(unsigned table, unsigned entry) { return ((table >> entry) & 1u) != 0; }

/// Classes: 0 less, 1 equal, 2 greater, 3 unordered (there is a NaN).
struct Order {
  unsigned table;
  template <class C>
  __device__ bool operator()(C a, C b) const {
    return look_up(table, a < b ? 0 : a == b ? 1 : a > b ? 2 : 3);
  }
};

/// Bit 0 of the class: b is not zero; bit 1: a is not zero.
struct Logic {
  unsigned table;
  template <class C>
  __device__ bool operator()(C a, C b) const {
    return look_up(table, (a != C(0) ? 2 : 0) + (b != C(0) ? 1 : 0));
  }
};

/// Classes: 0 zero, 1 another finite number, 2 infinite, 3 NaN.
struct Classify {
  unsigned table;
  template <class C>
  __device__ bool operator()(C x) const {
    return look_up(table, x == C(0) ? 0 : x - x == C(0) ? 1 : x == x ? 2 : 3);
  }
};

template <class Relation, class C>
struct WithSecond {
  Relation relation;
  C scalar;
  __device__ bool operator()(C x) const { return relation(x, scalar); }
};

/// Calls `run` with the relation of `kind`.
template <class Run>
void with_relation(CompareKind kind, const Run& run) {
  switch (kind) {
    case CompareKind::Eq:
      return run(Order{0b0010});
    case CompareKind::Ne:
      return run(Order{0b1101});
    case CompareKind::Lt:
      return run(Order{0b0001});
    case CompareKind::Le:
      return run(Order{0b0011});
    case CompareKind::Gt:
      return run(Order{0b0100});
    case CompareKind::Ge:
      return run(Order{0b0110});
    case CompareKind::LogicalAnd:
      return run(Logic{0b1000});
    case CompareKind::LogicalOr:
      return run(Logic{0b1110});
  }
}

unsigned truth_table(TestKind kind) {
  switch (kind) {
    case TestKind::LogicalNot:
      return 0b0001;
    case TestKind::IsNan:
      return 0b1000;
    case TestKind::IsFinite:
      return 0b0011;
  }
  return 0;
}

}  // namespace

void compare(CompareKind kind, const Tensor& a, const Tensor& b, const Tensor& out) {
  with_relation(kind, [&](auto relation) {
    visit_device_dtype(a.dtype(), [&]<class T>() {
      map_typed<T, bool>(std::array<Tensor, 2>{a, b}, out, relation);
    });
  });
}

void compare_scalar(CompareKind kind, const Tensor& x, Scalar scalar, const Tensor& out) {
  with_relation(kind, [&](auto relation) {
    visit_device_dtype(x.dtype(), [&]<class T>() {
      using C = map_type<T>;
      map_typed<T, bool>(std::array<Tensor, 1>{x}, out,
                         WithSecond<decltype(relation), C>{relation, scalar_as<C>(scalar)});
    });
  });
}

void test(TestKind kind, const Tensor& x, const Tensor& out) {
  visit_device_dtype(x.dtype(), [&]<class T>() {
    map_typed<T, bool>(std::array<Tensor, 1>{x}, out, Classify{truth_table(kind)});
  });
}

}  // namespace tenon::ops::cuda
