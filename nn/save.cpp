#include "tenon/nn/save.h"

#include "tenon/core/error.h"
#include "tenon/nn/safetensors.h"

namespace tenon::nn {

void save(const Module& module, const std::string& path) {
  save_safetensors(path, module.state_dict(), {{"format", "pt"}});
}

void load(Module& module, const std::string& path, const LoadOptions& options) {
  const SafeTensors file = load_safetensors(path);
  try {
    module.load_state_dict(file.tensors, options.strict);
  } catch (const Error& error) {
    tenon::detail::fail(tenon::detail::concat("load: '", path, "': ", error.what()));
  }
}

}  // namespace tenon::nn
