#!/usr/bin/env python3
"""Writes the golden tensors of this folder with PyTorch: python3 make_golden.py [folder].

Every file holds cases. A tensor is called "<case>/<tensor>"; the file's metadata maps each case to
its attributes as JSON text, where an attribute that is left out has PyTorch's default. Inputs are
drawn in float32 and stored in float64 with the same values, so that a test can run either dtype;
results are PyTorch's in float64 unless the case says "float32". "grad_<input>" is the gradient of
sum(y * grad_out) with respect to that input.

Needs torch, safetensors and numpy; the files in the repository were made with PyTorch 2.11.
"""

import json
import math
import os
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import save_file


class Cases:
    """Collects the cases of one file."""

    def __init__(self):
        self.tensors = {}
        self.attributes = {}

    def add(self, case, attributes, **tensors):
        self.attributes[case] = json.dumps(attributes)
        for name, tensor in tensors.items():
            if tensor is not None:
                self.tensors[f"{case}/{name}"] = tensor.detach().clone().contiguous()

    def add_function(self, case, attributes, function, **inputs):
        """Runs function(**inputs) forward and backward; None inputs are passed on and not kept."""
        leaves = {
            name: value.detach().clone().requires_grad_(value.is_floating_point())
            for name, value in inputs.items()
            if value is not None
        }
        y = function(**{name: leaves.get(name) for name in inputs})
        grad_out = draw(y.shape, y.dtype)
        wanted = [name for name, leaf in leaves.items() if leaf.requires_grad]
        gradients = torch.autograd.grad(y, [leaves[name] for name in wanted], grad_out)
        self.add(case, attributes, y=y, grad_out=grad_out, **leaves,
                 **{f"grad_{name}": g for name, g in zip(wanted, gradients)})

    def save(self, path):
        save_file(self.tensors, path, metadata=self.attributes)


def draw(shape, dtype=torch.float64, scale=1.0):
    return (torch.randn(shape, dtype=torch.float32) * scale).to(dtype)


def convolution_inputs(op, batch, cin, height, width, cout, kernel, groups, bias=True):
    if op == "conv2d":
        weight = draw((cout, cin // groups, *kernel), scale=0.5)
    else:
        weight = draw((cin, cout // groups, *kernel), scale=0.5)
    return dict(x=draw((batch, cin, height, width)), weight=weight,
                bias=draw((cout,)) if bias else None)


CONVOLUTION_NAMES = ("stride", "padding", "output_padding", "dilation", "groups")


def fused_block(x, weight, bias, attributes):
    options = {k: v for k, v in attributes.items() if k in CONVOLUTION_NAMES}
    y = F.conv_transpose2d(x, weight, bias, **options)
    value = F.mish(y) + attributes.get("add", 0.0)
    low = attributes.get("min", -math.inf)
    high = attributes.get("max", math.inf)
    if attributes.get("gradient_at_bounds", False):
        value = torch.clamp(value, low, high)
    else:
        value = F.hardtanh(value, low, high)
    return value * attributes.get("scale", 1.0)


def add_fused_block(cases, case, attributes, **inputs):
    cases.add_function(case, attributes,
                       lambda x, weight, bias: fused_block(x, weight, bias, attributes), **inputs)


def make_fused_block():
    cases = Cases()
    block = dict(add=0.5, min=-1.0, max=1.0, scale=2.0)
    transposed = lambda *args, **kw: convolution_inputs("conv_transpose2d", *args, **kw)
    add_fused_block(cases, "mission",
                    dict(stride=[2, 2], padding=[1, 1], output_padding=[1, 1], **block),
                    **transposed(2, 4, 5, 6, 3, (3, 3), 1))
    add_fused_block(cases, "no_bias", dict(stride=[2, 2], padding=[1, 1], **block),
                    **transposed(1, 3, 4, 4, 5, (4, 4), 1, bias=False))
    add_fused_block(cases, "rectangular_dilated_grouped",
                    dict(stride=[3, 1], padding=[2, 1], output_padding=[1, 0], dilation=[1, 2],
                         groups=2, add=-0.25, min=-0.5, max=3.0, scale=-1.5),
                    **transposed(2, 4, 4, 5, 6, (5, 2), 2))
    add_fused_block(cases, "clamp",
                    dict(stride=[2, 2], padding=[2, 2], output_padding=[1, 1],
                         gradient_at_bounds=True, **block),
                    **transposed(1, 2, 4, 3, 2, (5, 5), 1))
    add_fused_block(cases, "kernel_below_stride",
                    dict(stride=[4, 3], add=0.1, min=-0.2, max=2.5, scale=0.5),
                    **transposed(2, 2, 3, 4, 3, (2, 2), 1))
    add_fused_block(cases, "negative_bounds_zero_scale",
                    dict(stride=[1, 1], padding=[1, 1], add=-1.0, min=-1.2, max=-0.4, scale=0.0),
                    **transposed(1, 1, 5, 5, 1, (3, 3), 1))
    # A 1x1 kernel of value 1 makes y = x: x = 0 gives mish(y) + add = add, exactly at a bound, and
    # mish(24) = 24 does so from far away. hardtanh's gradient is zero there, clamp's is not.
    at_bound = torch.tensor([0.0, 24.0, -0.5, 1.0, 0.0, 30.0, 0.25, 24.0], dtype=torch.float64)
    at_bound = at_bound.reshape(1, 1, 2, 4)
    one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    for name, rule in (("hardtanh", False), ("clamp", True)):
        for bound, values in (("upper", dict(add=0.75, min=-1.0, max=0.75)),
                              ("lower", dict(add=-0.75, min=-0.75, max=9.0)),
                              ("far", dict(min=0.0, max=24.0))):
            add_fused_block(cases, f"{name}_at_{bound}_bound",
                            dict(scale=2.0, gradient_at_bounds=rule, **values),
                            x=at_bound, weight=one, bias=None)
    for name, value in (("infinity", math.inf), ("minus_infinity", -math.inf), ("nan", math.nan)):
        inputs = transposed(1, 2, 7, 7, 2, (3, 3), 1)
        inputs["x"][0, 1, 3, 3] = value  # away from the border: every tap lands inside
        add_fused_block(cases, name,
                        dict(stride=[2, 2], padding=[1, 1], output_padding=[1, 1], **block),
                        **inputs)
    return cases


def make_convolution():
    cases = Cases()
    table = [
        ("conv2d", "plain", (2, 3, 6, 7, 4, (3, 3), 1), {}),
        ("conv2d", "strided", (2, 3, 7, 8, 4, (3, 2), 1), dict(stride=[2, 3], padding=[1, 0])),
        ("conv2d", "dilated", (1, 2, 9, 8, 3, (3, 3), 1), dict(dilation=[2, 1], padding=[2, 1])),
        ("conv2d", "grouped", (2, 6, 5, 5, 4, (3, 3), 2), dict(groups=2, padding=[1, 1])),
        ("conv2d", "depthwise", (1, 4, 5, 6, 8, (5, 3), 4),
         dict(groups=4, padding=[2, 1], stride=[2, 1])),
        ("conv2d", "pointwise", (2, 5, 3, 4, 7, (1, 1), 1), {}),
        ("conv_transpose2d", "plain", (2, 3, 4, 5, 2, (3, 3), 1), {}),
        ("conv_transpose2d", "upsampling", (2, 4, 4, 3, 3, (3, 3), 1),
         dict(stride=[2, 2], padding=[1, 1], output_padding=[1, 1])),
        ("conv_transpose2d", "rectangular", (1, 3, 3, 4, 2, (2, 5), 1),
         dict(stride=[3, 2], padding=[1, 2], output_padding=[2, 1])),
        ("conv_transpose2d", "dilated", (1, 2, 4, 4, 3, (3, 2), 1),
         dict(dilation=[2, 3], stride=[2, 2], padding=[1, 0], output_padding=[0, 2])),
        ("conv_transpose2d", "grouped", (2, 6, 3, 3, 4, (3, 3), 2),
         dict(groups=2, stride=[2, 2], padding=[1, 1])),
        ("conv_transpose2d", "depthwise", (1, 3, 4, 3, 6, (4, 4), 3),
         dict(groups=3, stride=[2, 2], padding=[1, 1])),
    ]
    for op, name, sizes, options in table:
        function = getattr(F, op)
        cases.add_function(
            f"{op}_{name}", dict(op=op, **options),
            lambda x, weight, bias: function(x, weight, bias, **options),
            **convolution_inputs(op, *sizes))
    return cases


def make_batch_norm():
    cases = Cases()
    for name, shape, training, affine in (("train", (4, 3, 5, 2), True, True),
                                          ("train_plain", (5, 2), True, False),
                                          ("train_3d", (3, 4, 6), True, True),
                                          ("eval", (3, 2, 4, 4), False, True),
                                          ("eval_plain", (2, 3, 3, 1), False, False)):
        channels = shape[1]
        mean, variance = draw((channels,)), draw((channels,)).abs() + 0.5
        running_mean, running_var = mean.clone(), variance.clone()

        def function(x, weight, bias):
            return F.batch_norm(x, running_mean, running_var, weight, bias, training=training,
                                momentum=0.3, eps=1e-3)

        cases.add_function(name, dict(training=training, momentum=0.3, eps=1e-3), function,
                           x=draw(shape, scale=2.0) + 1,
                           weight=draw((channels,)) if affine else None,
                           bias=draw((channels,)) if affine else None)
        cases.add(name + "_running", {}, mean_before=mean, var_before=variance,
                  mean_after=running_mean, var_after=running_var)
    return cases


def make_pool():
    cases = Cases()
    table = [
        ("max_pool2d", "plain", (2, 3, 6, 8), dict(kernel_size=[2, 2])),
        ("max_pool2d", "overlapping", (1, 2, 7, 7),
         dict(kernel_size=[3, 3], stride=[2, 2], padding=[1, 1])),
        ("max_pool2d", "dilated", (1, 2, 9, 8),
         dict(kernel_size=[3, 2], stride=[1, 2], dilation=[2, 3])),
        ("max_pool2d", "ceil", (2, 1, 6, 7),
         dict(kernel_size=[3, 3], stride=[2, 3], padding=[1, 1], ceil_mode=True)),
        ("avg_pool2d", "plain", (2, 3, 6, 8), dict(kernel_size=[2, 2])),
        ("avg_pool2d", "padded", (1, 2, 7, 7),
         dict(kernel_size=[3, 3], stride=[2, 2], padding=[1, 1])),
        ("avg_pool2d", "without_padding_counted", (1, 2, 7, 5),
         dict(kernel_size=[3, 2], stride=[2, 1], padding=[1, 1], count_include_pad=False)),
        ("avg_pool2d", "ceil", (2, 1, 6, 7),
         dict(kernel_size=[3, 3], stride=[2, 3], padding=[1, 1], ceil_mode=True)),
        ("avg_pool2d", "ceil_without_padding_counted", (1, 1, 6, 8),
         dict(kernel_size=[4, 3], stride=[3, 3], padding=[2, 1], ceil_mode=True,
              count_include_pad=False)),
    ]
    for op, name, shape, options in table:
        function = getattr(F, op)
        cases.add_function(f"{op}_{name}", dict(op=op, **options),
                           lambda x: function(x, **options), x=draw(shape))
    return cases


EXTREMES = [0.0, -0.0, 1e-30, -1e-30, 1e-8, -1e-8, 1e-3, -1e-3, 0.5, -0.5, 1.0, -1.0, 3.0, -3.0,
            6.0, -6.0, 10.0, -10.0, 19.9, 20.0, 20.1, -20.0, 40.0, -40.0, 80.0, -80.0, 100.0,
            -100.0, 800.0, -800.0, 1e30, -1e30, math.inf, -math.inf, math.nan]


def make_activation():
    cases = Cases()
    functions = {
        "mish": (F.mish, {}),
        "gelu": (F.gelu, {}),
        "gelu_tanh": (lambda x: F.gelu(x, approximate="tanh"), dict(approximate="tanh")),
        "elu": (F.elu, {}),
        "elu_alpha": (lambda x: F.elu(x, 0.7), dict(alpha=0.7)),
        "silu": (F.silu, {}),
        "softplus": (F.softplus, {}),
        "softplus_beta": (lambda x: F.softplus(x, 2.0, 5.0), dict(beta=2.0, threshold=5.0)),
        "hardtanh": (F.hardtanh, {}),
        "hardtanh_bounds": (lambda x: F.hardtanh(x, -0.5, 3.0), dict(min=-0.5, max=3.0)),
        "clamp": (lambda x: torch.clamp(x, -0.5, 3.0), dict(min=-0.5, max=3.0)),
        "relu": (F.relu, {}),
        "leaky_relu": (lambda x: F.leaky_relu(x, 0.1), dict(negative_slope=0.1)),
        "sigmoid": (torch.sigmoid, {}),
        "tanh": (torch.tanh, {}),
        "exp": (torch.exp, {}),
        "log": (torch.log, {}),
        "sqrt": (torch.sqrt, {}),
        "abs": (torch.abs, {}),
    }
    for dtype in (torch.float64, torch.float32):
        x = torch.tensor(EXTREMES, dtype=torch.float32).to(dtype)
        grid = torch.linspace(-9.0, 9.0, 73, dtype=torch.float32).to(dtype)
        for name, (function, attributes) in functions.items():
            suffix = str(dtype).split(".")[1]
            cases.add_function(f"{name}_{suffix}", dict(op=name, dtype=suffix, **attributes),
                               lambda x: function(x), x=torch.cat([x, grid]))
    return cases


def make_loss():
    cases = Cases()
    logits = draw((5, 7), scale=3.0)
    logits[1, 2], logits[2, 0], logits[3, 3] = 1e4, -1e4, 60.0
    target = torch.tensor([0, 2, 0, 6, 3])
    maps = draw((2, 4, 3, 2))
    map_target = torch.arange(12).reshape(2, 3, 2) % 4
    for reduction in ("mean", "sum", "none"):
        options = dict(reduction=reduction)
        cases.add_function(f"cross_entropy_{reduction}", dict(op="cross_entropy", **options),
                           lambda x, target: F.cross_entropy(x, target, **options),
                           x=logits, target=target)
        cases.add_function(f"cross_entropy_maps_{reduction}", dict(op="cross_entropy", **options),
                           lambda x, target: F.cross_entropy(x, target, **options),
                           x=maps, target=map_target)
        for name in ("mse_loss", "l1_loss", "binary_cross_entropy_with_logits"):
            target_values = torch.rand((5, 7), dtype=torch.float32).double()
            cases.add_function(f"{name}_{reduction}", dict(op=name, **options),
                               lambda x, target: getattr(F, name)(x, target, **options),
                               x=logits, target=target_values)
    masked = draw((4, 5, 3), scale=4.0)
    masked[0, 1, 2], masked[2, :, 1] = -math.inf, 1e4
    masked[3, 2, 0] = -1e30
    for dim in (0, 1, -1):
        for name in ("softmax", "log_softmax"):
            cases.add_function(f"{name}_dim_{dim}".replace("-", "m"), dict(op=name, dim=dim),
                               lambda x: getattr(F, name)(x, dim), x=masked)
    return cases


def make_matmul():
    cases = Cases()
    for name, a, b in (("matrix", (5, 3), (3, 4)), ("vector_vector", (6,), (6,)),
                       ("matrix_vector", (3, 5), (5,)), ("vector_matrix", (4,), (4, 3)),
                       ("batch_vector", (2, 3, 4), (4,)), ("vector_batch", (3,), (2, 3, 5)),
                       ("batched", (2, 3, 4), (2, 4, 5)),
                       ("broadcast", (3, 1, 2, 4), (5, 4, 3)), ("shared", (2, 3, 4), (4, 2))):
        cases.add_function(name, {}, lambda a, b: torch.matmul(a, b), a=draw(a), b=draw(b))
    cases.add_function("linear", {}, lambda x, weight, bias: F.linear(x, weight, bias),
                       x=draw((2, 3, 4)), weight=draw((5, 4)), bias=draw((5,)))
    return cases


def write_state_dicts(folder):
    """Files as a PyTorch user writes them, for the reader and the writer to agree with."""
    values = torch.arange(-6, 6).reshape(3, 4)
    save_file(
        {
            "encoder.0.weight": draw((3, 2, 3, 3), torch.float32),
            "encoder.0.bias": torch.tensor([0.0, -0.0, math.inf], dtype=torch.float32),
            "double": torch.tensor([math.pi, math.nan, -math.inf, 5e-324], dtype=torch.float64),
            "half": (values / 3).to(torch.float16),
            "brain": (values / 3).to(torch.bfloat16),
            "steps": torch.tensor([-(2**63), -1, 0, 2**63 - 1]),
            "bytes": torch.arange(0, 256, 17, dtype=torch.uint8),
            "mask": values % 2 == 0,
            "num_batches_tracked": torch.tensor(12345),
            "empty": torch.zeros(0, 3),
            "name with spaces \u00e9": torch.ones(1),
        },
        os.path.join(folder, "state_dict.safetensors"),
        metadata={"format": "pt", "note": "quote \" backslash \\ newline \n unicode \u00e9"})
    model = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3, stride=2, padding=1), torch.nn.BatchNorm2d(4), torch.nn.Mish(),
        torch.nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1, output_padding=1),
        torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 6, 5))
    for _ in range(3):
        model(torch.randn(4, 2, 8, 6))
    save_file(model.state_dict(), os.path.join(folder, "model.safetensors"),
              metadata={"format": "pt"})
    model.eval()
    x = torch.randn(2, 2, 8, 6)
    cases = Cases()
    cases.add("model", {}, x=x, y=model(x))
    cases.save(os.path.join(folder, "model_output.safetensors"))


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    makers = dict(fused_block=make_fused_block, convolution=make_convolution,
                  batch_norm=make_batch_norm, pool=make_pool, activation=make_activation,
                  loss=make_loss, matmul=make_matmul)
    for seed, (name, make) in enumerate(makers.items()):
        torch.manual_seed(seed)
        make().save(os.path.join(folder, name + ".safetensors"))
    torch.manual_seed(100)
    write_state_dicts(folder)
    total = sum(os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder))
    print(f"torch {torch.__version__}: {total} bytes in {folder}")


if __name__ == "__main__":
    main()
