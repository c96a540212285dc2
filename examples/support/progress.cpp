#include "tenon/examples/support/progress.h"

#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <utility>

namespace examples {

Progress::Progress(std::string title, std::int64_t total)
    : title_(std::move(title)),
      total_(std::max<std::int64_t>(total, 1)),
      terminal_(isatty(STDOUT_FILENO) == 1) {}

void Progress::update(std::int64_t done, const std::string& note) {
  using std::chrono::steady_clock;
  if (!terminal_) return;
  const auto now = steady_clock::now();
  if (now - last_drawn_ < std::chrono::milliseconds(100)) return;
  last_drawn_ = now;
  constexpr std::int64_t kWidth = 30;
  const auto filled =
      static_cast<std::size_t>(std::clamp(kWidth * done / total_, INT64_C(0), kWidth));
  const std::string bar = std::string(filled, '#') + std::string(kWidth - filled, '.');
  // "\r" returns to the line's start, "\033[K" clears what is left of the line before.
  std::cout << '\r' << title_ << " [" << bar << "] " << 100 * done / total_ << "%  " << note
            << "\033[K" << std::flush;
}

void Progress::finish(const std::string& line) {
  if (terminal_) std::cout << "\r\033[K";
  std::cout << line << std::endl;
}

}  // namespace examples
