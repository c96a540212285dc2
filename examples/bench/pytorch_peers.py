#!/usr/bin/env python3
"""Times the block conv_transpose2d -> mish -> + 0.5 -> hardtanh(-1, 1) -> * 2 through PyTorch.

The peers: eager mode, torch.compile, and a convolution followed by one pointwise pass written in
Triton, each in both memory formats, cudnn.benchmark on. With --bench build/examples/bench_block
the same problems run through Tenon too, and one table shows both.

Needs a CUDA GPU, PyTorch 2.x and Triton; no network.
"""

import argparse
import json
import math
import subprocess
import sys
import warnings
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
import triton
from peer_timing import DTYPES, FORMATS, Problem, copy_bandwidth, measure
from shapes import SHAPES, parse_shape
from triton_passes import ADD, HIGH, LOW, SCALE, TritonBlock, epilogue_pass


def eager_block(problem):
    *_, stride, padding, output_padding = problem.numbers

    def block(x, weight, bias):
        y = F.conv_transpose2d(x, weight, bias, stride, padding, output_padding)
        return F.hardtanh(F.mish(y) + ADD, LOW, HIGH) * SCALE

    return block


def compiled_block(problem):
    torch._dynamo.reset()
    return torch.compile(eager_block(problem), dynamic=False)


def triton_block(problem):
    *_, stride, padding, output_padding = problem.numbers
    if problem.train:
        return lambda x, weight, bias: TritonBlock.apply(x, weight, bias, stride, padding,
                                                         output_padding)

    def block(x, weight, bias):
        y = F.conv_transpose2d(x, weight, None, stride, padding, output_padding)
        epilogue_pass(y, bias, y)
        return y

    return block


PEERS = {
    "eager": eager_block,
    "convolution + Triton pass": triton_block,
    "torch.compile": compiled_block,
}


@dataclass
class Row:
    path: str
    milliseconds: float
    host_microseconds: float = 0.0
    peak_bytes: int | None = None
    relative_error: float | None = None
    note: str = ""
    fraction_of_floor: float | None = None
    tflop_per_second: float | None = None
    ours: bool = False
    whole: bool = True  # False for a part of the block, such as a convolution alone
    expert: bool = False


def time_peer(problem, name, layout, floor):
    """One row; `floor` is the problem's in milliseconds."""
    block = PEERS[name](problem)
    sets = problem.inputs(FORMATS[layout])
    kept = [None] * len(sets)  # so that results rotate through memory as the inputs do

    def step(i):
        x, weight, bias, grad_out = sets[i % len(sets)]
        z = block(x, weight, bias)
        gradients = torch.autograd.grad(z, (x, weight, bias), grad_out) if problem.train else ()
        kept[i % len(sets)] = (z, *gradients)

    milliseconds, host = measure(step)
    kept[:] = [None] * len(sets)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step(0)
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() - before

    with torch.no_grad():
        exact = eager_block(problem)(*sets[0][:3]).float()
        error = ((kept[0][0].float() - exact).norm() / exact.norm()).item()
    return Row(f"{name}, {layout}", milliseconds, host, peak, error,
               fraction_of_floor=floor / milliseconds,
               tflop_per_second=problem.flop() / (milliseconds * 1e-3) / 1e12)


def pytorch_rows(problem, peers, floor):
    tf32 = problem.precision == "tf32"
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    rows = []
    for name in peers:
        for layout in FORMATS:
            try:
                rows.append(time_peer(problem, name, layout, floor))
            except Exception as error:  # a peer that fails is a result too
                note = f"{type(error).__name__}: {error}".splitlines()[0][:100]
                rows.append(Row(f"{name}, {layout}", math.nan, note=note))
            torch.cuda.empty_cache()
    return rows


def tenon_rows(problem, arguments):
    """bench_block's rows for the same problem, and the copy bandwidth that it measured."""
    shape = problem.name if problem.name in SHAPES else ",".join(map(str, problem.numbers))
    mode = "train" if problem.train else "forward"
    command = [arguments.bench, "--json", "--device", "cuda", "--shape", shape,
               "--precision", problem.precision, "--mode", mode, "--path", arguments.paths,
               "--fusion-plans", arguments.fusion_plans]
    torch.cuda.empty_cache()
    finished = subprocess.run(command, capture_output=True, text=True)
    if finished.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{finished.stderr}")
    output = json.loads(finished.stdout)
    rows = [
        Row(
            "tenon: " + row["path"],
            math.nan if row["milliseconds"] is None else row["milliseconds"],
            row["host_microseconds"],
            row["peak_bytes"],
            row["relative_error"],
            row["configuration"],
            row["fraction_of_floor"],
            row["tflop_per_second"],
            ours=True,
            whole=row["whole"],
            expert=row["peer"],
        )
        for row in output["results"][0]["rows"]
    ]
    return rows, output["copy_gigabytes_per_second"] * 1e9


def text_of(value, form):
    return "-" if value is None or not math.isfinite(value) else format(value, form)


def print_table(problem, rows, floor):
    first = rows[0].milliseconds
    mode = "forward + backward" if problem.train else "forward"
    print(f"\n{problem.name} ({','.join(map(str, problem.numbers))}), {problem.precision}, {mode}: "
          f"floor {floor:.4f} ms")
    lines = [("path", "ms", "/ first", "% of floor", "TFLOP/s", "host us", "peak MiB", "error", "")]
    for row in rows:
        share = None if row.fraction_of_floor is None else 100 * row.fraction_of_floor
        peak = None if row.peak_bytes is None else row.peak_bytes / 2**20
        lines.append((row.path, text_of(row.milliseconds, ".4f"),
                      text_of(row.milliseconds / first, ".3f"), text_of(share, ".1f"),
                      text_of(row.tflop_per_second, ".1f"), text_of(row.host_microseconds, ".1f"),
                      text_of(peak, ".1f"), text_of(row.relative_error, ".1e"), row.note))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:-1], widths[1:-1])]
        print("  ".join([*cells, line[-1]]).rstrip())
    summarize(rows)
    sys.stdout.flush()


def summarize(rows):
    """Our first row over the best peer of each kind."""
    ours = next((row for row in rows if row.ours), None)
    if ours is None:
        return
    groups = {"the expert": [row for row in rows if row.expert and row.whole]}
    for name in PEERS:
        groups[name] = [row for row in rows if not row.ours and row.path.startswith(name)]
    ratios = []
    for name, members in groups.items():
        times = [row.milliseconds for row in members if math.isfinite(row.milliseconds)]
        if times:
            ratios.append(f"{ours.milliseconds / min(times):.3f} of the best {name}".replace(
                "the best the", "the"))
    print(f"{ours.path}: " + ", ".join(ratios))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="mission",
                        help="names or N,Cin,H,W,Cout,k,s,p,op; several separated by spaces")
    parser.add_argument("--all-shapes", action="store_true", help="all shapes that have a name")
    parser.add_argument("--precision", default="tf32",
                        help="tf32, float32, bfloat16, float16; several separated by commas")
    parser.add_argument("--mode", default="forward", help="forward, train, or both: forward,train")
    parser.add_argument("--peers", default=",".join(PEERS), help="which peers, separated by commas")
    parser.add_argument("--bench", help="Tenon's bench_block, to run on the same problems")
    parser.add_argument("--paths", default="auto,expert", help="the --path of bench_block")
    parser.add_argument("--fusion-plans", default="0", help="as of bench_block")
    parser.add_argument("--json", help="also write everything to this file")
    return parser.parse_args()


def named_shape(text):
    try:
        return text, parse_shape(text)
    except ValueError:
        sys.exit(f"--shape: {text!r} is neither {', '.join(SHAPES)} nor N,Cin,H,W,Cout,k,s,p,op")


def parse_list(option, text, known):
    items = [item.strip() for item in text.split(",")]
    for item in items:
        if item not in known:
            sys.exit(f"--{option}: {item!r} is not one of {', '.join(known)}")
    return items


def main():
    arguments = parse_arguments()
    shapes = list(SHAPES.items()) if arguments.all_shapes else [
        named_shape(text) for text in arguments.shape.split()]
    precisions = parse_list("precision", arguments.precision, DTYPES)
    modes = parse_list("mode", arguments.mode, ("forward", "train"))
    peers = parse_list("peers", arguments.peers, PEERS)
    if not torch.cuda.is_available():
        sys.exit("pytorch_peers.py measures on a GPU, and PyTorch sees none")
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True

    copy = copy_bandwidth()
    torch.cuda.empty_cache()
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, "
          f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}, "
          f"Triton {triton.__version__}: "
          f"copy bandwidth {copy / 1e9:.0f} GB/s, read + write")
    results = []
    for name, numbers in shapes:
        for precision in precisions:
            for mode in modes:
                problem = Problem(name, numbers, precision, mode == "train")
                rows, roof = [], copy
                if arguments.bench:
                    rows, measured = tenon_rows(problem, arguments)
                    roof = max(copy, measured)
                floor = problem.floor_bytes() / roof * 1e3
                rows += pytorch_rows(problem, peers, floor)
                print_table(problem, rows, floor)
                results.append({"shape": name, "numbers": numbers, "precision": precision,
                                "mode": mode, "floor_milliseconds": floor,
                                "rows": [asdict(row) for row in rows]})
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump({"copy_bytes_per_second": copy, "results": results}, file, indent=1)


if __name__ == "__main__":
    main()
