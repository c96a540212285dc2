#include "tenon/ops/cuda/fused/conv_kernel.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>

#include "tenon/core/cuda/runtime.h"
#include "tenon/core/derived.h"
#include "tenon/core/error.h"
#include "tenon/core/kernels.h"
#include "tenon/core/precision.h"
#include "tenon/core/tensor_body.h"
#include "tenon/ops/cuda/fused/exact_sums.h"
#include "tenon/ops/cuda/fused/partial_sums.h"
#include "tenon/ops/cuda/fused/tensor_map.h"

namespace tenon::ops::cuda {
namespace {

struct OperandChoice {
  OperandKind kind;
  bool split;
};

std::optional<OperandChoice> operand_of(const BlockProblem& problem) {
  switch (problem.x.dtype) {
    case DType::Float16:
      return OperandChoice{OperandKind::Float16, false};
    case DType::BFloat16:
      return OperandChoice{OperandKind::BFloat16, false};
    case DType::Float32:
      return OperandChoice{OperandKind::Tf32, problem.precision == Float32Precision::Float32};
    default:
      return std::nullopt;
  }
}

int channels_of_row(OperandKind kind) { return kind == OperandKind::Tf32 ? 4 : 8; }

/// Whether a kernel of `config` computes the geometry.
bool geometry_fits(const KernelConfig& config, const TransposedShape& shape) {
  const PhaseAxis& rows = shape.rows;
  const PhaseAxis& columns = shape.columns;
  if (config.work != Work::DataGradient &&
      (columns.stride != config.column_phases || rows.stride % config.row_phases != 0)) {
    return false;
  }
  if (config.kernel == 0) return true;
  const auto is_square = [&](auto member, std::int64_t value) {
    return rows.*member == value && columns.*member == value;
  };
  return is_square(&PhaseAxis::kernel, config.kernel) &&
         is_square(&PhaseAxis::stride, config.stride) &&
         is_square(&PhaseAxis::padding, config.padding) && is_square(&PhaseAxis::dilation, 1);
}

/// Names the order in which a plan wants a weight packed.
std::string packed_name(const KernelRow& row, const TransposedShape& shape) {
  std::ostringstream name;
  name << "fused kernel " << (row.config.work == Work::DataGradient ? "dx " : "")
       << row.config.channels << ' ' << row.config.chunks << ' ' << row.config.split << ' '
       << row.config.row_phases << ' ' << shape.groups << ' ' << shape.rows.stride << ' '
       << shape.columns.stride << ' ' << shape.rows.padding << ' ' << shape.columns.padding << ' '
       << shape.rows.dilation << ' ' << shape.columns.dilation;
  return name.str();
}

/// Whether one bulk copy brings a window of rows.
bool box_fits(const Tiling& t) {
  constexpr int kMostInABox = 256;
  return std::max({2 * t.window_columns, t.window_rows, t.sources}) <= kMostInABox;
}

/// Slots of the rings beside the one of windows: of raw windows of a team, of the gradient of z of
/// a group; and those that the windows need then.
struct SideRings {
  int raw;
  int gradients;
  int windows;
};

/// What they may be, the best first. Consumers that take turns need a whole tile's stages. `boxes`:
/// x may have raw windows.
std::vector<SideRings> side_rings(const KernelRow& row, int stages, bool boxes) {
  constexpr int kLeast = 3;
  constexpr int kMost = 16;
  const int wanted = row.take_turns ? std::min(stages, kMost) : kLeast;
  if (row.config.boxes_gradients()) {
    // Where there are many stages a deep ring hides memory's latency, before many steps of the
    // gradient do.
    constexpr int kDeep = 5;
    // Raw windows are worth steps of the gradient, down to three.
    constexpr int kLeastBesideRaw = 3;
    std::vector<SideRings> rings;
    for (const int windows : {row.take_turns ? wanted : kDeep, wanted, 2}) {
      for (int raw = boxes ? 2 : 0; raw >= 0; --raw) {
        const int least = raw > 0 ? kLeastBesideRaw : 2;
        for (int slots = 8; slots >= least; --slots) rings.push_back({raw, slots, windows});
      }
    }
    rings.push_back({0, 0, 0});
    return rings;
  }
  if (boxes) return {{2, 0, wanted}, {1, 0, wanted}, {0, 0, 0}};
  return {{0, 0, 0}};
}

/// Divides up to `limit` bytes of shared memory among the rings; false when they are too few.
bool fill_shared_memory(KernelPlan& plan, int limit) {
  constexpr int kLeastSlots = 2;
  constexpr int kMostSlots = 16;
  const KernelConfig& config = plan.row->config;
  const std::optional<RawWindows> boxes =
      config.bulk() ? raw_windows(plan.tiling, channels_of_row(plan.row->operand)) : std::nullopt;
  plan.raw = boxes.value_or(RawWindows{});
  for (const SideRings& rings : side_rings(*plan.row, plan.tiling.stages, boxes.has_value())) {
    plan.raw.slots = rings.raw * config.loading_teams();
    plan.gradient_slots = rings.gradients;
    plan.slots = 0;
    for (int slots = kLeastSlots; slots <= kMostSlots; ++slots) {
      const int bytes =
          SharedLayout(config, plan.tiling, slots, plan.raw, plan.gradient_slots).total;
      if (bytes > limit) break;
      plan.slots = slots;
      plan.shared_bytes = bytes;
    }
    if (plan.slots >= rings.windows) break;
  }
  return plan.slots > 0;
}

std::optional<KernelPlan> fit(const KernelRow& row, const TransposedShape& shape, int limit) {
  const KernelConfig& config = row.config;
  if (!geometry_fits(config, shape)) return std::nullopt;
  // Kernels for 32 channels are there for those who have no more, where small tiles fill the last
  // wave better, or where more do not fit the registers; those for 48 for multiples of that.
  const bool rows = config.takes_rows();
  const int sums = config.work == Work::DataGradient ? shape.in_channels : shape.out_channels;
  if (config.kernel != 0 && config.kernel < 7 && !config.split && !config.flat &&
      config.channels <= 32 && sums > config.channels) {
    return std::nullopt;
  }
  // The kernel counts what lies between the images of a tile, and tiles, in 32 bits.
  const double image_elements = static_cast<double>(shape.groups) * shape.in_channels *
                                static_cast<double>(shape.rows.input * shape.columns.input);
  const int images = config.flat ? shape.images : row.images;
  if (!rows && images > 1 && images * image_elements > (1 << 30)) return std::nullopt;
  const TileShape tile{.images = row.images,
                       .rows = row.rows,
                       .columns = row.columns,
                       .row_phases = config.row_phases,
                       .out_channels = config.channels,
                       .in_channels = config.chunks * channels_of_row(row.operand),
                       .vector = config.vector,
                       .flat = config.flat,
                       .dense = rows};
  KernelPlan plan{&row,
                  config.work == Work::DataGradient ? make_gradient_tiling(shape, tile)
                                                    : make_tiling(shape, tile),
                  0,
                  {},
                  0,
                  0,
                  1,
                  {}};
  const Tiling& t = plan.tiling;
  const double tiles = static_cast<double>(t.image_tiles) * t.row_tiles * t.column_tiles *
                       t.channel_tiles * t.sets * t.shape.groups;
  if (tiles > (1 << 30)) return std::nullopt;
  if (config.flat && line_positions(t) > (1 << 30)) return std::nullopt;
  // Weights that stay are those of one set.
  if (config.resident && t.sets != 1) return std::nullopt;
  if (plan.tiling.window_rows > 1023 || plan.tiling.window_columns > 1023) return std::nullopt;
  if (rows && row.architecture == 90 && !box_fits(plan.tiling)) return std::nullopt;
  if (!fill_shared_memory(plan, limit)) return std::nullopt;
  if (config.bulk_only() && plan.raw.slots == 0) return std::nullopt;
  plan.packed_name = packed_name(row, shape);
  return plan;
}

/// The part of the machine's work that counts: positions of tiles inside of y, and multiprocessors
/// that have a tile.
double efficiency(const KernelPlan& plan, int multiprocessors) {
  const Tiling& t = plan.tiling;
  const double channels =
      static_cast<double>(t.shape.out_channels) / (t.channel_tiles * t.tile.out_channels);
  const double waves = std::ceil(static_cast<double>(t.tiles()) / multiprocessors);
  const double busy = static_cast<double>(t.tiles()) / (waves * multiprocessors);
  return share_inside(t) * channels * busy;
}

template <class Append>
void visit_rows([[maybe_unused]] int architecture, Work work, const Append& append) {
  const auto append_all = [&](std::span<const KernelRow> rows) {
    for (const KernelRow& row : rows) {
      if (row.config.work == work) append(row);
    }
  };
  if (is_backward(work)) {
#ifdef TENON_WITH_SM90A
    if (architecture == 90) {
      append_all(backward_rows_sm90_k3_s2());
      append_all(backward_rows_sm90_k4_s2());
      append_all(backward_rows_sm90_k2_k5_s2());
      append_all(backward_rows_sm90_k3_s1());
    }
#endif
    append_all(backward_rows_tf32());
    append_all(backward_rows_float32());
    append_all(backward_rows_bfloat16());
    append_all(backward_rows_float16());
    return;
  }
#ifdef TENON_WITH_SM90A
  if (architecture == 90) {
    append_all(kernel_rows_sm90_k3_s2());
    append_all(kernel_rows_sm90_k4_s2());
    append_all(kernel_rows_sm90_k2_k5_s2());
    append_all(kernel_rows_sm90_k3_s1());
    append_all(kernel_rows_sm90_k5_s1());
    append_all(kernel_rows_sm90_k6_k7_s2());
    append_all(kernel_rows_sm90_k3_s3_k4_s4());
    append_all(kernel_rows_sm90_parts());
  }
#endif
  append_all(kernel_rows_tf32());
  append_all(kernel_rows_float32());
  append_all(kernel_rows_bfloat16());
  append_all(kernel_rows_float16());
}

/// Best first: rows of one geometry before the others; among those the first of the table that
/// loses little to the most efficient one.
void sort_plans(std::vector<KernelPlan>& plans, int multiprocessors) {
  constexpr double kNearly = 0.85;
  const auto sort_range = [&](auto begin, auto end) {
    double best = 0;
    for (auto i = begin; i != end; ++i) best = std::max(best, efficiency(*i, multiprocessors));
    std::stable_sort(begin, end, [&](const KernelPlan& a, const KernelPlan& b) {
      const auto good = [&](const KernelPlan& p) {
        return efficiency(p, multiprocessors) >= kNearly * best;
      };
      return good(a) && !good(b);
    });
  };
  const auto middle = std::find_if(plans.begin(), plans.end(), [](const KernelPlan& plan) {
    return plan.row->config.kernel == 0;
  });
  sort_range(plans.begin(), middle);
  sort_range(middle, plans.end());
}

/// Products of 64 positions and one tap with a stage's channels that a consumer group makes for a
/// tile.
double products_of_tile(const KernelPlan& plan) {
  return static_cast<double>(plan.tiling.stages) * plan.tiling.most_taps() *
         plan.row->config.blocks;
}

/// Where `whole` has tiles for less than half of the chip and much to do for each: the input
/// channels in parts, each of which is to the kernel a group of its own.
std::optional<KernelPlan> plan_in_parts(const KernelPlan& whole, const TransposedShape& shape,
                                        const KernelTarget& target) {
  // Microseconds on an H100, measured: a product of both groups with what comes with it, and adding
  // the parts up.
  constexpr double kProduct = 0.08;
  constexpr double kAdding = 4;
  constexpr int kMostParts = 16;
  const KernelConfig& config = whole.row->config;
  if (config.kernel == 0 || config.split || 2 * whole.tiling.tiles() > target.multiprocessors) {
    return std::nullopt;
  }
  std::optional<KernelPlan> best;
  double least = kProduct * products_of_tile(whole) - kAdding;
  visit_rows(target.architecture, Work::PartialSums, [&](const KernelRow& row) {
    if (row.operand != whole.row->operand) return;
    for (int parts = 2; parts <= std::min(kMostParts, shape.in_channels); ++parts) {
      if (shape.in_channels % parts != 0) continue;
      TransposedShape part = shape;
      part.groups *= parts;
      part.in_channels /= parts;
      if (!tiling_fits(part)) continue;
      auto plan = fit(row, part, target.shared_bytes);
      if (!plan || plan->tiling.tiles() > target.multiprocessors) continue;
      const double time = kProduct * products_of_tile(*plan);
      if (time >= least) continue;
      least = time;
      best = std::move(plan);
      best->parts = parts;
    }
  });
  return best;
}

bool divides(std::uintptr_t value, std::size_t by) { return value % by == 0; }

}  // namespace

KernelTarget KernelTarget::of(Device device) {
  const tenon::cuda::DeviceProperties& own = tenon::cuda::properties(device);
  KernelTarget target{own.compute_capability, static_cast<int>(own.shared_memory_a_block),
                      own.multiprocessors};
  const char* forced = std::getenv("TENON_FORCE_ARCH");
  if (forced == nullptr || *forced == '\0') return target;
  if (std::string_view(forced) == "none") return {0, 0, own.multiprocessors};
  target.architecture = std::min(target.architecture, std::max(80, std::atoi(forced)));
  constexpr int kSm80 = 163 * 1024;
  constexpr int kSm89 = 99 * 1024;
  if (target.architecture < 90) {
    target.shared_bytes = std::min(target.shared_bytes, target.architecture == 80 ? kSm80 : kSm89);
  }
  return target;
}

BlockProblem BlockProblem::of(const TensorSpec& x, const Shape& weight, const Shape& z,
                              const ConvTranspose2dOptions& options, const Epilogue& epilogue) {
  return {x, weight, z, options, epilogue.mish, float32_precision()};
}

std::size_t HashBlockProblem::operator()(const BlockProblem& p) const {
  std::uint64_t hash = 0;
  const auto mix = [&](auto value) {
    hash = (hash ^ static_cast<std::uint64_t>(value)) * 0x9E3779B97F4A7C15U;
    hash ^= hash >> 32;
  };
  mix(p.x.dtype);
  mix(p.x.device.index());
  mix(p.precision);
  mix(p.mish);
  for (const Shape* shape : {&p.x.shape, &p.weight, &p.z}) {
    for (const std::int64_t size : *shape) mix(size);
  }
  for (const Pair& pair : {p.options.stride, p.options.padding, p.options.dilation}) {
    mix(pair.h);
    mix(pair.w);
  }
  mix(p.options.groups);
  return hash;
}

std::vector<KernelPlan> kernel_plans(const BlockProblem& problem, const KernelTarget& target,
                                     Work work) {
  std::vector<KernelPlan> plans;
  const std::optional<OperandChoice> operand = operand_of(problem);
  if (!operand || !problem.mish || problem.x.shape.numel() == 0) return plans;
  const TransposedShape shape =
      TransposedShape::of(problem.x.shape, problem.weight, problem.z, problem.options);
  if (!tiling_fits(shape)) return plans;
  visit_rows(target.architecture, work, [&](const KernelRow& row) {
    if (row.operand != operand->kind || row.config.split != operand->split) return;
    if (const auto plan = fit(row, shape, target.shared_bytes)) plans.push_back(*plan);
  });
  sort_plans(plans, target.multiprocessors);
  if (work == Work::Forward && !plans.empty()) {
    if (auto parts = plan_in_parts(plans.front(), shape, target)) {
      plans.insert(plans.begin(), *std::move(parts));
    }
  }
  return plans;
}

std::vector<KernelPlan> kernel_plans(const BlockProblem& problem, Work work) {
  return kernel_plans(problem, KernelTarget::of(problem.x.device), work);
}

Tensor packed_weights(const KernelPlan& plan, const Tensor& weight) {
  return derived(weight, plan.packed_name, [&] {
    return pack_weights(weight.contiguous(), plan.row->operand, plan.row->config, plan.tiling);
  });
}

int stages_of_sum(const Tiling& t) {
  int most_taps = 1;
  for (int phase = 0; phase < t.sets * t.phases; ++phase) {
    most_taps = std::max(most_taps, t.taps.first[phase + 1] - t.taps.first[phase]);
  }
  return std::max(1, kStepsOfSum / (3 * most_taps));
}

double share_inside(const Tiling& t) {
  const double positions = static_cast<double>(t.shape.rows.output_count(0)) *
                           static_cast<double>(t.shape.columns.output_count(0)) * t.shape.images;
  return positions / (static_cast<double>(t.tiles()) / t.units() * t.tile.positions());
}

int blocks_of(const KernelPlan& plan, const Tiling& tiling, int multiprocessors) {
  const int units = tiling.units();
  const int blocks = std::min(multiprocessors, tiling.tiles());
  // A block whose weights stay keeps to one unit.
  return plan.row->config.resident ? std::max(1, blocks / units) * units : blocks;
}

void read_planes(KernelArguments& arguments, const KernelPlan& plan, const Tensor& x) {
  const int vector = plan.row->config.vector;
  const auto address = reinterpret_cast<std::uintptr_t>(x.raw_data());
  const bool bulk = plan.raw.slots > 0 && divides(address, 16);
  TENON_CHECK(bulk || !plan.row->config.bulk_only(), plan.row->name,
              ": x must begin at a multiple of 16 bytes");
  arguments.x_map = bulk ? window_map(x, plan.tiling, plan.raw) : TensorMap{};
  arguments.raw = bulk ? plan.raw : RawWindows{};
  arguments.x = x.raw_data();
  arguments.aligned = divides(address, item_size(x.dtype()) * static_cast<std::size_t>(vector)) &&
                      x.shape()[3] % vector == 0;
}

void run_kernel_plan(const KernelPlan& plan, const Tensor& x, const Tensor& weight,
                     const Tensor& bias, const ConvTranspose2dOptions& options,
                     const Epilogue& epilogue, const Tensor& z) {
  const Device device = x.device();
  const tenon::cuda::DeviceGuard guard(device);
  const KernelRow& row = *plan.row;
  const Tensor packed = packed_weights(plan, weight);
  Tensor found_nan;
  if (row.config.split) {
    found_nan = tenon::detail::make_empty({{1}, DType::Int64, device});
    kernels::fill(found_nan, 0);
  }
  Tensor sums;
  if (plan.parts > 1) {
    Shape shape = z.shape();
    shape[1] *= plan.parts;
    sums = tenon::detail::make_empty({shape, DType::Float32, device});
  }
  KernelArguments arguments{
      .x_map = {},
      .x = nullptr,
      .rows = {},
      .packed = packed.raw_data(),
      .bias = bias.defined() && !sums.defined() ? bias.raw_data() : nullptr,
      .z = sums.defined() ? sums.raw_data() : z.raw_data(),
      .gradient = {},
      .progress = nullptr,
      .found_nan = found_nan.defined() ? static_cast<int*>(found_nan.raw_data()) : nullptr,
      .tiling = plan.tiling,
      .slots = plan.slots,
      .raw = {},
      .stages_of_sum = stages_of_sum(plan.tiling),
      .aligned = false,
      .take_turns = row.take_turns && plan.tiling.stages <= plan.slots};
  read_planes(arguments, plan, x);
  const int multiprocessors = tenon::cuda::properties(device).multiprocessors;
  row.launch(arguments, epilogue, blocks_of(plan, plan.tiling, multiprocessors), plan.shared_bytes,
             device);
  if (sums.defined()) add_partial_sums(sums, plan.parts, options.groups, bias, epilogue, z);
  if (found_nan.defined()) {
    replace_nan_by_exact_sums(x, weight.contiguous(), bias, options, epilogue, z,
                              arguments.found_nan);
  }
}

bool kernel_pays(const KernelPlan& plan, Device device) {
  if (plan.row->config.kernel != 0) return true;
  // Products a second through `mma.sync` as measured (H100) or predicted (sm_80, sm_89), cuDNN's,
  // and bytes a second; the kernel saves writing y and reading it again.
  const KernelTarget target = KernelTarget::of(device);
  const int arch = target.architecture;
  const double ours = arch == 90 ? 55e12 : 60e12;
  const double cudnn = arch == 90 ? 130e12 : 70e12;
  const double bandwidth = arch == 90 ? 3.0e12 : 1.0e12;
  const Tiling& t = plan.tiling;
  const double kernel = static_cast<double>(t.shape.rows.kernel * t.shape.columns.kernel);
  const double elements_in = static_cast<double>(t.shape.images) * t.shape.groups *
                             t.shape.in_channels * static_cast<double>(t.shape.rows.input) *
                             static_cast<double>(t.shape.columns.input);
  const double products = 2 * elements_in * t.shape.out_channels * kernel *
                          (plan.row->config.split ? 3 : 1) *
                          (plan.row->operand == OperandKind::Tf32 ? 1.0 : 0.5);
  const double elements_out = static_cast<double>(t.shape.images) * t.shape.groups *
                              t.shape.out_channels * static_cast<double>(t.shape.rows.output) *
                              static_cast<double>(t.shape.columns.output);
  const double bytes = plan.row->operand == OperandKind::Tf32 ? 4 : 2;
  const double saved = (2 * elements_out + 2 * elements_in) * bytes / bandwidth;
  return products / ours / efficiency(plan, target.multiprocessors) <= products / cudnn + saved;
}

}  // namespace tenon::ops::cuda
