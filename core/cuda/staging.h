// Copies from the host to a device that do not stop the host.
#pragma once

#include <cstddef>

#include "tenon/core/device.h"

namespace tenon::cuda {

/// Sends `bytes` of ordinary host memory to `target` on `device`, in its current stream. The source
/// may be changed or freed at once: it is copied into page-locked memory, which the device reads
/// when its turn comes. (Of pageable memory the driver makes such a copy itself, for which it may
/// wait until the stream's earlier work is done.) The host waits only when more is under way than
/// the page-locked memory, 64 MB a device, holds.
void send_staged(const void* source, void* target, std::size_t bytes, Device device);

}  // namespace tenon::cuda
