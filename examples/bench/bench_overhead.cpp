// Host time of an op: chains of a thousand ops on tensors so small that launching them is all there
// is to do.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tenon/core/autograd.h"
#include "tenon/core/captured_step.h"
#include "tenon/core/cuda/kernels.h"
#include "tenon/core/factories.h"
#include "tenon/core/stream.h"
#include "tenon/ops/ops.h"
#include "timing.h"

namespace {

using namespace tenon;

constexpr int kOps = 1000;
constexpr std::int64_t kElements = 16;
/// A device's queue holds about 1,024 launches; one more makes the host wait. Small kernels take a
/// microsecond or two, so that a queue which was full when the host was done takes longer to drain
/// than this.
constexpr double kFullQueueMicroseconds = 1000;
constexpr const char* kCaptured = "both, captured";

/// One link computes `ops` ops of x, and of y, which needs no gradient.
struct Chain {
  std::string name;
  int ops;
  std::function<Tensor(const Tensor& x, const Tensor& y)> link;
};

std::vector<Chain> chains() {
  return {
      {"x * a + b", 2, [](const Tensor& x, const Tensor&) { return x * 0.5 + 0.25; }},
      {"x * y + y", 2, [](const Tensor& x, const Tensor& y) { return x * y + y; }},
      {"tanh(x)", 1, [](const Tensor& x, const Tensor&) { return ops::tanh(x); }},
      {"tanh(x * y + b)", 3,
       [](const Tensor& x, const Tensor& y) { return ops::tanh(x * y + 0.25); }},
  };
}

enum class Mode { Off, Recorded, Backward, Captured };

/// How modes are called, and the host time an op that each may take on a GPU, in microseconds.
struct ModeInfo {
  Mode mode;
  const char* name;
  double bar;
};
constexpr ModeInfo kModes[] = {{Mode::Off, "gradients off", 4},
                               {Mode::Recorded, "forward", 8},
                               {Mode::Backward, "forward + backward", 8},
                               {Mode::Captured, kCaptured, 0}};

/// Microseconds: of the host for an op, and from the last op sent until the device was done.
struct Sample {
  double host;
  double drain;
};

struct Row {
  std::string chain;
  std::string mode;
  double bar;  // 0: none
  Sample sample;
};

double now_us() {
  using namespace std::chrono;
  return duration<double, std::micro>(steady_clock::now().time_since_epoch()).count();
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// What is timed: `run` sends `ops` ops.
struct Work {
  std::string name;
  std::string mode;
  double bar;  // 0: none
  int ops;
  std::function<void()> run;
};

/// From an idle device.
Sample time_once(const Work& work, Device device) {
  synchronize(device);
  const double start = now_us();
  work.run();
  const double sent = now_us();
  synchronize(device);
  const double done = now_us();
  return {(sent - start) / work.ops, done - sent};
}

/// Medians over `repeats` rounds, after three that do not count. A round runs each of `works` once,
/// so that a host that is slow for a while is slow for all of them.
std::vector<Row> measure(Device device, int repeats, const std::vector<Work>& works) {
  constexpr int kWarmUp = 3;
  std::vector<std::vector<double>> host(works.size());
  std::vector<std::vector<double>> drain(works.size());
  for (int round = 0; round < kWarmUp + repeats; ++round) {
    for (std::size_t i = 0; i < works.size(); ++i) {
      const Sample sample = time_once(works[i], device);
      if (round < kWarmUp) continue;
      host[i].push_back(sample.host);
      drain[i].push_back(sample.drain);
    }
  }
  std::vector<Row> rows;
  for (std::size_t i = 0; i < works.size(); ++i) {
    rows.push_back(
        {works[i].name, works[i].mode, works[i].bar, {median(host[i]), median(drain[i])}});
  }
  return rows;
}

Work chain_work(const Chain& chain, const ModeInfo& info, Device device) {
  const TensorOptions options{.device = device};
  const Mode mode = info.mode;
  const Tensor x = full({kElements}, 0.5, options);
  const Tensor y = full({kElements}, 0.75, options);
  const Tensor seed = ones({kElements}, options);
  if (mode != Mode::Off) x.requires_grad_();
  const int links = kOps / chain.ops;
  const auto run = [link = chain.link, mode, x, y, seed, links] {
    const GradModeGuard gradients(mode != Mode::Off);
    Tensor value = x;
    for (int i = 0; i < links; ++i) value = link(value, y);
    if (mode == Mode::Backward || mode == Mode::Captured) value.backward(seed);
    x.set_grad({});
  };  // whose end, and the tape's with it, belongs to the time
  const double bar = device.is_cuda() ? info.bar : 0;
  if (mode != Mode::Captured) return {chain.name, info.name, bar, links * chain.ops, run};
  const auto step = std::make_shared<CapturedStep>(device, run);
  return {chain.name, info.name, bar, links * chain.ops, [step] { (*step)(); }};
}

/// The floor of an op: the launch of a kernel that does nothing. None on the CPU.
void add_empty_kernel([[maybe_unused]] Device device, [[maybe_unused]] std::vector<Work>& works) {
#ifdef TENON_WITH_CUDA
  if (!device.is_cuda()) return;
  works.push_back({"an empty kernel", "part", 0, kOps, [device] {
                     for (int i = 0; i < kOps; ++i) cuda::launch_nothing(device);
                   }});
#endif
}

/// What an op is made of: memory for a result, and a launch.
void add_parts(Device device, std::vector<Work>& works) {
  const TensorOptions options{.device = device};
  const Tensor x = full({kElements}, 0.5, options);
  add_empty_kernel(device, works);
  works.push_back({"empty(16), its memory", "part", 0, kOps, [options] {
                     const NoGradGuard no_grad;
                     for (int i = 0; i < kOps; ++i) empty({kElements}, options);
                   }});
  works.push_back({"x.fill_(a), a launch", "part", 0, kOps, [x] {
                     const NoGradGuard no_grad;
                     for (int i = 0; i < kOps; ++i) x.fill_(0.25);
                   }});
}

/// A captured chain is one launch, after which the device has all of it to do.
bool queue_was_full(const Row& row) {
  return row.mode != kCaptured && row.sample.drain > kFullQueueMicroseconds;
}

std::string verdict(const Row& row) {
  if (queue_was_full(row)) return "the queue was full: this is the device's time";
  if (row.bar == 0) return "";
  return row.sample.host <= row.bar ? "met" : "missed";
}

void print_table(const std::string& description, Device device, int repeats,
                 const std::vector<Row>& rows) {
  std::cout << "host time an op, chains of " << kOps << " ops on " << kElements
            << " floats, medians of " << repeats << " runs; " << description << "\n";
  if (device.is_cuda()) {
    std::cout << "no op takes less than the launch of an empty kernel, measured below; drain: how "
                 "long the device was still busy\nwhen the host was done, far below the 1,024 "
                 "launches that its queue holds unless noted; captured: a CapturedStep of the "
                 "whole chain\n";
  }
  const auto print = [](const char* chain, const char* mode, const char* host, const char* drain,
                        const char* bar, const char* word) {
    char line[160];
    std::snprintf(line, sizeof line, "%-22s  %-18s  %8s  %8s  %4s  %s", chain, mode, host, drain,
                  bar, word);
    std::string text = line;
    text.erase(text.find_last_not_of(' ') + 1);
    std::cout << text << "\n";
  };
  print("chain", "mode", "us an op", "drain us", "bar", "");
  for (const Row& row : rows) {
    char host[32];
    char drain[32];
    char bar[32] = "-";
    std::snprintf(host, sizeof host, "%.3f", row.sample.host);
    std::snprintf(drain, sizeof drain, "%.0f", row.sample.drain);
    if (row.bar > 0) std::snprintf(bar, sizeof bar, "%.0f", row.bar);
    print(row.chain.c_str(), row.mode.c_str(), host, drain, bar, verdict(row).c_str());
  }
}

void print_json(const std::string& description, const std::vector<Row>& rows) {
  nlohmann::json list = nlohmann::json::array();
  for (const Row& row : rows) {
    list.push_back({{"chain", row.chain},
                    {"mode", row.mode},
                    {"host_microseconds", row.sample.host},
                    {"drain_microseconds", row.sample.drain},
                    {"queue_was_full", queue_was_full(row)},
                    {"bar_microseconds", row.bar > 0 ? nlohmann::json(row.bar) : nullptr}});
  }
  std::cout << nlohmann::json{{"device", description}, {"ops", kOps}, {"rows", list}}.dump(1)
            << "\n";
}

struct Options {
  std::string device = "auto";
  int repeats = 21;
  bool json = false;
};

Options parse_options(int argc, char** argv) {
  Options options;
  CLI::App app(
      "Times what the host does for an op, with gradients off, recorded, run and captured.");
  app.add_option("--device", options.device, "cpu, cuda, cuda:<index>, or auto: a GPU if any")
      ->capture_default_str();
  app.add_option("--repeats", options.repeats, "runs of each chain, of which the median is taken")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_flag("--json", options.json, "print JSON instead of a table");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    std::exit(app.exit(error) == 0 ? 0 : 1);
  }
  return options;
}

void run(const Options& options) {
  Device device = Device::cpu();
  if (options.device != "auto") {
    device = Device::parse(options.device);
  } else if (cuda_device_count() > 0) {
    device = Device::cuda();
  }
  std::vector<Work> works;
  for (const Chain& chain : chains()) {
    for (const ModeInfo& mode : kModes) works.push_back(chain_work(chain, mode, device));
  }
  add_parts(device, works);
  const std::vector<Row> rows = measure(device, options.repeats, works);
  const std::string description = bench::device_description(device);
  if (options.json) {
    print_json(description, rows);
  } else {
    print_table(description, device, options.repeats, rows);
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(parse_options(argc, argv));
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "bench_overhead: " << error.what() << "\n";
    return 1;
  }
}
