// Checkpoints: everything that training depends on, in one file.
#pragma once

#include <cstdint>
#include <string>

#include "tenon/nn/module.h"
#include "tenon/nn/optimizer.h"
#include "tenon/nn/schedule.h"

namespace tenon::nn {

/// What is trained, and by what. Without an optimizer or a schedule the file has none.
struct TrainingState {
  Module& module;
  optim::Optimizer* optimizer = nullptr;
  optim::Schedule* schedule = nullptr;
};

/// How far training came: whole epochs done, and steps done in the one after.
/// `data::DataLoader::set_epoch(epoch, step)` goes on from there.
struct Progress {
  std::int64_t epoch = 0;
  std::int64_t step = 0;

  bool operator==(const Progress&) const = default;
};

/// Writes the module's parameters and buffers ("module.…"), the optimizer's and the schedule's
/// state ("optimizer.…", "schedule.…"), the progress and the state of this thread's default
/// generator as a safetensors file. It is written beside `path`, flushed to the disk and renamed,
/// so that a crash leaves the last checkpoint or the new one, never half of one.
void save_checkpoint(const std::string& path, const TrainingState& state, const Progress& progress);

/// Restores all of that: training goes on to the same weights, bit for bit. Throws `Error` naming
/// the file and the entry when the file was not written for such a module, optimizer and schedule;
/// nothing is changed then.
Progress load_checkpoint(const std::string& path, const TrainingState& state);

}  // namespace tenon::nn
