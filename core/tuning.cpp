#include "tenon/core/tuning.h"

#include <cstdlib>
#include <string_view>

namespace tenon {
namespace {

thread_local bool requested_here = false;

}  // namespace

bool tuning_requested() { return requested_here; }

bool tuning_enabled() {
  if (const char* text = std::getenv("TENON_CUDNN_TUNE")) {
    if (std::string_view(text) == "0") return false;
    if (std::string_view(text) == "1") return true;
  }
  return requested_here;
}

TuningGuard::TuningGuard(bool enabled) : previous_(requested_here) { requested_here = enabled; }
TuningGuard::~TuningGuard() { requested_here = previous_; }

}  // namespace tenon
