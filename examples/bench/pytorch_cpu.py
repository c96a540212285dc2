#!/usr/bin/env python3
"""The block through PyTorch on the CPU beside Tenon's, in turns.

    examples/bench/pytorch_cpu.py --bench build/cpu/examples/bench_block

Eager mode and torch.compile, each in both memory formats, with as many threads as Tenon. The two
are programs of their own: while one is timed the other waits for its turn, and between two turns
the machine idles until the threads of the last one have stopped looking for work. A turn is an
untimed call and a timed one. Needs PyTorch 2.x; no GPU, no network.
"""

import argparse
import json
import statistics
import sys
import time
import warnings

import torch
import torch.nn.functional as F

from shapes import SHAPES, parse_shape
from turns import CPU_SHAPES, Tenon, take_turns

FORMATS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
WARM_UP = 2
OURS = "tenon: fused"


class PyTorch:
    """One way through PyTorch."""

    def __init__(self, numbers, mode, layout, compiled):
        self.name = f"{'torch.compile' if compiled else 'eager'}, {layout}"
        self.train = mode == "train"
        n, cin, h, w, cout, k, stride, padding, output_padding = numbers

        def block(x, weight, bias):
            y = F.conv_transpose2d(x, weight, bias, stride, padding, output_padding)
            return F.hardtanh(F.mish(y) + 0.5, -1.0, 1.0) * 2.0

        def normal(shape, deviation=1.0):
            values = torch.randn(shape) * deviation
            return values.contiguous(memory_format=FORMATS[layout]) if len(shape) == 4 else values

        torch._dynamo.reset()
        self.block = torch.compile(block, dynamic=False) if compiled else block
        self.leaves = [normal((n, cin, h, w)),
                       normal((cin, cout, k, k), max(cin * k * k / stride**2, 1)**-0.5),
                       normal((cout,))]
        self.grad_out = normal(block(*self.leaves).shape)
        for leaf in self.leaves:
            leaf.requires_grad_(self.train)
        for _ in range(WARM_UP):
            self.call()

    def call(self):
        with torch.set_grad_enabled(self.train):
            z = self.block(*self.leaves)
            return torch.autograd.grad(z, self.leaves, self.grad_out) if self.train else z

    def turn(self):
        self.call()
        start = time.perf_counter()
        self.call()
        return (time.perf_counter() - start) * 1e3

    def close(self):
        pass


def measure(arguments, numbers, mode):
    candidates = [Tenon(OURS, arguments.bench, numbers, mode, torch.get_num_threads())]
    for compiled in (False, True):
        for layout in FORMATS:
            try:
                candidates.append(PyTorch(numbers, mode, layout, compiled))
            except Exception as error:  # a peer that fails is a result too
                print(f"{'torch.compile' if compiled else 'eager'}, {layout}: "
                      f"{type(error).__name__}: {error}".splitlines()[0][:120], file=sys.stderr)
    return take_turns(candidates, arguments.rounds)


def report(numbers, mode, times):
    """Prints one table and returns our median over the best peer's."""
    print(f"\n{','.join(map(str, numbers))}, float32, "
          f"{'forward + backward' if mode == 'train' else 'forward'}")
    for name, values in times.items():
        print(f"  {name:22} {statistics.median(values):9.3f} ms, least {min(values):9.3f}")
    medians = {name: statistics.median(values) for name, values in times.items()}
    best = min((value, name) for name, value in medians.items() if name != OURS)
    ratio = medians[OURS] / best[0]
    print(f"  Tenon takes {ratio:.3f} of {best[1]}", flush=True)
    return ratio


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", required=True, help="Tenon's bench_block")
    parser.add_argument("--shape", default=CPU_SHAPES,
                        help="names or N,Cin,H,W,Cout,k,s,p,op; several separated by spaces")
    parser.add_argument("--mode", default="forward,train", help="forward, train, or both")
    parser.add_argument("--threads", type=int, default=0, help="of both; 0: all processors")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--json", help="also write everything to this file")
    arguments = parser.parse_args()
    shapes = []
    for text in arguments.shape.split():
        try:
            shapes.append(parse_shape(text))
        except ValueError:
            parser.error(f"--shape: {text!r} is neither {', '.join(SHAPES)} nor nine numbers")
    modes = arguments.mode.split(",")
    if not set(modes) <= {"forward", "train"}:
        parser.error(f"--mode: {arguments.mode!r} is not of forward, train")
    threads = arguments.threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    print(f"PyTorch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, "
          f"{threads} threads")
    results = []
    for numbers in shapes:
        for mode in modes:
            times = measure(arguments, numbers, mode)
            results.append({"numbers": numbers, "mode": mode, "milliseconds": times,
                            "ratio": report(numbers, mode, times)})
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump({"threads": threads, "results": results}, file, indent=1)


if __name__ == "__main__":
    main()
