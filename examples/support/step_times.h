// How long a training step keeps the host and the GPU busy.
#pragma once

#include <functional>

#include "tenon/core/device.h"

namespace examples {

/// Medians in milliseconds.
struct StepTimes {
  double host;    ///< until the host has sent the whole step, from an idle GPU on
  double device;  ///< of the GPU alone, by its own events
};

/// Times `step`, which sends work to a GPU and does not wait for it. For the GPU's time, steps are
/// queued behind other work until the host is well ahead, so that the GPU never runs dry.
StepTimes time_step(tenon::Device device, const std::function<void()>& step);

}  // namespace examples
