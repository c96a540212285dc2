#!/usr/bin/env python3
"""Host time of an op in PyTorch, measured as bench_overhead measures it, and both in one table.

    examples/bench/pytorch_overhead.py --bench build/cuda/examples/bench_overhead

PyTorch is called from Python, as it is used; its loops over a thousand ops are Python's.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import torch

OPS = 1000
ELEMENTS = 16
WARM_UP = 3
# As in bench_overhead.cpp: a queue that was full when the host was done takes longer to drain.
FULL_QUEUE_MICROSECONDS = 1000

# Name, ops a link, the link: as in bench_overhead.cpp.
CHAINS = (
    ("x * a + b", 2, lambda x, y: x * 0.5 + 0.25),
    ("x * y + y", 2, lambda x, y: x * y + y),
    ("tanh(x)", 1, lambda x, y: torch.tanh(x)),
    ("tanh(x * y + b)", 3, lambda x, y: torch.tanh(x * y + 0.25)),
)
MODES = ("gradients off", "forward", "forward + backward")


def synchronize(device):
    if device == "cuda":
        torch.cuda.synchronize()


def measure(device, repeats, ops, run):
    """Medians in microseconds: of the host for an op, and until the device was done too."""
    host, drain = [], []
    for i in range(WARM_UP + repeats):
        synchronize(device)
        start = time.perf_counter()
        run()
        sent = time.perf_counter()
        synchronize(device)
        done = time.perf_counter()
        if i >= WARM_UP:
            host.append((sent - start) / ops * 1e6)
            drain.append((done - sent) * 1e6)
    return statistics.median(host), statistics.median(drain)


def time_chain(link, ops, mode, device, repeats):
    recorded = mode != "gradients off"
    x = torch.full((ELEMENTS,), 0.5, device=device, requires_grad=recorded)
    y = torch.full((ELEMENTS,), 0.75, device=device)
    seed = torch.ones(ELEMENTS, device=device)
    links = OPS // ops

    def run():
        value = x
        for _ in range(links):
            value = link(value, y)
        if mode == "forward + backward":
            value.backward(seed)
        x.grad = None

    with torch.set_grad_enabled(recorded):
        return measure(device, repeats, links * ops, run)


def time_parts(device, repeats):
    x = torch.full((ELEMENTS,), 0.5, device=device)

    def memory():
        for _ in range(OPS):
            torch.empty(ELEMENTS, device=device)

    def launch():
        for _ in range(OPS):
            x.fill_(0.25)

    with torch.no_grad():
        return {
            ("empty(16), its memory", "part"): measure(device, repeats, OPS, memory),
            ("x.fill_(a), a launch", "part"): measure(device, repeats, OPS, launch),
        }


def pytorch_rows(device, repeats):
    rows = {}
    for name, ops, link in CHAINS:
        for mode in MODES:
            rows[name, mode] = time_chain(link, ops, mode, device, repeats)
    return rows | time_parts(device, repeats)


def tenon_rows(bench, device, repeats):
    command = [bench, "--json", "--device", device, "--repeats", str(repeats)]
    finished = subprocess.run(command, capture_output=True, text=True)
    if finished.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{finished.stderr}")
    return {(row["chain"], row["mode"]): row for row in json.loads(finished.stdout)["rows"]}


def verdict(row):
    if row["queue_was_full"]:
        return "our queue was full"
    bar = row["bar_microseconds"]
    return "" if bar is None else "met" if row["host_microseconds"] <= bar else "missed"


def print_table(device, theirs, ours):
    place = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(f"\nhost us an op, {OPS} ops on {ELEMENTS} floats, {place}, PyTorch {torch.__version__} "
          "from Python")
    print(f"{'chain':22}  {'mode':18}  {'tenon':>8}  {'pytorch':>8}  {'ratio':>6}  {'bar':>4}")
    for key, (host, drain) in theirs.items():
        row = ours.get(key)
        note = " pytorch's queue was full" if drain > FULL_QUEUE_MICROSECONDS else ""
        if row is None:
            cells = f"{'-':>8}  {host:8.3f}  {'-':>6}  {'-':>4} {note}"
        else:
            mine, bar = row["host_microseconds"], row["bar_microseconds"]
            cells = (f"{mine:8.3f}  {host:8.3f}  {mine / host:6.2f}  "
                     f"{'-' if bar is None else f'{bar:.0f}':>4}  {verdict(row)}{note}")
        print(f"{key[0]:22}  {key[1]:18}  {cells}".rstrip())


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", help="Tenon's bench_overhead, to run beside")
    parser.add_argument("--device", default="cpu,cuda" if torch.cuda.is_available() else "cpu",
                        help="cpu, cuda, or both separated by a comma")
    parser.add_argument("--repeats", type=int, default=21)
    arguments = parser.parse_args()
    devices = arguments.device.split(",")
    for device in devices:
        if device not in ("cpu", "cuda"):
            parser.error(f"--device: {device!r} is neither cpu nor cuda")
    torch.set_num_threads(1)  # sixteen elements are no work to share
    for device in devices:
        ours = tenon_rows(arguments.bench, device, arguments.repeats) if arguments.bench else {}
        print_table(device, pytorch_rows(device, arguments.repeats), ours)


if __name__ == "__main__":
    main()
