// Progress of a long loop, on a terminal as a bar that stays on its line, in a pipe as nothing.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace examples {

/// A bar on standard output while `update` is called; `finish` replaces it by a line that stays.
/// When standard output is not a terminal, only those lines are printed.
class Progress {
 public:
  /// `title` stands before the bar; `total` steps will be done.
  Progress(std::string title, std::int64_t total);

  /// `done` steps are done; `note` is printed behind the bar. Redraws ten times a second at most.
  void update(std::int64_t done, const std::string& note);
  /// Removes the bar and prints `line`.
  void finish(const std::string& line);

 private:
  std::string title_;
  std::int64_t total_;
  bool terminal_;
  std::chrono::steady_clock::time_point last_drawn_;
};

}  // namespace examples
