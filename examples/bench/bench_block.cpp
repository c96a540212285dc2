// Times the fused block conv_transpose2d -> mish -> + add -> hardtanh -> * scale, beside what its
// parts take and, with --path expert, what cuDNN can do in an expert's hands.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "expert.h"
#include "paths.h"
#include "report.h"
#include "tenon/core/stream.h"

namespace {

using namespace tenon;

struct Options {
  std::string shape = "mission";
  bool all_shapes = false;
  std::string precision = "tf32";
  std::string device = "auto";
  std::string mode = "forward";
  std::vector<std::string> paths{"auto"};
  std::size_t fusion_plans = 0;
  bool json = false;
  bool profile = false;
  bool turns = false;
};

Options parse_options(int argc, char** argv) {
  Options options;
  CLI::App app(
      "Times conv_transpose2d -> mish -> + 0.5 -> hardtanh(-1, 1) -> * 2 by the device's own "
      "clock.");
  app.footer(
      "Paths: auto, the ops as graph::compile runs them; fused, the fused op alone; unfused, the\n"
      "ops one by one; expert (on a GPU), cuDNN's best plans in both memory formats followed by\n"
      "one pointwise pass, and cuDNN's own runtime fusion. The floor is the fewest bytes the work\n"
      "can move at the copy bandwidth measured in the same run; on the CPU, where it is more, the\n"
      "operations at the rate measured there.");
  app.add_option("--shape", options.shape,
                 "mission, dcgan8, dcgan32, unet, k5, s1, small, or N,Cin,H,W,Cout,k,s,p,op")
      ->capture_default_str();
  app.add_flag("--all-shapes", options.all_shapes, "all shapes that have a name");
  app.add_option("--precision", options.precision, "what to compute in")
      ->check(CLI::IsMember({"tf32", "float32", "bfloat16", "float16"}))
      ->capture_default_str();
  app.add_option("--device", options.device, "cpu, cuda, cuda:<index>, or auto: a GPU if any")
      ->capture_default_str();
  app.add_option("--mode", options.mode, "forward, or train: forward and backward")
      ->check(CLI::IsMember({"forward", "train"}))
      ->capture_default_str();
  app.add_option("--path", options.paths, "one or several, separated by commas")
      ->delimiter(',')
      ->check(CLI::IsMember({"auto", "fused", "unfused", "expert"}))
      ->capture_default_str();
  app.add_option("--fusion-plans", options.fusion_plans,
                 "expert: how many of cuDNN's fusion plans to try, each compiled first (0: all)")
      ->capture_default_str();
  app.add_flag("--json", options.json, "print JSON instead of tables");
  app.add_flag("--profile", options.profile,
               "time nothing: call each path once between cudaProfilerStart and -Stop");
  app.add_flag("--turns", options.turns,
               "time one call of each path for each line of the standard input");
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& help) {
    std::exit(app.exit(help));
  } catch (const CLI::ParseError& error) {
    std::cerr << "bench_block: " << error.what() << "\n";
    std::exit(1);
  }
  return options;
}

Device choose_device(const std::string& text) {
  if (text != "auto") return Device::parse(text);
  return cuda_device_count() > 0 ? Device::cuda() : Device::cpu();
}

bool asks_for(const Options& options, const char* path) {
  return std::count(options.paths.begin(), options.paths.end(), path) > 0;
}

bench::Result run(const bench::BlockShape& shape, const Options& options, Device device) {
  const bench::Problem problem(shape, bench::parse_precision(options.precision), device,
                               options.mode == "train");
  bench::Result result{.shape = shape,
                       .precision = problem.precision().name,
                       .train = problem.train(),
                       .input_sets = problem.sets().size(),
                       .floor_bytes = problem.floor_bytes(),
                       .flop = problem.flop(),
                       .rows = {}};
  const auto append = [&](std::vector<bench::Row> rows) {
    result.rows.insert(result.rows.end(), rows.begin(), rows.end());
  };
  // Tenon's own lines first: the others are compared with the first.
  for (const std::string& path : options.paths) {
    if (path != "expert") append({bench::run_path(problem, path, bench::Purpose::Time)});
  }
  if (asks_for(options, "expert")) {
    if (result.rows.empty()) append({bench::run_path(problem, "auto", bench::Purpose::Time)});
    append(bench::expert_rows(problem, options.fusion_plans));
  }
  if (device.is_cuda()) append(bench::pass_rows(problem));
  return result;
}

/// Calls the paths instead of printing what they take.
void call_paths(const bench::BlockShape& shape, const Options& options, Device device) {
  const bench::Problem problem(shape, bench::parse_precision(options.precision), device,
                               options.mode == "train");
  for (const std::string& path : options.paths) {
    TENON_CHECK(path != "expert", "--profile, --turns: the expert's plans are timed only");
    bench::run_path(problem, path, options.turns ? bench::Purpose::Turns : bench::Purpose::Profile);
  }
}

void run(const Options& options) {
  const Device device = choose_device(options.device);
  TENON_CHECK(device.is_cuda() || !asks_for(options, "expert"),
              "--path expert measures cuDNN and needs --device cuda, got ", device);
  std::vector<bench::BlockShape> shapes;
  if (options.all_shapes) {
    shapes = bench::known_shapes();
  } else {
    shapes.push_back(bench::parse_shape(options.shape));
  }
  if (options.profile || options.turns) {
    for (const bench::BlockShape& shape : shapes) call_paths(shape, options, device);
    return;
  }
  const std::string description = bench::device_description(device);
  const bench::Roofs roofs{bench::copy_bandwidth(device), bench::flop_rate(device)};
  if (!options.json) {
    std::cout << description << ": copy bandwidth " << std::llround(roofs.copy / 1e9)
              << " GB/s, read + write";
    if (roofs.flop > 0) std::cout << "; " << std::llround(roofs.flop / 1e9) << " GFLOP/s";
    std::cout << '\n';
  }
  std::vector<bench::Result> results;
  for (const bench::BlockShape& shape : shapes) {
    results.push_back(run(shape, options, device));
    if (!options.json) {
      std::cout << '\n';
      bench::print_table(std::cout, results.back(), roofs);
      std::cout.flush();
    }
  }
  if (options.json) bench::print_json(std::cout, description, roofs, results);
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse_options(argc, argv);
  try {
    run(options);
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "bench_block: " << error.what() << "\n";
    return 1;
  }
}
