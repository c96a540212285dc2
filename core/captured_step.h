// A training step that a GPU gets in one launch.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "tenon/core/device.h"

namespace tenon {

/// Work that is done again and again on tensors that stay where they are: on a GPU it is recorded
/// once as a CUDA graph and from then on sent as a whole. The step of a small model takes the host
/// longer to send, op by op, than the GPU to run; a recorded one costs the host a few launches.
///
///     const Tensor x = empty({64, 1, 28, 28}, {.device = device});
///     Tensor loss;
///     CapturedStep step(device, [&] {
///       loss = ops::mse_loss(model(x), x);
///       optimizer.zero_grad();
///       loss.backward();
///     });
///     for (const data::Batch& batch : loader) {
///       x.copy_(batch[0]);
///       step();
///       optimizer.step();
///     }
///
/// `step()` has the effect that calling `work` would have. The first `kWarmUps` calls do just that,
/// which loads kernels and chooses plans; the next one records what `work` sends to the device,
/// and it and all later ones replay that. On the CPU every call calls `work`.
///
/// What holds of a replay (it is PyTorch's torch.cuda.CUDAGraph, with the warm-up and the
/// bookkeeping inside):
/// - It computes from the tensors that `work` read when it was recorded, and with the shapes,
///   options and precision of that time: give it new data with `copy_`, from outside. Other code of
///   `work` on the host does not run again.
/// - Tensors that `work` left behind (the loss, gradients) have new contents after each call, and
///   the version of what changed is counted. Their memory belongs to the step as long as one of
///   them lives.
/// - Gradients are cleared, replaced or added to as `work` would: where the gradients of the
///   parameters before a call are not of the kind that was recorded (none, or the same tensor), or
///   a parameter has other memory, that call runs `work` instead.
/// - Random numbers of the default generator go on, as if `work` had drawn them.
/// - What cannot be replayed throws `Error` while it is recorded: waiting for the device (`item`,
///   copies to the CPU, `synchronize`), copies from the CPU, ops on other devices, generators
///   other than the default one and setting the seed of that, `Event::record`, an optimizer's step
///   (its rate and count are the host's). Then nothing was recorded, and the step may be called
///   again.
///
/// One thread at a time may call it.
class CapturedStep {
 public:
  /// How many calls run `work` before one records it.
  static constexpr int kWarmUps = 2;

  CapturedStep(Device device, std::function<void()> work);
  ~CapturedStep();
  CapturedStep(const CapturedStep&) = delete;
  CapturedStep& operator=(const CapturedStep&) = delete;

  /// The effect of `work`, sent to the current stream of the device. Throws what `work` throws.
  void operator()();

  /// How many calls were replays. Always 0 on the CPU.
  std::int64_t replays() const { return replays_; }
  /// How many kernels and copies a replay runs; 0 where nothing is recorded.
  std::int64_t node_count() const;

 private:
  class Recorded;

  Device device_;
  std::function<void()> work_;
  int warm_ups_ = 0;
  std::int64_t replays_ = 0;
  std::unique_ptr<Recorded> recorded_;
};

}  // namespace tenon
