// What the tuners chose, kept on disk from one run of a program to the next.
#pragma once

#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <string>

namespace tenon::ops {

/// Where cache files live: $TENON_CACHE_DIR, else $XDG_CACHE_HOME/tenon, else ~/.cache/tenon; empty
/// when none of these is known.
std::filesystem::path cache_directory();

/// A JSON file of choices, by the hardware (and its libraries) that they were measured on and by
/// the problem. Threads and processes may share one file: it is replaced as a whole, by renaming,
/// and what others added meanwhile is kept. A file that cannot be read, or is none of ours, counts
/// as empty and is replaced by the next choice. Failing never throws; the first failure is told on
/// stderr.
class TuningCache {
 public:
  /// Named facts of one choice, such as {"engine", "37"}.
  using Entry = std::map<std::string, std::string>;

  /// With an empty path the cache lives as long as the object only.
  explicit TuningCache(std::filesystem::path path);

  /// The choice for `problem` on `hardware`, if there is one.
  std::optional<Entry> find(const std::string& hardware, const std::string& problem);
  /// Keeps `entry`, in place of an older one.
  void store(const std::string& hardware, const std::string& problem, const Entry& entry);

 private:
  using Entries = std::map<std::string, std::map<std::string, Entry>>;

  /// Adds the file's entries to ours.
  void load();
  void write();
  void warn(const std::string& what);

  std::filesystem::path path_;
  std::mutex mutex_;
  bool loaded_ = false;
  bool warned_ = false;
  Entries entries_;
};

}  // namespace tenon::ops
