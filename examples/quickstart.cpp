#include <tenon/tenon.h>

#include <iostream>

using namespace tenon;

// 32 numbers become an image of 28 x 28 pixels.
struct Decoder : nn::Module {
  nn::Linear project{32, 64 * 7 * 7};
  nn::ConvTranspose2d up1{64, 32, {.kernel = 3, .stride = 2, .padding = 1, .output_padding = 1}};
  nn::ConvTranspose2d up2{32, 1, {.kernel = 3, .stride = 2, .padding = 1, .output_padding = 1}};

  Decoder() {
    add("project", project);
    add("up1", up1);
    add("up2", up2);
  }

  Tensor forward(const Tensor& codes) override {
    Tensor h = project(codes).reshape({-1, 64, 7, 7});
    h = ops::hardtanh(ops::mish(up1(h)) + 0.5) * 2.0;  // five ops here, one once compiled
    return ops::sigmoid(up2(h));
  }
};

int main() {
  manual_seed(0);
  Decoder decoder;
  auto fast = graph::compile(decoder);  // traced on its first call, then rewritten
  optim::AdamW optimizer(decoder.parameters(), {.lr = 1e-3});

  const Tensor codes = randn({16, 32});
  const Tensor images = rand({16, 1, 28, 28});
  for (int step = 1; step <= 20; ++step) {
    const Tensor loss = ops::mse_loss(fast(codes), images);
    optimizer.zero_grad();
    loss.backward();  // through the fused op's own backward
    optimizer.step();
    if (step % 5 == 0) std::cout << "step " << step << ": loss " << loss.item() << "\n";
  }
  std::cout << fast.report();                // what was fused, what was not, and why
  nn::save(decoder, "decoder.safetensors");  // PyTorch reads it, and the other way round
}
