#include "tenon/ops/tuning.h"

#include <cstdlib>
#include <string_view>

namespace tenon::ops {
namespace {

thread_local bool enabled_here = false;

}  // namespace

bool tuning_enabled() {
  if (const char* text = std::getenv("TENON_CUDNN_TUNE")) {
    if (std::string_view(text) == "0") return false;
    if (std::string_view(text) == "1") return true;
  }
  return enabled_here;
}

TuningGuard::TuningGuard(bool enabled) : previous_(enabled_here) { enabled_here = enabled; }
TuningGuard::~TuningGuard() { enabled_here = previous_; }

}  // namespace tenon::ops
