#include "tenon/core/recording.h"

#include <algorithm>

#include "tenon/core/error.h"

namespace tenon::detail {
namespace {

thread_local Recording* current_recording = nullptr;

/// Adds `storage` unless it is there already.
void add_once(std::vector<std::shared_ptr<Storage>>& list,
              const std::shared_ptr<Storage>& storage) {
  if (std::find(list.begin(), list.end(), storage) == list.end()) list.push_back(storage);
}

}  // namespace

Recording::Recording(const Stream& stream, void* random_state)
    : stream_(stream), random_state_(random_state) {
  current_recording = this;
}

Recording::~Recording() { current_recording = nullptr; }

Recording* Recording::current() { return current_recording; }

bool Recording::is_own(const Storage& storage) const {
  return storage.home().handle() == stream_.handle();
}

void Recording::note_op(std::string_view name, std::span<const Tensor> inputs) {
  for (const Tensor& input : inputs) {
    TENON_CHECK(input.device() == device(), name, ": runs on ", input.device(),
                " inside a CapturedStep of ", device(),
                ", which replays only the work of its own device; move it out of the step");
    const std::shared_ptr<Storage>& storage = input.body()->storage;
    if (!is_own(*storage)) add_once(work_.kept, storage);
  }
}

void Recording::note_results(std::span<const Tensor> outputs) {
  for (const Tensor& output : outputs) work_.results.push_back(output.body()->storage);
}

void Recording::note_change(const std::shared_ptr<Storage>& storage) {
  if (storage->device() == device() && !is_own(*storage)) add_once(work_.changed, storage);
}

void Recording::note_gradient(const std::shared_ptr<TensorBody>& leaf, bool added) {
  const auto is_of_leaf = [&](const RecordedGradient& other) { return other.leaf == leaf; };
  std::vector<RecordedGradient>& known = work_.gradients;
  if (leaf->device != device() || std::any_of(known.begin(), known.end(), is_of_leaf)) return;
  using Before = RecordedGradient::Before;
  const Tensor start = leaf->autograd == nullptr ? Tensor() : leaf->autograd->grad;
  const Before before = !added            ? Before::Anything
                        : start.defined() ? Before::Same
                                          : Before::Undefined;
  known.push_back({leaf, leaf->storage, before, before == Before::Same ? start : Tensor(), {}});
}

RecordedWork Recording::finish() {
  for (RecordedGradient& gradient : work_.gradients) {
    if (gradient.leaf->autograd != nullptr) gradient.end = gradient.leaf->autograd->grad;
  }
  std::erase_if(work_.results, [](const auto& result) { return result.expired(); });
  return std::move(work_);
}

Tensor Recording::find_derived(const Storage* source, const DerivedKey& key) const {
  for (const Derived& known : derived_) {
    if (known.source.get() == source && known.key == key) return known.value;
  }
  return {};
}

void Recording::keep_derived(const std::shared_ptr<Storage>& source, DerivedKey key,
                             const Tensor& value) {
  derived_.push_back({source, std::move(key), value});
}

void refuse_while_recording(Device device, std::string_view what, std::string_view remedy) {
  const Recording* recording = Recording::current();
  if (recording == nullptr || recording->device() != device) [[likely]]
    return;
  fail(concat(what, ": not possible while a CapturedStep of ", device, " is recorded; ", remedy));
}

}  // namespace tenon::detail
