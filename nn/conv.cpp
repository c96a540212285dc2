#include "tenon/nn/conv.h"

#include "tenon/core/factories.h"
#include "tenon/nn/init.h"

namespace tenon::nn {
namespace {

void check_at_least(const char* layer, const char* what, Pair value, std::int64_t least) {
  TENON_CHECK(value.h >= least && value.w >= least, layer, ": ", what, " must be at least ", least,
              ", got ", value);
}

/// What both layers ask of their numbers.
template <class Options>
void check(const char* layer, std::int64_t in_channels, std::int64_t out_channels,
           const Options& options) {
  TENON_CHECK(in_channels >= 1 && out_channels >= 1, layer,
              ": channels must be at least 1, got in_channels ", in_channels, " and out_channels ",
              out_channels);
  check_at_least(layer, "kernel", options.kernel, 1);
  check_at_least(layer, "stride", options.stride, 1);
  check_at_least(layer, "padding", options.padding, 0);
  check_at_least(layer, "dilation", options.dilation, 1);
  TENON_CHECK(options.groups >= 1, layer, ": groups must be at least 1, got ", options.groups);
  TENON_CHECK(in_channels % options.groups == 0 && out_channels % options.groups == 0, layer,
              ": groups ", options.groups, " must divide in_channels ", in_channels,
              " and out_channels ", out_channels);
}

/// The rest of the text after the channels; only what is not the default.
template <class Options>
std::string describe(const Options& options, const Tensor& bias) {
  std::string text = tenon::detail::concat(", kernel=", options.kernel);
  const auto add = [&text](const char* name, Pair value, Pair usual) {
    if (value != usual) text += tenon::detail::concat(", ", name, "=", value);
  };
  add("stride", options.stride, 1);
  add("padding", options.padding, 0);
  if constexpr (requires { options.output_padding; }) {
    add("output_padding", options.output_padding, 0);
  }
  add("dilation", options.dilation, 1);
  if (options.groups != 1) text += tenon::detail::concat(", groups=", options.groups);
  if (!bias.defined()) text += ", bias=false";
  return text;
}

}  // namespace

Conv2d::Conv2d(std::int64_t in_channels, std::int64_t out_channels, const Conv2dOptions& options)
    : options_(options) {
  check("Conv2d", in_channels, out_channels, options);
  weight = add_parameter("weight", empty({out_channels, in_channels / options.groups,
                                          options.kernel.h, options.kernel.w}));
  if (options.bias) bias = add_parameter("bias", empty({out_channels}));
  init::default_layer_(weight, bias);
}

Tensor Conv2d::forward(const Tensor& x) {
  return ops::conv2d(x, weight, bias,
                     {.stride = options_.stride,
                      .padding = options_.padding,
                      .dilation = options_.dilation,
                      .groups = options_.groups});
}

std::string Conv2d::extra_repr() const {
  return tenon::detail::concat(weight.size(1) * options_.groups, ", ", weight.size(0),
                               describe(options_, bias));
}

ConvTranspose2d::ConvTranspose2d(std::int64_t in_channels, std::int64_t out_channels,
                                 const ConvTranspose2dOptions& options)
    : options_(options) {
  check("ConvTranspose2d", in_channels, out_channels, options);
  const Pair extra = options.output_padding;
  check_at_least("ConvTranspose2d", "output_padding", extra, 0);
  TENON_CHECK((extra.h < options.stride.h || extra.h < options.dilation.h) &&
                  (extra.w < options.stride.w || extra.w < options.dilation.w),
              "ConvTranspose2d: output_padding ", extra, " must be below the stride ",
              options.stride, " or the dilation ", options.dilation);
  weight = add_parameter("weight", empty({in_channels, out_channels / options.groups,
                                          options.kernel.h, options.kernel.w}));
  if (options.bias) bias = add_parameter("bias", empty({out_channels}));
  init::default_layer_(weight, bias);
}

Tensor ConvTranspose2d::forward(const Tensor& x) {
  return ops::conv_transpose2d(x, weight, bias,
                               {.stride = options_.stride,
                                .padding = options_.padding,
                                .output_padding = options_.output_padding,
                                .dilation = options_.dilation,
                                .groups = options_.groups});
}

std::string ConvTranspose2d::extra_repr() const {
  return tenon::detail::concat(weight.size(0), ", ", weight.size(1) * options_.groups,
                               describe(options_, bias));
}

}  // namespace tenon::nn
