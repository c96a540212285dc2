#include "tenon/nn/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <utility>

#include "tenon/core/error.h"

namespace tenon::nn::detail {
namespace {

/// Linux writes at most 2 GiB a call; smaller pieces cost nothing.
constexpr std::size_t kLargestWrite = std::size_t{1} << 30;

}  // namespace

AtomicFile::AtomicFile(std::string op, std::string path)
    : op_(std::move(op)), path_(std::move(path)) {
  // Another process may save to the same path, and a crashed one may have left its file behind.
  for (int attempt = 0; descriptor_ < 0 && attempt < 100; ++attempt) {
    temporary_ = path_ + ".tmp-" + std::to_string(getpid()) + "-" + std::to_string(attempt);
    descriptor_ = open(temporary_.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666);
    if (descriptor_ < 0 && errno != EEXIST) break;
  }
  if (descriptor_ < 0) fail("cannot create");
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  close(descriptor_);
  std::remove(temporary_.c_str());
}

void AtomicFile::fail(const char* what) {
  const int error = errno;
  tenon::detail::fail(
      tenon::detail::concat(op_, ": ", what, " '", path_, "': ", std::strerror(error)));
}

void AtomicFile::write(const void* data, std::size_t bytes) {
  const char* next = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = ::write(descriptor_, next, std::min(bytes, kLargestWrite));
    if (written < 0) {
      if (errno == EINTR) continue;
      fail("cannot write");
    }
    next += written;
    bytes -= static_cast<std::size_t>(written);
  }
}

void AtomicFile::commit() {
  if (fsync(descriptor_) != 0) fail("cannot write");
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0) fail("cannot rename the new file to");
  close(std::exchange(descriptor_, -1));
  // The rename itself survives a power cut only once the folder is on the disk. Some file systems
  // cannot do that; the file is complete either way, so a failure here is none.
  std::filesystem::path folder = std::filesystem::path(path_).parent_path();
  if (folder.empty()) folder = ".";
  const int directory = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory >= 0) {
    fsync(directory);
    close(directory);
  }
}

}  // namespace tenon::nn::detail
