// Trains a convolutional autoencoder on Fashion-MNIST (or any images in IDX files): 32 numbers an
// image. The blocks of its decoder, five ops each, become one op each when the graph is compiled.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <optional>
#include <sstream>

#include "tenon/examples/support/image.h"
#include "tenon/examples/support/image_data.h"
#include "tenon/examples/support/line_chart.h"
#include "tenon/examples/support/pca.h"
#include "tenon/examples/support/progress.h"
#include "tenon/examples/support/step_times.h"
#include "tenon/tenon.h"

using namespace tenon;
using namespace examples;
namespace fs = std::filesystem;

namespace {

constexpr std::int64_t kCode = 32;  // numbers an image is squeezed into

struct Options {
  std::string data;
  std::string out = "out";
  std::string device = "auto";
  std::optional<std::int64_t> epochs;
  std::int64_t batch = 64;
  double lr = 6e-3;
  std::uint64_t seed = 0;
  std::optional<int> threads;
  std::int64_t train_limit = 0;
  bool no_fuse = false;
  bool no_capture = false;
  std::string precision = "tf32";
};

// ---- the model ---------------------------------------------------------------------------------

/// [N, 1, H, W] -> [N, 32]
struct Encoder : nn::Module {
  nn::Conv2d down1{1, 16, {.kernel = 3, .stride = 2, .padding = 1}};
  nn::Conv2d down2{16, 32, {.kernel = 3, .stride = 2, .padding = 1}};
  nn::Linear code;

  Encoder(std::int64_t height, std::int64_t width) : code(32 * (height / 4) * (width / 4), kCode) {
    add("down1", down1);
    add("down2", down2);
    add("code", code);
  }

  Tensor forward(const Tensor& x) override {
    const Tensor h = ops::mish(down2(ops::mish(down1(x))));
    return code(h.flatten(1));
  }
};

/// [N, 32] -> [N, 1, H, W]
struct Decoder : nn::Module {
  std::int64_t height;
  std::int64_t width;
  nn::Linear spread;
  nn::ConvTranspose2d up1{32, 16, {.kernel = 3, .stride = 2, .padding = 1, .output_padding = 1}};
  nn::ConvTranspose2d up2{16, 16, {.kernel = 3, .stride = 2, .padding = 1, .output_padding = 1}};
  nn::Conv2d paint{16, 1, {.kernel = 3, .padding = 1}};

  Decoder(std::int64_t height, std::int64_t width)
      : height(height / 4), width(width / 4), spread(kCode, 32 * (height / 4) * (width / 4)) {
    add("spread", spread);
    add("up1", up1);
    add("up2", up2);
    add("paint", paint);
  }

  /// What follows each transposed convolution; with it, a block of five ops.
  static Tensor activate(const Tensor& y) { return ops::hardtanh(ops::mish(y) + 0.5) * 2.0; }

  Tensor forward(const Tensor& code) override {
    Tensor h = ops::mish(spread(code)).reshape({-1, 32, height, width});
    h = activate(up1(h));
    h = activate(up2(h));
    return ops::sigmoid(paint(h));
  }
};

struct Autoencoder : nn::Module {
  Encoder encoder;
  Decoder decoder;

  Autoencoder(std::int64_t height, std::int64_t width)
      : encoder(height, width), decoder(height, width) {
    TENON_CHECK(height % 4 == 0 && width % 4 == 0,
                "train_autoencoder: height and width of the images must be multiples of 4, got ",
                height, " x ", width);
    add("encoder", encoder);
    add("decoder", decoder);
  }

  Tensor forward(const Tensor& x) override { return decoder(encoder(x)); }
};

// ---- training ----------------------------------------------------------------------------------

/// Bytes to numbers from 0 to 1.
Tensor to_unit(const Tensor& images) { return images.to(DType::Float32) / 255.0; }

/// What a curve is drawn from, and how fast it went.
struct History {
  std::vector<double> step;  // in epochs
  std::vector<double> train_loss;
  std::vector<double> epoch;
  std::vector<double> test_error;
  double images_per_second = 0;  // of the last epoch
  std::int64_t steps = 0;
  std::int64_t waits = 0;  // of the host for the device, within steps after the first, which tunes
};

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::string fixed(double value, int digits) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(digits) << value;
  return out.str();
}

/// Mean squared error a pixel over all of `images`.
double test_error(Autoencoder& model, const Tensor& images, Device device) {
  const NoGradGuard no_grad;
  constexpr std::int64_t kBatch = 250;
  double total = 0;
  for (std::int64_t begin = 0; begin < images.size(0); begin += kBatch) {
    const std::int64_t count = std::min(kBatch, images.size(0) - begin);
    const Tensor x = to_unit(images.narrow(0, begin, count).to(device));
    total += ops::mse_loss(model(x), x).item() * static_cast<double>(count);
  }
  return total / static_cast<double>(images.size(0));
}

/// A step of training. All of it but the optimizer's part is captured: sent op by op, it would take
/// the host twice as long as the GPU.
class TrainStep {
 public:
  /// For batches of shape `batch`, on `device`.
  TrainStep(const graph::CompiledFunction& reconstruct, const Shape& batch, Device device,
            optim::Optimizer& optimizer, bool capture)
      : images_(empty(batch, {.dtype = DType::UInt8, .device = device})),
        optimizer_(optimizer),
        // On the CPU a captured step is the work itself, wherever the tensors are.
        gradients_(capture ? device : Device::cpu(), [this, &reconstruct] {
          const Tensor x = to_unit(images_);
          const Tensor loss = ops::mse_loss(reconstruct(x), x);
          optimizer_.zero_grad();
          loss.backward();
          loss_ = loss.detach();
        }) {}

  /// Sends one step on `batch`, which lies on the host. Returns the loss without waiting for it;
  /// the next call may change it.
  const Tensor& operator()(const Tensor& batch) {
    images_.copy_(batch);
    gradients_();
    optimizer_.step();
    return loss_;
  }

 private:
  Tensor images_;
  optim::Optimizer& optimizer_;
  Tensor loss_;
  CapturedStep gradients_;
};

/// [batch, 1, H, W] of `images`.
Shape batch_shape(const Tensor& images, std::int64_t batch) {
  Shape shape = images.shape();
  shape[0] = batch;
  return shape;
}

/// Trains `model`, of which `reconstruct` is the compiled form, and prints a line an epoch.
History train(Autoencoder& model, const graph::CompiledFunction& reconstruct, const ImageData& data,
              Device device, const Options& options, std::int64_t epochs) {
  data::DataLoader loader(
      data::TensorDataset({data.train}),
      {.batch_size = options.batch, .shuffle = true, .seed = options.seed, .drop_last = true});
  const std::int64_t steps = loader.size();
  optim::AdamW optimizer(model.parameters(), {.lr = options.lr});
  optim::OneCycleLR schedule(optimizer, {.max_lr = options.lr, .total_steps = steps * epochs});
  TrainStep train_step(reconstruct, batch_shape(data.train, options.batch), device, optimizer,
                       !options.no_capture);

  constexpr std::int64_t kPoint = 20;  // steps averaged into one point of the curve
  History history;
  for (std::int64_t epoch = 1; epoch <= epochs; ++epoch) {
    const std::string title = "epoch " + std::to_string(epoch) + "/" + std::to_string(epochs);
    Progress progress(title, steps);
    const auto start = std::chrono::steady_clock::now();
    std::int64_t step = 0;
    double epoch_loss = 0;
    Tensor point_loss = zeros({}, {.device = device});
    for (const data::Batch& batch : loader) {
      const std::int64_t waits = wait_count(device);
      const Tensor& loss = train_step(batch[0]);
      schedule.step();
      const bool first = epoch == 1 && step == 0;
      if (!first) history.waits += wait_count(device) - waits;

      ++step;
      point_loss = point_loss + loss;  // read only now and then: reading waits for a GPU
      if (step % kPoint == 0 || step == steps) {
        const std::int64_t averaged = step % kPoint == 0 ? kPoint : step % kPoint;
        history.step.push_back(static_cast<double>((epoch - 1) * steps + step) /
                               static_cast<double>(steps));
        const double sum = point_loss.item();
        epoch_loss += sum;
        history.train_loss.push_back(sum / static_cast<double>(averaged));
        progress.update(step, "loss " + fixed(history.train_loss.back(), 5));
        point_loss = zeros_like(point_loss);
      }
    }
    const double seconds = seconds_since(start);
    history.steps += steps;
    history.images_per_second = static_cast<double>(steps * options.batch) / seconds;
    history.epoch.push_back(static_cast<double>(epoch));
    history.test_error.push_back(test_error(model, data.test, device));
    progress.finish(title + "  loss " + fixed(epoch_loss / static_cast<double>(steps), 5) +
                    "  test " + fixed(history.test_error.back(), 5) + "  " +
                    fixed(history.images_per_second, 0) + " images/s  " + fixed(seconds, 1) + " s");
  }
  return history;
}

// ---- what it shows at the end ------------------------------------------------------------------

/// Median milliseconds of forward and backward over `images`, unfused and fused, taken in turns so
/// that both see the same machine. The weights stay as they are.
std::pair<double, double> time_steps(Autoencoder& model, const Tensor& images) {
  constexpr std::size_t kRounds = 31;
  const Tensor x = to_unit(images);
  synchronize(x.device());
  const auto unfused = graph::compile(model, {.fuse = false});
  const auto fused = graph::compile(model);
  const auto time = [&](const graph::CompiledFunction& reconstruct) {
    const auto start = std::chrono::steady_clock::now();
    model.zero_grad();
    ops::mse_loss(reconstruct(x), x).backward();
    synchronize(x.device());
    return 1e3 * seconds_since(start);
  };
  std::vector<double> unfused_times;
  std::vector<double> fused_times;
  time(unfused);  // the first calls compile
  time(fused);
  for (std::size_t round = 0; round < kRounds; ++round) {
    unfused_times.push_back(time(unfused));
    fused_times.push_back(time(fused));
  }
  const auto median = [](std::vector<double>& times) {
    std::nth_element(times.begin(), times.begin() + kRounds / 2, times.end());
    return times[kRounds / 2];
  };
  return {median(unfused_times), median(fused_times)};
}

/// Says how the host's work and the GPU's go together. The weights stay as they are.
void print_gpu_times(Autoencoder& model, const graph::CompiledFunction& reconstruct,
                     const Tensor& batch, Device device, bool capture, const History& history) {
  optim::AdamW still(model.parameters(), {.lr = 0});
  TrainStep train_step(reconstruct, batch.shape(), device, still, capture);
  const StepTimes times = time_step(device, [&] { train_step(batch); });
  std::cout << "training on " << device << ": " << fixed(history.images_per_second, 0)
            << " images/s in the last epoch; a step of " << batch.size(0)
            << " images takes the host " << fixed(times.host, 3) << " ms to send and the GPU "
            << fixed(times.device, 3) << " ms to run; the host waited " << history.waits
            << " times within the " << history.steps - 1 << " steps after the first\n";
}

void write_text(const fs::path& path, const std::string& text) {
  std::ofstream file(path);
  file << text;
  file.close();
  TENON_CHECK(file, "cannot write ", path.string());
}

std::string loss_chart(const History& history, double pca_error) {
  const double last = history.epoch.back();
  return line_chart({"Autoencoder with 32 latent numbers", "epoch", "mean squared error a pixel"},
                    {{"training loss", history.step, history.train_loss, "#9ec3e6"},
                     {.name = "test error after each epoch",
                      .x = history.epoch,
                      .y = history.test_error,
                      .markers = true},
                     {.name = "test error of a 32-component PCA",
                      .x = {0.0, last},
                      .y = {pca_error, pca_error},
                      .colour = "#c0392b",
                      .dashed = true}});
}

/// Writes everything and says what it wrote.
void write_results(Autoencoder& model, const graph::CompiledFunction& reconstruct,
                   const ImageData& data, const History& history, double pca_error,
                   const fs::path& out) {
  fs::create_directories(out);
  const Device device = model.parameters()[0].device();
  const Tensor originals =
      to_unit(data.test.narrow(0, 0, std::min<std::int64_t>(36, data.test.size(0))));
  Tensor reconstructions;
  {
    const NoGradGuard no_grad;
    reconstructions = model(originals.to(device)).to(Device::cpu());
  }
  write_png(out / "reconstructions.png", compare_images(originals, reconstructions, 3, 12, 3));
  write_text(out / "loss.svg", loss_chart(history, pca_error));
  write_text(out / "graph_before.svg", reconstruct.svg_before("autoencoder as traced"));
  write_text(out / "graph_after.svg", reconstruct.svg_after("autoencoder as it runs"));
  nn::save(model, (out / "weights.safetensors").string());

  std::cout << "\nwritten to " << fs::absolute(out).lexically_normal().string() << ":\n"
            << "  reconstructions.png  test images, each with its reconstruction below it\n"
               "  loss.svg             training loss and test error, and the PCA's\n"
               "  graph_before.svg     the model's graph as traced\n"
               "  graph_after.svg      the same graph as it runs\n"
               "  weights.safetensors  the weights, for PyTorch or nn::load\n";
}

// ---- the program -------------------------------------------------------------------------------

Options parse_options(int argc, char** argv) {
  Options options;
  CLI::App app("Trains an autoencoder on Fashion-MNIST through the fused block.");
  app.add_option("--data", options.data, "folder with MNIST's or other IDX files of images");
  app.add_option("--out", options.out, "folder to write to")->capture_default_str();
  app.add_option("--epochs", options.epochs,
                 "passes over the training images (default: 5, more for few images)")
      ->check(CLI::PositiveNumber);
  app.add_option("--batch", options.batch, "images a step")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--lr", options.lr, "highest learning rate of the one-cycle schedule")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--seed", options.seed, "of the weights and of the order of images")
      ->capture_default_str();
  app.add_option("--threads", options.threads, "threads to compute with (default: all processors)")
      ->check(CLI::PositiveNumber);
  app.add_option("--device", options.device, "cpu, cuda, or auto: a GPU if there is one")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  app.add_option("--train-limit", options.train_limit, "use only so many training images")
      ->check(CLI::PositiveNumber);
  app.add_option("--precision", options.precision,
                 "of a GPU's float32 products: tf32, or float32 for all digits")
      ->check(CLI::IsMember({"tf32", "float32"}))
      ->capture_default_str();
  app.add_flag("--no-fuse", options.no_fuse, "train through the unfused graph");
  app.add_flag("--no-capture", options.no_capture, "send a GPU every step op by op");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    std::exit(app.exit(error) == 0 ? 0 : 1);
  }
  return options;
}

void run(const Options& options) {
  ImageData data = load_image_data(options.data);
  if (options.train_limit > 0 && options.train_limit < data.train.size(0)) {
    data.train = data.train.narrow(0, 0, options.train_limit);
  }
  std::cout << "data: " << data.source << " (" << data.train.size(0) << " training and "
            << data.test.size(0) << " test images, " << data.train.size(2) << " x "
            << data.train.size(3) << ")\n";
  TENON_CHECK(data.train.size(0) >= options.batch, "train_autoencoder: ", data.train.size(0),
              " training images do not fill a batch of ", options.batch);
  const Float32PrecisionGuard precision(options.precision == "tf32" ? Float32Precision::Tf32
                                                                    : Float32Precision::Float32);
  if (options.threads) set_num_threads(*options.threads);
  manual_seed(options.seed);

  const bool on_gpu =
      options.device == "cuda" || (options.device == "auto" && cuda_device_count() > 0);
  const Device device = on_gpu ? Device::cuda() : Device::cpu();
  Autoencoder model(data.train.size(2), data.train.size(3));
  model.to(device);
  std::int64_t parameters = 0;
  for (const Tensor& parameter : model.parameters()) parameters += parameter.numel();
  std::cout << model << "\n"
            << parameters << " parameters, on " << device << ", " << num_threads()
            << " threads\n\n";

  // The bytes are as good as numbers from 0 to 1, but for a factor of the squared error.
  const double pca_error =
      pca_reconstruction_error(data.train.flatten(1), data.test.flatten(1), kCode) /
      (255.0 * 255.0);
  std::cout << "test error to beat, of a PCA with " << kCode
            << " components: " << fixed(pca_error, 5) << std::endl;
  const graph::CompiledFunction reconstruct = graph::compile(model, {.fuse = !options.no_fuse});
  // A few images need more passes for as many steps.
  const std::int64_t epochs =
      options.epochs.value_or(std::max<std::int64_t>(5, 100000 / data.train.size(0)));
  const History history = train(model, reconstruct, data, device, options, epochs);

  const double error = history.test_error.back();
  std::cout << "\ntest error (mean squared error a pixel)\n  autoencoder, 32 numbers  "
            << fixed(error, 5) << "\n  PCA, 32 components       " << fixed(pca_error, 5)
            << "\n  ratio                    " << fixed(error / pca_error, 3) << "\n\n"
            << reconstruct.report();
  const auto times = time_steps(model, data.train.narrow(0, 0, options.batch).to(device));
  std::cout << "\nforward and backward of " << options.batch << " images: " << fixed(times.first, 2)
            << " ms unfused, " << fixed(times.second, 2) << " ms fused\n";
  if (on_gpu) {
    print_gpu_times(model, reconstruct, data.train.narrow(0, 0, options.batch), device,
                    !options.no_capture, history);
  }
  write_results(model, reconstruct, data, history, pca_error, options.out);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(parse_options(argc, argv));
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "train_autoencoder: " << error.what() << "\n";
    return 1;
  }
}
