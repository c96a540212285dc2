// Writing a file so that nobody ever sees half of it.
#pragma once

#include <cstddef>
#include <string>

namespace tenon::nn::detail {

/// A new file that takes its final name only at `commit`. Written beside the final one, so that
/// the rename stays on one file system; removed again when it is not committed.
class AtomicFile {
 public:
  /// Creates the temporary file. `op` begins every message; throws `Error` naming the file.
  AtomicFile(std::string op, std::string path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, std::size_t bytes);
  /// Waits until the contents are on the disk, then renames.
  void commit();

 private:
  [[noreturn]] void fail(const char* what);

  std::string op_;
  std::string path_;
  std::string temporary_;
  int descriptor_ = -1;
};

}  // namespace tenon::nn::detail
