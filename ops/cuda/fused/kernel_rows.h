// The table of the fused kernel's configurations: what each is for, and what it takes.
//
// A row is a kernel compiled for one KernelConfig, with the tile that it is launched with. Rows of
// one geometry (sm_90a's warpgroup products, unrolled) come before those for any geometry; within a
// file the first that fits is the best one measured or predicted, so that choosing is a walk down
// the table. The figures beside the rows are those of docs/performance.md.
#pragma once

#include <span>

#include "tenon/ops/cuda/fused/pack_weights.h"
#include "tenon/ops/fused/conv_transpose2d_epilogue.h"

namespace tenon::ops::cuda {

struct KernelRow {
  const char* name;
  int architecture;  ///< 80: sm_80 and later; 90: sm_90 alone
  OperandKind operand;
  KernelConfig config;
  int images;  ///< of a tile
  int rows;
  int columns;
  bool take_turns;
  void (*launch)(const KernelArguments& arguments, const Epilogue& epilogue, int blocks,
                 int shared_bytes, Device device);
};

// sm_90a; empty where the library was built without that architecture.
std::span<const KernelRow> kernel_rows_sm90_k3_s2();
std::span<const KernelRow> kernel_rows_sm90_k4_s2();
std::span<const KernelRow> kernel_rows_sm90_k2_k5_s2();
std::span<const KernelRow> kernel_rows_sm90_k3_s1();
std::span<const KernelRow> kernel_rows_sm90_k5_s1();
std::span<const KernelRow> kernel_rows_sm90_k6_k7_s2();
std::span<const KernelRow> kernel_rows_sm90_k3_s3_k4_s4();
std::span<const KernelRow> kernel_rows_sm90_parts();
// Any geometry.
std::span<const KernelRow> kernel_rows_tf32();
std::span<const KernelRow> kernel_rows_float32();
std::span<const KernelRow> kernel_rows_bfloat16();
std::span<const KernelRow> kernel_rows_float16();

// The same of the backward: first the rows of Work::SumGradient, then those of Work::DataGradient.
std::span<const KernelRow> backward_rows_sm90_k3_s2();
std::span<const KernelRow> backward_rows_sm90_k4_s2();
std::span<const KernelRow> backward_rows_sm90_k2_k5_s2();
std::span<const KernelRow> backward_rows_sm90_k3_s1();
std::span<const KernelRow> backward_rows_tf32();
std::span<const KernelRow> backward_rows_float32();
std::span<const KernelRow> backward_rows_bfloat16();
std::span<const KernelRow> backward_rows_float16();

}  // namespace tenon::ops::cuda
