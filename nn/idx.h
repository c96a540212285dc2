// IDX files, the format of MNIST and its successors (http://yann.lecun.com/exdb/mnist: two zero
// bytes, a type, the number of dimensions, their sizes, the elements; all big-endian).
#pragma once

#include <string>

#include "tenon/core/tensor.h"

namespace tenon::data {

/// Reads an IDX file, gzipped or plain. Unsigned bytes become uint8, signed bytes and integers of
/// 16 and 32 bits int64, reals float32 and float64. Throws `Error` naming the file and the value
/// when the magic number, the type or the sizes are not an IDX file's, when elements are missing
/// or left over, or when the sizes promise more than a file of this length can hold (nothing is
/// allocated then).
Tensor load_idx(const std::string& path);

}  // namespace tenon::data
