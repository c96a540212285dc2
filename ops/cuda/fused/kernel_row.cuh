// Makes a row of the table: instantiates the kernel.
#pragma once

#include "tenon/core/cuda/launch.cuh"
#include "tenon/ops/cuda/fused/conv_kernel.cuh"
#include "tenon/ops/cuda/fused/epilogue.cuh"
#include "tenon/ops/cuda/fused/kernel_rows.h"

namespace tenon::ops::cuda {

template <class Operand>
constexpr OperandKind operand_kind() {
  if constexpr (std::is_same_v<Operand, Tf32>) return OperandKind::Tf32;
  if constexpr (std::is_same_v<Operand, __nv_bfloat16>) return OperandKind::BFloat16;
  return OperandKind::Float16;
}

template <class Operand, class Config, template <class, class> class MultiplierOf>
void launch_kernel(const KernelArguments& arguments, const Epilogue& epilogue, int blocks,
                   int shared_bytes, Device device) {
  using MishChain =
      std::conditional_t<Config::value.split, MishClampScale<float, true>, CoarseMishClampScale>;
  constexpr Work kWork = Config::value.work;
  using Chain = std::conditional_t<kWork == Work::DataGradient || kWork == Work::PartialSums,
                                   NoChain, MishChain>;
  constexpr auto kKernel = conv_epilogue_kernel<Operand, Config, MultiplierOf, Chain>;
  tenon::cuda::launch<kKernel>(
      {static_cast<unsigned>(blocks), static_cast<unsigned>(Config::value.threads()),
       static_cast<std::size_t>(shared_bytes)},
      device, arguments, Chain(epilogue));
}

/// A row with a tile of `images` x `rows` x `columns` positions.
template <class Operand, class Config, template <class, class> class MultiplierOf>
constexpr KernelRow kernel_row(const char* name, int architecture, int images, int rows,
                               int columns, bool take_turns = false) {
  return {name,          architecture, operand_kind<Operand>(),
          Config::value, images,       rows,
          columns,       take_turns,   launch_kernel<Operand, Config, MultiplierOf>};
}

}  // namespace tenon::ops::cuda
