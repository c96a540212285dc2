#include "tenon/examples/support/step_times.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <vector>

#include "tenon/core/factories.h"
#include "tenon/core/stream.h"

namespace examples {
namespace {

using namespace tenon;

constexpr int kRounds = 9;
/// Steps that are queued at once: few, for the queue holds a thousand kernels and a full one makes
/// the host wait.
constexpr int kQueued = 3;

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + kRounds / 2, values.end());
  return values[kRounds / 2];
}

double host_ms(Device device, const std::function<void()>& step) {
  using namespace std::chrono;
  synchronize(device);
  const auto start = steady_clock::now();
  step();
  return duration<double, std::milli>(steady_clock::now() - start).count();
}

/// Milliseconds of the device for a step that finds the device busy for `head_start` ms.
double device_ms(Device device, const std::function<void()>& step, double head_start) {
  const Tensor filler = empty({1 << 26}, {.device = device});
  Event before(device);
  Event begin(device);
  Event end(device);
  filler.fill_(0);
  before.record();
  filler.fill_(1);
  begin.record();
  const int fills = static_cast<int>(std::ceil(head_start / before.elapsed_ms(begin)));
  for (int i = 0; i < std::min(fills, 256); ++i) filler.fill_(i);
  begin.record();
  for (int i = 0; i < kQueued; ++i) step();
  end.record();
  return begin.elapsed_ms(end) / kQueued;
}

}  // namespace

StepTimes time_step(Device device, const std::function<void()>& step) {
  step();
  std::vector<double> host;
  for (int i = 0; i < kRounds; ++i) host.push_back(host_ms(device, step));
  const double sent = median(host);
  std::vector<double> busy;
  for (int i = 0; i < kRounds; ++i) busy.push_back(device_ms(device, step, 2 * kQueued * sent));
  return {sent, median(busy)};
}

}  // namespace examples
