#include "tenon/ops/cuda/fused/kernel_choice.h"

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <sstream>
#include <string_view>
#include <unordered_map>

#include "tenon/core/cuda/runtime.h"
#include "tenon/core/stream.h"
#include "tenon/core/tuning.h"
#include "tenon/ops/tuning_cache.h"

namespace tenon::ops::cuda {
namespace {

// Choices on disk know kernels by their names in the table: another table needs another file.
constexpr const char* kChoiceFile = "fused_kernels.json";
constexpr const char* kLibraryPath = "cuDNN and one pass";
constexpr std::size_t kMostCandidates = 3;

struct Choice {
  std::optional<KernelPlan> plan;  // none: cuDNN and a pass
  bool tuned = false;
};

std::string key_of(const BlockProblem& p) {
  std::ostringstream key;
  key << p.x.dtype << '/' << p.precision << " x " << p.x.shape << " weight " << p.weight << " z "
      << p.z << " stride " << p.options.stride << " padding " << p.options.padding << " dilation "
      << p.options.dilation << " groups " << p.options.groups << (p.mish ? " mish" : "");
  return key.str();
}

/// This thread's choices.
std::unordered_map<BlockProblem, Choice, HashBlockProblem>& choices() {
  thread_local std::unordered_map<BlockProblem, Choice, HashBlockProblem> cache;
  return cache;
}

bool wants_tuning(const KernelPlan& best) {
  const char* setting = std::getenv("TENON_AUTOTUNE");
  if (setting != nullptr && std::string_view(setting) == "0") return false;
  if (setting != nullptr && std::string_view(setting) == "1") return true;
  return tuning_enabled() && best.row->config.kernel == 0;
}

/// Median of some runs in milliseconds.
double time_of(Device device, const std::function<void()>& run) {
  constexpr int kRepeats = 7;
  run();
  std::vector<double> times;
  for (int i = 0; i < kRepeats; ++i) {
    Event begin(device);
    Event end(device);
    begin.record();
    run();
    end.record();
    times.push_back(begin.elapsed_ms(end));
  }
  std::nth_element(times.begin(), times.begin() + kRepeats / 2, times.end());
  return times[kRepeats / 2];
}

/// What a measured choice is valid for, besides the problem.
std::string hardware_name(Device device) {
  cudaDeviceProp properties;
  TENON_CUDA_CHECK(cudaGetDeviceProperties(&properties, device.index()));
  const char* forced = std::getenv("TENON_FORCE_ARCH");
  return std::string(properties.name) + (forced == nullptr ? "" : std::string(" as ") + forced);
}

Choice by_rule(const std::vector<KernelPlan>& plans, Device device) {
  if (plans.empty() || !kernel_pays(plans.front(), device)) return {};
  return {plans.front(), false};
}

Choice by_time(std::vector<KernelPlan>& plans, const BlockProblem& problem,
               const std::function<void(const KernelPlan*)>& run) {
  static TuningCache disk(cache_directory().empty() ? cache_directory()
                                                    : cache_directory() / kChoiceFile);
  const Device device = problem.x.device;
  const std::string hardware = hardware_name(device);
  if (const auto found = disk.find(hardware, key_of(problem))) {
    const auto name = found->find("kernel");
    if (name != found->end()) {
      if (name->second == kLibraryPath) return {std::nullopt, true};
      for (const KernelPlan& plan : plans) {
        if (plan.row->name == name->second) return {plan, true};
      }
    }
  }
  constexpr double kLeastGain = 0.98;
  double best = kLeastGain * time_of(device, [&] { run(nullptr); });
  Choice choice{std::nullopt, true};
  plans.resize(std::min(plans.size(), kMostCandidates));
  for (const KernelPlan& plan : plans) {
    const double time = time_of(device, [&] { run(&plan); });
    if (time >= best) continue;
    best = time;
    choice.plan = plan;
  }
  disk.store(hardware, key_of(problem),
             {{"kernel", choice.plan ? choice.plan->row->name : kLibraryPath},
              {"milliseconds", std::to_string(best)}});
  return choice;
}

}  // namespace

const KernelPlan* choose_kernel(const BlockProblem& problem,
                                const std::function<void(const KernelPlan*)>& run) {
  auto found = choices().find(problem);
  if (found == choices().end() || (!found->second.tuned && tuning_enabled())) {
    std::vector<KernelPlan> plans = kernel_plans(problem);
    Choice choice = !plans.empty() && wants_tuning(plans.front())
                        ? by_time(plans, problem, run)
                        : by_rule(plans, problem.x.device);
    // What tuning did not time now it will not time later.
    choice.tuned = choice.tuned || tuning_enabled();
    found = choices().insert_or_assign(problem, std::move(choice)).first;
  }
  const Choice& choice = found->second;
  return choice.plan ? &*choice.plan : nullptr;
}

std::string kernel_name(const BlockProblem& problem) {
  const auto found = choices().find(problem);
  Choice choice;
  if (found != choices().end()) {
    choice = found->second;
  } else {
    choice = by_rule(kernel_plans(problem), problem.x.device);
  }
  if (!choice.plan) return std::string("cuda kernels (") + kLibraryPath + ")";
  return std::string("cuda fused kernel (") + choice.plan->row->name + ")";
}

}  // namespace tenon::ops::cuda
