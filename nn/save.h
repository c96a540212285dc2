// A module's weights in a file.
#pragma once

#include <string>

#include "tenon/nn/module.h"

namespace tenon::nn {

/// Writes the module's `state_dict` as safetensors, as PyTorch's
/// `save_file(module.state_dict(), path, {"format": "pt"})` does.
void save(const Module& module, const std::string& path);

struct LoadOptions {
  /// Refuse a file that lacks a name of the module or has others.
  bool strict = true;
};

/// Reads weights that `save` or PyTorch wrote. Throws `Error` naming the file and what is wrong
/// with it, as `load_safetensors` and `Module::load_state_dict`; the module is then as it was.
void load(Module& module, const std::string& path, const LoadOptions& options = {});

}  // namespace tenon::nn
