#include "tenon/nn/sequential.h"

#include "tenon/core/error.h"

namespace tenon::nn {

void Sequential::push_back(std::unique_ptr<Module> module) {
  Module* const added = module.get();
  add(std::to_string(modules_.size()), std::move(module));
  modules_.push_back(added);
}

Module& Sequential::operator[](std::size_t index) const {
  TENON_CHECK(index < modules_.size(), "Sequential: there is no module ", index, ", it has ",
              modules_.size());
  return *modules_[index];
}

Tensor Sequential::forward(const Tensor& x) {
  Tensor result = x;
  for (Module* module : modules_) result = module->forward(result);
  return result;
}

}  // namespace tenon::nn
