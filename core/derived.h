// Tensors computed from another one and kept beside its memory, so that they are computed once a
// version of its contents: a weight in the memory order that a kernel wants, say.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "tenon/core/stream.h"
#include "tenon/core/tensor.h"

namespace tenon {

/// The result of `make`, which computes it from the contents of `source` alone. It is kept with
/// source's memory, and a later call with the same `name` and the same view of that memory (offset,
/// shape, strides, dtype) returns it again, on whichever thread or stream, until the contents
/// change or the memory is freed. It has no history, and nobody may write to it.
///
/// A change is noticed by the version that every op that works in place bumps. Whoever writes
/// through `Tensor::data` or `Tensor::raw_data` after such a call must say so with
/// `Tensor::bump_version`. Nothing is kept of memory that Tenon does not own (`from_blob`), of
/// tensors being traced, or of results that lie in source's own memory.
Tensor derived(const Tensor& source, std::string_view name, const std::function<Tensor()>& make);

namespace detail {

/// What a derived tensor was computed from, and as what.
struct DerivedKey {
  std::string name;
  std::uint32_t version;
  std::int64_t offset;
  Shape shape;
  Strides strides;
  DType dtype;

  bool operator==(const DerivedKey&) const = default;
};

/// The derived tensors of one storage. Any thread may call.
class DerivedTensors {
 public:
  /// The tensor kept under `key`, ready for work of `stream`; undefined when there is none. Frees
  /// what was kept of other versions then.
  Tensor find(const DerivedKey& key, const Stream& stream);
  /// Keeps `value`, computed on the current stream, in place of the oldest when there are many.
  void keep(DerivedKey key, const Tensor& value);

 private:
  struct Entry {
    DerivedKey key;
    Tensor value;
    Stream stream;  // that computed it
    Event ready;    // recorded there
  };

  std::mutex mutex_;
  std::vector<Entry> entries_;  // oldest first
};

}  // namespace detail
}  // namespace tenon
