// Whether kernels with several implementations time them on the user's problem.
#pragma once

namespace tenon {

/// True when the first call of a problem may time all candidates and keep the fastest: where it was
/// asked for, unless `TENON_CUDNN_TUNE` says 0 (never) or 1 (always). The choice can change the
/// last bits of a result, never its determinism.
bool tuning_enabled();

/// Whether tuning was asked for on this thread, whatever the environment says: by a
/// `TuningGuard(true)`, or in the backward of an op that was recorded under one.
bool tuning_requested();

/// Switches tuning on or off on this thread for the guard's lifetime.
class TuningGuard {
 public:
  explicit TuningGuard(bool enabled);
  ~TuningGuard();
  TuningGuard(const TuningGuard&) = delete;
  TuningGuard& operator=(const TuningGuard&) = delete;

 private:
  bool previous_;
};

}  // namespace tenon
