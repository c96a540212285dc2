#include "tenon/core/captured_step.h"

#include <algorithm>
#include <utility>

#include "tenon/core/error.h"
#include "tenon/core/random.h"
#include "tenon/core/recording.h"
#ifdef TENON_WITH_CUDA
#include "tenon/core/cuda/capture.h"
#include "tenon/core/cuda/random.h"
#endif

namespace tenon {

#ifdef TENON_WITH_CUDA

/// A graph, and what the host has to do at each replay for it to be as good as running the work.
class CapturedStep::Recorded {
 public:
  Recorded(Device device, const std::function<void()>& work)
      : random_state_(Storage::allocate(sizeof(cuda::RandomState), device)) {
    Generator& generator = default_generator();
    const Generator before = generator;
    cuda::StreamCapture capture(device);
    {
      detail::Recording recording(capture.stream(), random_state_->data());
      const StreamGuard guard(capture.stream());
      work();
      work_ = recording.finish();
    }
    TENON_CHECK(generator.seed() == before.seed() && generator.offset() >= before.offset(),
                "CapturedStep: the work set the state of the default generator; do it outside");
    drawn_ = generator.offset() - before.offset();
    first_ = before.offset();
    generator = before;  // the first replay draws them
    graph_ = capture.finish();
  }

  /// Whether a replay has the effect of the work.
  bool fits() const {
    using Before = detail::RecordedGradient::Before;
    const auto& gradients = work_.gradients;
    return std::all_of(gradients.begin(), gradients.end(), [](const auto& recorded) {
      const auto& state = recorded.leaf->autograd;
      const bool defined = state != nullptr && state->grad.defined();
      if (recorded.leaf->storage != recorded.memory) return false;
      switch (recorded.before) {
        case Before::Undefined:
          return !defined;
        case Before::Same:
          return defined && state->grad.is_same(recorded.start);
        case Before::Anything:
          break;
      }
      return true;
    });
  }

  void replay() {
    if (drawn_ > 0) {
      Generator& generator = default_generator();
      cuda::set_random_state(random_state_->data(), random_state_->device(),
                             {generator.seed(), generator.advance(drawn_) - first_});
    }
    graph_->launch();
    for (const auto& storage : work_.changed) storage->bump_version();
    for (const auto& result : work_.results) {
      if (const auto storage = result.lock()) storage->bump_version();
    }
    for (const detail::RecordedGradient& recorded : work_.gradients) {
      if (recorded.end.defined() || recorded.leaf->autograd != nullptr) {
        recorded.leaf->autograd_state().grad = recorded.end;
      }
    }
  }

  std::int64_t node_count() const { return graph_->node_count(); }

 private:
  std::shared_ptr<Storage> random_state_;
  std::uint64_t first_ = 0;  // random block when it was recorded
  std::uint64_t drawn_ = 0;  // random blocks that a replay draws
  detail::RecordedWork work_;
  std::unique_ptr<cuda::CapturedGraph> graph_;
};

void CapturedStep::operator()() {
  // Within another one's recording it becomes part of that.
  if (device_.is_cpu() || detail::Recording::current() != nullptr) {
    work_();
  } else if (recorded_ == nullptr && warm_ups_ < kWarmUps) {
    work_();
    ++warm_ups_;
  } else if (recorded_ != nullptr && !recorded_->fits()) {
    work_();
  } else {
    if (recorded_ == nullptr) recorded_ = std::make_unique<Recorded>(device_, work_);
    recorded_->replay();
    ++replays_;
  }
}

std::int64_t CapturedStep::node_count() const {
  return recorded_ == nullptr ? 0 : recorded_->node_count();
}

#else

class CapturedStep::Recorded {};

void CapturedStep::operator()() { work_(); }

std::int64_t CapturedStep::node_count() const { return 0; }

#endif

CapturedStep::CapturedStep(Device device, std::function<void()> work)
    : device_(device), work_(std::move(work)) {
  TENON_CHECK(work_ != nullptr, "CapturedStep: there is no work to do (an empty function)");
}

CapturedStep::~CapturedStep() = default;

}  // namespace tenon
