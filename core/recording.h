// What is noted down while a `CapturedStep` records the work of a thread, and what must not be done
// then. Internal to core.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "tenon/core/derived.h"
#include "tenon/core/stream.h"
#include "tenon/core/tensor_body.h"

namespace tenon::detail {

/// A leaf whose gradient the recorded work set, cleared or added to.
struct RecordedGradient {
  /// What `grad()` must be before the work is replayed, so that it does what running it would do.
  enum class Before { Anything, Undefined, Same };

  std::shared_ptr<TensorBody> leaf;
  std::shared_ptr<Storage> memory;  // of the leaf
  Before before;
  Tensor start;  // its gradient when the work began
  Tensor end;    // and when it had ended
};

/// What is to be known of recorded work beside the graph.
struct RecordedWork {
  /// Memory that it reads. What was allocated while recording is not among it: the graph has that
  /// anyway, and within the graph it may serve several tensors.
  std::vector<std::shared_ptr<Storage>> kept;
  std::vector<std::shared_ptr<Storage>> changed;  // in place
  std::vector<std::weak_ptr<Storage>> results;    // that were left behind
  std::vector<RecordedGradient> gradients;
};

/// The notes on one recording: made when it begins on this thread, current until it is destroyed.
class Recording {
 public:
  /// `stream` is the one that is captured, `random_state` the memory of the `cuda::RandomState`
  /// that recorded kernels read.
  Recording(const Stream& stream, void* random_state);
  ~Recording();
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

  /// That of this thread, or null.
  static Recording* current();

  Device device() const { return stream_.device(); }

  /// An op runs: what it reads must live as long as the graph. Throws `Error` when it runs on
  /// another device, where it would happen once instead of at every replay.
  void note_op(std::string_view name, std::span<const Tensor> inputs);
  /// What it computed: replays change it.
  void note_results(std::span<const Tensor> outputs);
  /// The contents of `storage` are changed in place.
  void note_change(const std::shared_ptr<Storage>& storage);
  /// The gradient of `leaf` is about to be replaced or cleared, or something is added to it.
  void note_gradient(const std::shared_ptr<TensorBody>& leaf, bool added);
  void* random_state() const { return random_state_; }

  /// What was derived under `key` from `source` within this recording; undefined when nothing was.
  Tensor find_derived(const Storage* source, const DerivedKey& key) const;
  void keep_derived(const std::shared_ptr<Storage>& source, DerivedKey key, const Tensor& value);

  /// The notes, once the work has ended.
  RecordedWork finish();

 private:
  struct Derived {
    std::shared_ptr<Storage> source;
    DerivedKey key;
    Tensor value;
  };

  bool is_own(const Storage& storage) const;

  Stream stream_;
  void* random_state_;
  RecordedWork work_;
  std::vector<Derived> derived_;
};

/// Throws `Error` when this thread records work of `device`: `what` cannot be replayed. `remedy`
/// says what to do instead.
void refuse_while_recording(Device device, std::string_view what, std::string_view remedy);

}  // namespace tenon::detail
