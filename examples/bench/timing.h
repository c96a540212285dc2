// How long a step takes, and how fast memory is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "tenon/core/device.h"

namespace bench {

/// Work to be timed; the argument counts the calls, for steps that rotate among buffers.
using Step = std::function<void(std::size_t)>;

struct Timing {
  double milliseconds = 0;       ///< of one call: the median
  double host_microseconds = 0;  ///< that the host was busy with one call; 0 on the CPU
};

/// Times `step` after a warm-up: the median over at least ten samples of device time by events (by
/// the steady clock on the CPU). A sample is as many calls in a row as take a millisecond, so that
/// what the host does for the next call hides behind the device's work wherever it can.
Timing measure(tenon::Device device, const Step& step);

/// Warms up, prints "ready", and for each line of the standard input makes one untimed call and a
/// timed one, whose milliseconds it prints: so that another program can take turns with this one.
void take_turns(tenon::Device device, const Step& step);

/// Calls `step` a few times, and then once between marks that a profiler started with
/// "--profile-from-start off" records between. No times come of it.
void profile(tenon::Device device, const Step& step);

/// A rough time of one call in milliseconds, to choose between candidates: the median of `repeats`
/// single calls after one more.
double measure_roughly(tenon::Device device, const Step& step, int repeats);

/// Bytes that `step(0)` allocates at its peak, its results included, beyond what was in use.
std::int64_t peak_memory(tenon::Device device, const Step& step);

/// Bytes a second of a large copy within the device's memory, read and written bytes both counted:
/// the better of Tenon's copy kernel and, on a GPU, the driver's.
double copy_bandwidth(tenon::Device device);

/// Multiplications and additions a second of the CPU's threads together, as the library's inner
/// loop for this processor reaches them on operands in the first-level cache; 0 for a GPU.
double flop_rate(tenon::Device device);

/// How many sets of inputs of `set_bytes` to rotate among so that no call finds its inputs in the
/// last-level cache.
std::size_t rotation(tenon::Device device, std::int64_t set_bytes);

/// "NVIDIA H100 80GB HBM3, CUDA 13.0, cuDNN 9.19.0", or "CPU, 16 threads".
std::string device_description(tenon::Device device);

}  // namespace bench
