#include "tenon/ops/cpu/optimizer_step.h"

#include <cmath>

#include "tenon/ops/cpu/array_math.h"
#include "tenon/ops/cpu/lanes.h"

namespace tenon::ops::cpu {
namespace {

using tenon::cpu::BlockOperand;
using tenon::cpu::kBlock;

/// A block of one operand in the compute type, which `store` writes back.
template <class T>
class BlockValues {
 public:
  using C = compute_type<T>;

  BlockValues(const BlockOperand& block, std::int64_t count) : block_(block), count_(count) {
    const C* values = load_lanes<T, C>(block, count, buffer_);
    results_ = result_lanes<C, T>(block, count, buffer_);
    if (values != results_) std::copy_n(values, count, results_);
  }
  BlockValues(const BlockValues&) = delete;
  BlockValues& operator=(const BlockValues&) = delete;

  OutputLanes<C> values() { return {results_, whole_lanes(count_)}; }
  void store() { tenon::cpu::store_block<C, T>(block_, count_, results_); }

 private:
  BlockOperand block_;
  std::int64_t count_;
  C* results_;
  alignas(kLaneAlignment) C buffer_[kBlock];
};

template <class T>
void sgd_typed(const SgdOperands& operands, const SgdStep& step) {
  using C = compute_type<T>;
  const C rate = static_cast<C>(step.maximize ? -step.learning_rate : step.learning_rate);
  const C decay = static_cast<C>(step.maximize ? -step.weight_decay : step.weight_decay);
  tenon::cpu::for_each_block<2>(operands.parameter.shape(), {operands.parameter, operands.grad},
                                [&](std::int64_t count, const auto& blocks) {
                                  BlockValues<T> p(blocks[0], count);
                                  BlockValues<T> g(blocks[1], count);
                                  p.values() -= rate * (g.values() + decay * p.values());
                                  p.store();
                                });
}

template <class T>
void sgd_momentum_typed(const SgdOperands& operands, const SgdStep& step) {
  using C = compute_type<T>;
  const C rate = static_cast<C>(step.learning_rate);
  const C decay = static_cast<C>(step.weight_decay);
  const C momentum = static_cast<C>(step.momentum);
  const C fresh = static_cast<C>(1 - step.dampening);
  const C sign = step.maximize ? C(-1) : C(1);
  tenon::cpu::for_each_block<3>(
      operands.parameter.shape(), {operands.parameter, operands.grad, operands.momentum_buffer},
      [&](std::int64_t count, const auto& blocks) {
        BlockValues<T> p(blocks[0], count);
        BlockValues<T> b(blocks[2], count);
        const LanesArray<C> g =
            sign * BlockValues<T>(blocks[1], count).values() + decay * p.values();
        if (operands.first) {
          b.values() = g;
        } else {
          b.values() = momentum * b.values() + fresh * g;
        }
        if (step.nesterov) {
          p.values() -= rate * (g + momentum * b.values());
        } else {
          p.values() -= rate * b.values();
        }
        p.store();
        b.store();
      });
}

template <class T>
void adam_typed(const AdamOperands& operands, const AdamStep& step) {
  using C = compute_type<T>;
  const double count = static_cast<double>(operands.count);
  const C size = static_cast<C>(step.learning_rate / (1 - std::pow(step.beta1, count)));
  const C root = static_cast<C>(std::sqrt(1 - std::pow(step.beta2, count)));
  const C epsilon = static_cast<C>(step.epsilon);
  const C mean_share = static_cast<C>(1 - step.beta1);
  const C beta2 = static_cast<C>(step.beta2);
  const C square_share = static_cast<C>(1 - step.beta2);
  const C sign = step.maximize ? C(-1) : C(1);
  const C added = static_cast<C>(step.decoupled ? 0 : step.weight_decay);
  const C kept = static_cast<C>(step.decoupled ? 1 - step.learning_rate * step.weight_decay : 1);
  tenon::cpu::for_each_block<4>(
      operands.parameter.shape(), {operands.parameter, operands.grad, operands.m, operands.v},
      [&](std::int64_t n, const auto& blocks) {
        BlockValues<T> p(blocks[0], n);
        BlockValues<T> first(blocks[2], n);
        BlockValues<T> second(blocks[3], n);
        const LanesArray<C> g = sign * BlockValues<T>(blocks[1], n).values() + added * p.values();
        first.values() += (g - first.values()) * mean_share;
        second.values() = second.values() * beta2 + square_share * g.square();
        p.values() = p.values() * kept -
                     size * first.values() / (square_root(second.values()) / root + epsilon);
        p.store();
        first.store();
        second.store();
      });
}

}  // namespace

void sgd_step(std::span<const SgdOperands> operands, const SgdStep& step) {
  visit_floating(operands[0].parameter.dtype(), "sgd_step", [&]<class T>() {
    for (const SgdOperands& one : operands) {
      if (step.momentum == 0) {
        sgd_typed<T>(one, step);
      } else {
        sgd_momentum_typed<T>(one, step);
      }
    }
  });
}

void adam_step(std::span<const AdamOperands> operands, const AdamStep& step) {
  visit_floating(operands[0].parameter.dtype(), "adam_step", [&]<class T>() {
    for (const AdamOperands& one : operands) adam_typed<T>(one, step);
  });
}

}  // namespace tenon::ops::cpu
