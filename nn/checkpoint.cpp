#include "tenon/nn/checkpoint.h"

#include <array>
#include <bit>
#include <string_view>
#include <utility>

#include "tenon/core/factories.h"
#include "tenon/core/random.h"
#include "tenon/nn/safetensors.h"

namespace tenon::nn {
namespace {

constexpr const char* kFormat = "tenon.checkpoint";
constexpr const char* kVersion = "1";

Tensor integer(std::int64_t value) { return scalar_tensor(value, {.dtype = DType::Int64}); }

void add_with_prefix(TensorMap& target, const std::string& prefix, const TensorMap& source) {
  for (const std::pair<const std::string, Tensor>& item : source) {
    target.emplace(prefix + item.first, item.second);
  }
}

/// The class whose state the file should have; "" for none.
template <class T>
std::string name_of(const T* object) {
  return object == nullptr ? "" : std::string(object->name());
}

/// A checkpoint file taken apart.
struct Parts {
  TensorMap module;
  TensorMap optimizer;
  TensorMap schedule;
  TensorMap rest;  // progress and random state
};

Parts split(TensorMap tensors) {
  Parts parts;
  const std::array<std::pair<std::string_view, TensorMap*>, 3> prefixes = {
      {{"module.", &parts.module},
       {"optimizer.", &parts.optimizer},
       {"schedule.", &parts.schedule}}};
  for (const std::pair<const std::string, Tensor>& item : tensors) {
    TensorMap* target = &parts.rest;
    std::size_t skip = 0;
    for (const std::pair<std::string_view, TensorMap*>& prefix : prefixes) {
      if (item.first.starts_with(prefix.first)) {
        target = prefix.second;
        skip = prefix.first.size();
      }
    }
    target->emplace(item.first.substr(skip), item.second);
  }
  return parts;
}

std::int64_t take_integer(TensorMap& tensors, const std::string& key) {
  const auto found = tensors.find(key);
  TENON_CHECK(found != tensors.end(), "'", key, "' is missing");
  const Tensor tensor = found->second;
  TENON_CHECK(tensor.dtype() == DType::Int64 && tensor.dim() == 0, "'", key, "' is ", tensor.spec(),
              ", must be int64[]");
  tensors.erase(found);
  return tensor.item<std::int64_t>();
}

std::int64_t take_count(TensorMap& tensors, const std::string& key) {
  const std::int64_t value = take_integer(tensors, key);
  TENON_CHECK(value >= 0, "'", key, "' must not be negative, got ", value);
  return value;
}

void check_metadata(const Metadata& metadata, std::string_view key, std::string_view expected) {
  const std::string* const found = find_metadata(metadata, key);
  TENON_CHECK(found != nullptr, "no ", key,
              " in the metadata; it is not a checkpoint (weights alone are read by load)");
  TENON_CHECK(*found == expected, "its ", key, " is '", *found, "', expected '", expected, "'");
}

/// Checks everything, then restores it. The messages are without the file's name.
Progress restore(SafeTensors file, const TrainingState& state) {
  check_metadata(file.metadata, "format", kFormat);
  check_metadata(file.metadata, "version", kVersion);
  check_metadata(file.metadata, "optimizer", name_of(state.optimizer));
  check_metadata(file.metadata, "schedule", name_of(state.schedule));
  Parts parts = split(std::move(file.tensors));
  const Progress progress = {take_count(parts.rest, "progress.epoch"),
                             take_count(parts.rest, "progress.step")};
  const auto seed = std::bit_cast<std::uint64_t>(take_integer(parts.rest, "random.seed"));
  const auto offset = std::bit_cast<std::uint64_t>(take_integer(parts.rest, "random.offset"));
  TENON_CHECK(parts.rest.empty(), "unexpected '", parts.rest.begin()->first, "'");
  TENON_CHECK(state.optimizer != nullptr || parts.optimizer.empty(), "unexpected 'optimizer.",
              parts.optimizer.begin()->first, "'");
  TENON_CHECK(state.schedule != nullptr || parts.schedule.empty(), "unexpected 'schedule.",
              parts.schedule.begin()->first, "'");
  state.module.check_state_dict(parts.module);
  if (state.optimizer != nullptr) state.optimizer->check_state_dict(parts.optimizer);
  if (state.schedule != nullptr) state.schedule->check_state_dict(parts.schedule);

  state.module.load_state_dict(parts.module);
  // The schedule computes the rates anew; the optimizer's own, loaded after it, are exact.
  if (state.schedule != nullptr) state.schedule->load_state_dict(parts.schedule);
  if (state.optimizer != nullptr) state.optimizer->load_state_dict(parts.optimizer);
  default_generator().set_state(seed, offset);
  return progress;
}

}  // namespace

void save_checkpoint(const std::string& path, const TrainingState& state,
                     const Progress& progress) {
  TENON_CHECK(progress.epoch >= 0 && progress.step >= 0,
              "save_checkpoint: progress must not be negative, got epoch ", progress.epoch,
              " and step ", progress.step);
  TensorMap tensors;
  add_with_prefix(tensors, "module.", state.module.state_dict());
  if (state.optimizer != nullptr) {
    add_with_prefix(tensors, "optimizer.", state.optimizer->state_dict());
  }
  if (state.schedule != nullptr) {
    add_with_prefix(tensors, "schedule.", state.schedule->state_dict());
  }
  tensors.emplace("progress.epoch", integer(progress.epoch));
  tensors.emplace("progress.step", integer(progress.step));
  const Generator& generator = default_generator();
  tensors.emplace("random.seed", integer(std::bit_cast<std::int64_t>(generator.seed())));
  tensors.emplace("random.offset", integer(std::bit_cast<std::int64_t>(generator.offset())));
  save_safetensors(path, tensors,
                   {{"format", kFormat},
                    {"version", kVersion},
                    {"optimizer", name_of(state.optimizer)},
                    {"schedule", name_of(state.schedule)}});
}

Progress load_checkpoint(const std::string& path, const TrainingState& state) {
  SafeTensors file = load_safetensors(path);
  try {
    return restore(std::move(file), state);
  } catch (const Error& error) {
    tenon::detail::fail(tenon::detail::concat("load_checkpoint: '", path, "': ", error.what()));
  }
}

}  // namespace tenon::nn
