#include "tenon/ops/tuning_cache.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <utility>

namespace tenon::ops {
namespace {

/// To be changed when entries of older versions would be misread.
constexpr const char* kFormat = "tenon tuning cache 1";

/// Keeps other processes from replacing the file between our reading and our replacing it. Where
/// the file system has no locks, a choice of another process may get lost; nothing else happens.
class FileLock {
 public:
  explicit FileLock(const std::filesystem::path& path)
      : descriptor_(::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644)) {
    if (descriptor_ >= 0) ::flock(descriptor_, LOCK_EX);
  }
  ~FileLock() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  int descriptor_;
};

std::filesystem::path with_suffix(std::filesystem::path path, const std::string& suffix) {
  return path += suffix;
}

}  // namespace

std::filesystem::path cache_directory() {
  const auto variable = [](const char* name) -> std::filesystem::path {
    const char* text = std::getenv(name);
    return text == nullptr ? "" : text;
  };
  if (auto own = variable("TENON_CACHE_DIR"); !own.empty()) return own;
  // The XDG base directory specification ignores relative paths.
  if (auto xdg = variable("XDG_CACHE_HOME"); xdg.is_absolute()) return xdg / "tenon";
  if (auto home = variable("HOME"); !home.empty()) return home / ".cache" / "tenon";
  return {};
}

TuningCache::TuningCache(std::filesystem::path path) : path_(std::move(path)) {}

std::optional<TuningCache::Entry> TuningCache::find(const std::string& hardware,
                                                    const std::string& problem) {
  const std::lock_guard guard(mutex_);
  if (!loaded_) load();
  const auto group = entries_.find(hardware);
  if (group == entries_.end()) return std::nullopt;
  const auto found = group->second.find(problem);
  if (found == group->second.end()) return std::nullopt;
  return found->second;
}

void TuningCache::store(const std::string& hardware, const std::string& problem,
                        const Entry& entry) {
  const std::lock_guard guard(mutex_);
  if (path_.empty()) {
    entries_[hardware][problem] = entry;
    return;
  }
  std::error_code failure;  // shows again when the file is written
  std::filesystem::create_directories(path_.parent_path(), failure);
  const FileLock lock(with_suffix(path_, ".lock"));
  load();
  entries_[hardware][problem] = entry;
  write();
}

void TuningCache::load() {
  loaded_ = true;
  std::error_code unreadable;
  if (path_.empty() || !std::filesystem::exists(path_, unreadable)) return;
  try {
    std::ifstream file(path_);
    const auto json = nlohmann::json::parse(file);
    if (json.at("format") != kFormat) throw std::runtime_error("it is of another format");
    auto found = json.at("entries").get<Entries>();
    for (auto& [hardware, group] : found) entries_[hardware].merge(group);
  } catch (const std::exception& error) {
    warn(std::string("is not readable and ignored: ") + error.what());
  }
}

void TuningCache::write() {
  const auto temporary = with_suffix(path_, ".tmp" + std::to_string(::getpid()));
  try {
    std::ofstream file(temporary);
    file << nlohmann::json{{"format", kFormat}, {"entries", entries_}}.dump(1) << '\n';
    file.close();
    if (!file) throw std::runtime_error("cannot write " + temporary.string());
    std::filesystem::rename(temporary, path_);
  } catch (const std::exception& error) {
    std::error_code ignored;
    std::filesystem::remove(temporary, ignored);
    warn(std::string("cannot be written, choices last for this run only: ") + error.what());
  }
}

void TuningCache::warn(const std::string& what) {
  if (std::exchange(warned_, true)) return;
  std::cerr << "tenon: warning: the tuning cache " << path_.string() << ' ' << what << '\n';
}

}  // namespace tenon::ops
