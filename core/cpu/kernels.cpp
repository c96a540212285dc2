#include "tenon/core/cpu/kernels.h"

#include <Eigen/Core>

#include "tenon/core/cpu/strided.h"
#include "tenon/core/cpu/sum.h"

namespace tenon::cpu {
namespace {

/// Conversions that C++ leaves undefined or Eigen's 16-bit types lack go through float.
template <class To, class From>
To convert(From value) {
  if constexpr (std::is_same_v<To, bool>) {
    return value != From(0);
  } else if constexpr (std::is_same_v<To, std::uint8_t> && std::is_floating_point_v<From>) {
    // Modulo 256 as PyTorch does; a direct conversion of a negative number is undefined.
    return static_cast<To>(static_cast<std::int64_t>(value));
  } else if constexpr (std::is_arithmetic_v<From> && std::is_arithmetic_v<To>) {
    return static_cast<To>(value);
  } else if constexpr (std::is_same_v<From, double> || std::is_same_v<From, std::int64_t>) {
    return static_cast<To>(static_cast<float>(value));
  } else if constexpr (std::is_same_v<To, From>) {
    return value;
  } else if constexpr (std::is_arithmetic_v<To>) {
    return convert<To>(static_cast<float>(value));
  } else {
    return To(static_cast<float>(value));
  }
}

template <class From, class To>
void copy_typed(const Tensor& source, const Tensor& target) {
  for_each_block<2>(target.shape(), {target, source}, [](std::int64_t count, const auto& blocks) {
    To* out = reinterpret_cast<To*>(blocks[0].data);
    const From* in = reinterpret_cast<const From*>(blocks[1].data);
    const std::int64_t to_stride = blocks[0].stride;
    const std::int64_t from_stride = blocks[1].stride;
    if (to_stride == 1 && from_stride == 0) {
      std::fill_n(out, count, convert<To>(*in));
      return;
    }
    if (to_stride == 1 && from_stride == 1) {  // strides known, so that it vectorises
      for (std::int64_t i = 0; i < count; ++i) out[i] = convert<To>(in[i]);
      return;
    }
    for (std::int64_t i = 0; i < count; ++i) {
      out[i * to_stride] = convert<To>(in[i * from_stride]);
    }
  });
}

/// Sum of `count` elements `stride` apart. Runs in blocks whose sums are added pairwise enough for
/// float32: the error grows with the number of blocks, not of elements.
template <class T>
compute_type<T> sum_run(const T* data, std::int64_t stride, std::int64_t count) {
  using C = compute_type<T>;
  C total(0);
  C buffer[kBlock];
  for (std::int64_t done = 0; done < count; done += kBlock) {
    const std::int64_t n = std::min(kBlock, count - done);
    const BlockOperand block{reinterpret_cast<std::byte*>(const_cast<T*>(data + done * stride)),
                             stride};
    const C* values = load_block<T, C>(block, n, buffer);
    total += sum_neighbours(values, n);
  }
  return total;
}

/// Offset in elements of row-major position `position` of `shape`.
std::int64_t offset_at(const Shape& shape, const Strides& strides, std::int64_t position) {
  std::int64_t offset = 0;
  for (std::size_t d = shape.size(); d-- > 0;) {
    offset += position % shape[d] * strides[d];
    position /= shape[d];
  }
  return offset;
}

/// Sums where neighbouring results are neighbours in memory: whole rows are added to a block of
/// results at a time.
template <class T>
void sum_rows(const T* in, const tenon::detail::ReductionNest& r, std::int64_t rows, T* out) {
  using C = compute_type<T>;
  using Array = Eigen::Array<C, Eigen::Dynamic, 1>;
  const std::int64_t columns = r.kept.back();
  const std::int64_t blocks_a_row = (columns + kBlock - 1) / kBlock;
  const std::int64_t total = r.kept.numel() / columns * blocks_a_row;
  const std::int64_t grain = std::max<std::int64_t>(1, kElementwiseGrain / (kBlock * rows + 1));
  parallel_for(0, total, grain, [&](std::int64_t begin, std::int64_t end) {
    C sums[kBlock];
    C partial[kBlock];
    C buffer[kBlock];
    for (std::int64_t job = begin; job < end; ++job) {
      const std::int64_t first = job / blocks_a_row * columns + job % blocks_a_row * kBlock;
      const std::int64_t n = std::min(kBlock, columns - job % blocks_a_row * kBlock);
      const T* base = in + offset_at(r.kept, r.kept_source, first);
      Eigen::Map<Array> sum(sums, n);
      Eigen::Map<Array> part(partial, n);
      sum.setZero();
      // Two levels, so that the error grows with the square root's worth of rows at most.
      constexpr std::int64_t kRowsAPart = 128;
      for (std::int64_t row = 0; row < rows;) {
        part.setZero();
        const std::int64_t stop = std::min(rows, row + kRowsAPart);
        for (; row < stop; ++row) {
          const T* source = base + offset_at(r.summed, r.summed_source, row);
          const BlockOperand block{reinterpret_cast<std::byte*>(const_cast<T*>(source)), 1};
          part += Eigen::Map<const Array>(load_block<T, C>(block, n, buffer), n);
        }
        sum += part;
      }
      store_block<C, T>({reinterpret_cast<std::byte*>(out + first), 1}, n, sums);
    }
  });
}

/// Sums where the elements of one result lie along the innermost summed dimension. A result of
/// many elements is cut into chunks for the threads; the cut depends on the shapes alone.
template <class T>
void sum_runs(const T* in, const tenon::detail::ReductionNest& r, T* out) {
  using C = compute_type<T>;
  const std::int64_t results = r.kept.numel();
  const std::int64_t elements = r.summed.numel();
  const std::int64_t run = r.summed.back();
  const auto sum_range = [&](const T* base, std::int64_t begin, std::int64_t end) {
    C total(0);
    while (begin < end) {
      const std::int64_t n = std::min(end - begin, run - begin % run);
      total +=
          sum_run(base + offset_at(r.summed, r.summed_source, begin), r.summed_source.back(), n);
      begin += n;
    }
    return total;
  };
  if (elements <= 2 * kElementwiseGrain) {
    const std::int64_t grain = std::max<std::int64_t>(1, kElementwiseGrain / elements);
    parallel_for(0, results, grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        out[i] = convert<T>(sum_range(in + offset_at(r.kept, r.kept_source, i), 0, elements));
      }
    });
    return;
  }
  const std::int64_t chunks = (elements + kElementwiseGrain - 1) / kElementwiseGrain;
  std::vector<C> partial(static_cast<std::size_t>(chunks));
  for (std::int64_t i = 0; i < results; ++i) {
    const T* base = in + offset_at(r.kept, r.kept_source, i);
    parallel_for(0, elements, kElementwiseGrain, [&](std::int64_t begin, std::int64_t end) {
      partial[static_cast<std::size_t>(begin / kElementwiseGrain)] = sum_range(base, begin, end);
    });
    C total(0);
    for (C part : partial) total += part;
    out[i] = convert<T>(total);
  }
}

}  // namespace

void copy(const Tensor& source, const Tensor& target) {
  visit_dtype(source.dtype(), [&]<class From>() {
    visit_dtype(target.dtype(), [&]<class To>() { copy_typed<From, To>(source, target); });
  });
}

void fill(const Tensor& target, Scalar value) {
  visit_dtype(target.dtype(), [&]<class T>() {
    const T element = value.kind() == Scalar::Kind::Real ? convert<T>(value.to_double())
                                                         : convert<T>(value.to_int64());
    for_each_block<1>(target.shape(), {target}, [&](std::int64_t count, const auto& blocks) {
      T* out = reinterpret_cast<T*>(blocks[0].data);
      for (std::int64_t i = 0; i < count; ++i) out[i * blocks[0].stride] = element;
    });
  });
}

void add(const Tensor& a, const Tensor& b, const Tensor& target) {
  visit_dtype(target.dtype(), [&]<class T>() {
    for_each_block<3>(target.shape(), {target, a, b}, [](std::int64_t count, const auto& blocks) {
      T* out = reinterpret_cast<T*>(blocks[0].data);
      const T* x = reinterpret_cast<const T*>(blocks[1].data);
      const T* y = reinterpret_cast<const T*>(blocks[2].data);
      const std::int64_t so = blocks[0].stride;
      const std::int64_t sx = blocks[1].stride;
      const std::int64_t sy = blocks[2].stride;
      if (so == 1 && sx == 1 && sy == 1) {
        for (std::int64_t i = 0; i < count; ++i) out[i] = static_cast<T>(x[i] + y[i]);
      } else {
        for (std::int64_t i = 0; i < count; ++i) {
          out[i * so] = static_cast<T>(x[i * sx] + y[i * sy]);
        }
      }
    });
  });
}

void sum_to(const Tensor& source, const Tensor& target) {
  if (source.numel() == 0) {
    fill(target, 0);
    return;
  }
  const tenon::detail::ReductionNest reduction(source, target.shape(),
                                               tenon::detail::SummedOrder::Memory);
  visit_dtype(source.dtype(), [&]<class T>() {
    const T* in = static_cast<const T*>(source.raw_data());
    T* out = static_cast<T*>(target.raw_data());
    if (reduction.kept_source.back() == 1) {
      sum_rows(in, reduction, reduction.summed.numel(), out);
    } else {
      sum_runs(in, reduction, out);
    }
  });
}

}  // namespace tenon::cpu
