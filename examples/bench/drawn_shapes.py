#!/usr/bin/env python3
"""Draws shapes at random and times the block on them beside cuDNN in an expert's hands.

The shapes are those that programs have: images of 4 to 128 pixels, not all of them multiples of
eight, 8 to 512 channels, the kernels and strides of generators, decoders and U-Nets. The same seed
draws the same shapes. Needs bench_block and a CUDA GPU; about five seconds a shape.
"""

import argparse
import json
import math
import random
import subprocess
import sys

# kernel, stride, padding, output_padding; the commonest twice
GEOMETRIES = [(2, 2, 0, 0), (3, 1, 1, 0), (3, 2, 1, 1), (3, 2, 1, 0), (4, 2, 1, 0), (4, 2, 1, 0),
              (5, 2, 2, 1), (5, 1, 2, 0), (4, 4, 0, 0), (6, 2, 2, 0), (7, 2, 3, 1), (3, 3, 0, 0)]
SIDES = [4, 7, 8, 12, 14, 16, 24, 28, 32, 33, 48, 56, 64, 96, 100, 128]
CHANNELS = [8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512]
BATCHES = [1, 2, 4, 8, 16, 32, 64, 128]
MOST_OUTPUTS = 2 ** 27
MOST_GFLOP = 200.0


def draw_shape(generator):
    """N, Cin, H, W, Cout, k, s, p, op of a block that is neither trivial nor larger than most."""
    while True:
        batch, cin, cout = (generator.choice(choices) for choices in (BATCHES, CHANNELS, CHANNELS))
        side = generator.choice(SIDES)
        kernel, stride, padding, output_padding = generator.choice(GEOMETRIES)
        out = (side - 1) * stride - 2 * padding + kernel + output_padding
        gflop = 2e-9 * batch * cin * cout * side * side * kernel * kernel
        if batch * cout * out * out <= MOST_OUTPUTS and 0.05 <= gflop <= MOST_GFLOP:
            return batch, cin, side, side, cout, kernel, stride, padding, output_padding


def draw_shapes(count, seed):
    generator = random.Random(seed)
    return [draw_shape(generator) for _ in range(count)]


def ratio_of(output):
    """Ours and the expert's milliseconds of bench_block's JSON, and what ran."""
    rows = output["results"][0]["rows"]
    ours = next(row for row in rows if row["path"] == "auto")
    expert = min(row["milliseconds"] for row in rows
                 if row["peer"] and row["whole"] and row["milliseconds"] is not None)
    return ours["milliseconds"], expert, ours["configuration"]


def geometric_mean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bench", required=True, help="Tenon's bench_block")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--first", type=int, default=0, help="leave out so many of them")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--precision", default="tf32,bfloat16", help="in turns, shape by shape")
    parser.add_argument("--mode", default="forward", choices=["forward", "train"])
    arguments = parser.parse_args()
    precisions = arguments.precision.split(",")
    ratios = []
    print("ours ms  expert ms  ratio  precision  shape; what ran")
    for i, shape in enumerate(draw_shapes(arguments.count, arguments.seed)):
        if i < arguments.first:
            continue
        text = ",".join(map(str, shape))
        precision = precisions[i % len(precisions)]
        command = [arguments.bench, "--json", "--device", "cuda", "--shape", text,
                   "--precision", precision, "--mode", arguments.mode,
                   "--path", "auto,expert", "--fusion-plans", "1"]
        finished = subprocess.run(command, capture_output=True, text=True)
        if finished.returncode != 0:
            sys.exit(f"{' '.join(command)} failed:\n{finished.stderr}")
        ours, expert, ran = ratio_of(json.loads(finished.stdout))
        ratios.append(ours / expert)
        print(f"{ours:7.4f}  {expert:9.4f}  {ratios[-1]:5.2f}  {precision:9}  {text}; {ran}",
              flush=True)
    print(f"{len(ratios)} shapes: geometric mean {geometric_mean(ratios):.3f}, worst "
          f"{max(ratios):.2f}, above 1.05: {sum(ratio > 1.05 for ratio in ratios)}")


if __name__ == "__main__":
    main()
