#include "tenon/core/error.h"

namespace tenon::detail {

void fail(const std::string& message) { throw Error(message); }

}  // namespace tenon::detail
