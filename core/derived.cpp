#include "tenon/core/derived.h"

#include <utility>

#include "tenon/core/autograd.h"
#include "tenon/core/recording.h"
#include "tenon/core/tensor_body.h"

namespace tenon {
namespace detail {
namespace {

/// Different things kept of one storage. A layer's weight needs one or two; the bound is for a
/// storage whose many views all derive something.
constexpr std::size_t kMostKept = 8;

}  // namespace

Tensor DerivedTensors::find(const DerivedKey& key, const Stream& stream) {
  std::vector<Entry> outdated;  // freed when the lock is released
  const std::lock_guard lock(mutex_);
  for (const Entry& entry : entries_) {
    if (entry.key != key) continue;
    if (entry.stream.handle() != stream.handle()) {
      entry.ready.block(stream);
      entry.value.body()->storage->record_stream(stream);
    }
    return entry.value;
  }
  for (Entry& entry : entries_) {
    if (entry.key.version != key.version) outdated.push_back(std::move(entry));
  }
  if (!outdated.empty()) {
    std::erase_if(entries_, [](const Entry& entry) { return !entry.value.defined(); });
  }
  return {};
}

void DerivedTensors::keep(DerivedKey key, const Tensor& value) {
  Event ready(value.device());
  ready.record();
  Entry entry{std::move(key), value, Stream::current(value.device()), std::move(ready)};
  const std::lock_guard lock(mutex_);
  // Another thread may have computed the same meanwhile; one of the two is enough.
  std::erase_if(entries_, [&](const Entry& other) { return other.key == entry.key; });
  if (entries_.size() == kMostKept) entries_.erase(entries_.begin());
  entries_.push_back(std::move(entry));
}

}  // namespace detail

Tensor derived(const Tensor& source, std::string_view name, const std::function<Tensor()>& make) {
  const detail::TensorBody& body = detail::body_of(source);
  const NoGradGuard no_history;
  if (body.storage == nullptr || !body.storage->owned()) return make();
  // With the version before `make`: a change while it runs leaves what is kept outdated.
  detail::DerivedKey key{std::string(name), source.version(), body.offset,
                         body.shape,        body.strides,     body.dtype};
  if (detail::Recording* recording = detail::Recording::current()) {
    // What was kept before is of contents that replays will have changed, and what is computed now
    // has no values yet.
    const Tensor found = recording->find_derived(body.storage.get(), key);
    if (found.defined()) return found;
    Tensor made = make();
    if (!made.defined()) return made;
    made = detail::without_history(made);
    recording->keep_derived(body.storage, std::move(key), made);
    return made;
  }
  detail::DerivedTensors& kept = body.storage->derived();
  if (const Tensor found = kept.find(key, Stream::current(body.device)); found.defined()) {
    return found;
  }
  const Tensor made = make();
  if (!made.defined() || made.is_traced()) return made;
  const Tensor result = detail::without_history(made);
  // A storage that owned a tensor of its own would never be freed.
  if (result.body()->storage != body.storage) kept.keep(std::move(key), result);
  return result;
}

}  // namespace tenon
