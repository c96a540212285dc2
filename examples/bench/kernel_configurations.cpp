// Prints how the fused kernel would be launched on the named shapes, for kernel_report.py: a line
// for each plan, "PATTERN SM THREADS BYTES NAME". Needs no GPU.
#include <iostream>
#include <set>
#include <sstream>
#include <string>
#include <utility>

#include "shapes.h"
#include "tenon/core/factories.h"
#include "tenon/ops/cuda/fused/conv_kernel.h"

namespace {

using namespace tenon;
using ops::cuda::KernelConfig;
using ops::cuda::KernelPlan;
using ops::cuda::KernelTarget;
using ops::cuda::OperandKind;
using ops::cuda::Work;

struct Target {
  const char* sm;
  KernelTarget target;
};

/// A regular expression for the kernel's name; a dot stands for a space or a bracket.
std::string pattern_of(const KernelPlan& plan) {
  const KernelConfig& c = plan.row->config;
  const char* operand = plan.row->operand == OperandKind::Tf32       ? "Tf32"
                        : plan.row->operand == OperandKind::BFloat16 ? "bfloat16"
                                                                     : "half";
  const auto word = [](bool value) { return value ? "true" : "false"; };
  std::ostringstream out;
  out << operand << ",.*StaticConfig<" << c.channels << ",." << c.row_phases << ",."
      << c.column_phases << ",." << c.blocks << ",." << c.groups << ",." << c.teams << ",."
      << c.chunks << ",." << c.vector << ",." << word(c.resident) << ",." << word(c.split) << ",."
      << c.kernel << ",." << c.padding << ",." << c.columns << ",." << word(c.flat) << ",..Work."
      << static_cast<int>(c.work) << ",." << c.stride << '>';
  return out.str();
}

/// Appends a line for each plan of a problem on a target.
void add_lines(const bench::BlockShape& shape, const ops::cuda::BlockProblem& problem,
               const Target& t, std::set<std::string>& lines) {
  for (const Work work :
       {Work::Forward, Work::PartialSums, Work::SumGradient, Work::DataGradient}) {
    for (const KernelPlan& plan : ops::cuda::kernel_plans(problem, t.target, work)) {
      // Kernels for any geometry are assembled for sm_90, the others for sm_90a.
      const bool any = plan.row->config.kernel == 0;
      std::ostringstream line;
      line << pattern_of(plan) << ' ' << (t.target.architecture == 90 && any ? "90" : t.sm) << ' '
           << plan.row->config.threads() << ' ' << plan.shared_bytes << ' ' << shape.name << ": "
           << plan.row->name << ", " << plan.slots << " slots";
      lines.insert(line.str());
    }
  }
}

}  // namespace

int main() {
  const Target targets[] = {
      {"80", {80, 163 * 1024, 108}}, {"89", {89, 99 * 1024, 128}}, {"90a", {90, 227 * 1024, 132}}};
  const std::pair<DType, Float32Precision> precisions[] = {
      {DType::Float32, Float32Precision::Tf32},
      {DType::Float32, Float32Precision::Float32},
      {DType::BFloat16, Float32Precision::Tf32},
      {DType::Float16, Float32Precision::Tf32}};
  std::set<std::string> lines;
  for (const bench::BlockShape& shape : bench::known_shapes()) {
    for (const auto& [dtype, precision] : precisions) {
      for (const Target& t : targets) {
        const ops::cuda::BlockProblem problem{{shape.x(), dtype, Device::cpu()},
                                              shape.weight(),
                                              shape.z(),
                                              shape.options(),
                                              true,
                                              precision};
        add_lines(shape, problem, t, lines);
      }
    }
  }
  for (const std::string& line : lines) std::cout << line << '\n';
}
