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
import os
import statistics
import subprocess
import sys
import time
import warnings

import torch
import torch.nn.functional as F

from shapes import SHAPES, parse_shape

# The first is the mission's shape at batch 4; the others as onednn_peer measures them.
CPU_SHAPES = ("4,64,128,128,64,3,2,1,1 16,128,32,32,64,4,2,1,0 "
              "32,256,8,8,128,4,2,1,0 4,128,64,64,64,2,2,0,0")
FORMATS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
IDLE_SECONDS = 0.02
WARM_UP = 2


class Tenon:
    """bench_block, which times one call whenever it is asked."""

    name = "tenon: fused"

    def __init__(self, arguments, numbers, mode):
        self.command = [arguments.bench, "--turns", "--device", "cpu", "--precision", "float32",
                        "--shape", ",".join(map(str, numbers)), "--mode", mode, "--path", "fused"]
        environment = os.environ | {"TENON_NUM_THREADS": str(torch.get_num_threads())}
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, env=environment)
        self.read("ready")

    def read(self, what):
        line = self.process.stdout.readline().strip()
        if not line:
            sys.exit(f"{' '.join(self.command)} ended before it was {what}")
        return line

    def turn(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.read("done"))

    def close(self):
        self.process.stdin.close()
        self.process.wait()


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
    candidates = [Tenon(arguments, numbers, mode)]
    for compiled in (False, True):
        for layout in FORMATS:
            try:
                candidates.append(PyTorch(numbers, mode, layout, compiled))
            except Exception as error:  # a peer that fails is a result too
                print(f"{'torch.compile' if compiled else 'eager'}, {layout}: "
                      f"{type(error).__name__}: {error}".splitlines()[0][:120], file=sys.stderr)
    times = {candidate.name: [] for candidate in candidates}
    for _ in range(arguments.rounds):
        for candidate in candidates:
            time.sleep(IDLE_SECONDS)
            times[candidate.name].append(candidate.turn())
    for candidate in candidates:
        candidate.close()
    return times


def report(numbers, mode, times):
    """Prints one table and returns our median over the best peer's."""
    print(f"\n{','.join(map(str, numbers))}, float32, "
          f"{'forward + backward' if mode == 'train' else 'forward'}")
    for name, values in times.items():
        print(f"  {name:22} {statistics.median(values):9.3f} ms, least {min(values):9.3f}")
    medians = {name: statistics.median(values) for name, values in times.items()}
    best = min((value, name) for name, value in medians.items() if name != Tenon.name)
    ratio = medians[Tenon.name] / best[0]
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
    arguments.bench = arguments.bench if "/" in arguments.bench else f"./{arguments.bench}"
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
