#!/usr/bin/env python3
"""What Nsight Compute measured of each kernel of a call, as a table, and what limits it.

    ncu --csv --page raw --metrics $(examples/bench/profile_report.py --metrics) ... |
        examples/bench/profile_report.py --shape mission -

`./run profile` does all of it.
"""

import argparse
import csv
import json
import math
import re
import sys
from pathlib import Path

from kernel_report import shorten
from shapes import forward_flop, parse_shape

METRICS = {
    "duration": "gpu__time_duration.sum",
    "sm_percent": "sm__throughput.avg.pct_of_peak_sustained_elapsed",
    "dram_percent": "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "l2_percent": "lts__throughput.avg.pct_of_peak_sustained_elapsed",
    "l1_percent": "l1tex__throughput.avg.pct_of_peak_sustained_elapsed",
    "l2_hit_percent": "lts__t_sector_hit_rate.pct",
    "warps_percent": "sm__warps_active.avg.pct_of_peak_sustained_active",
    "bytes_read": "dram__bytes_read.sum",
    "bytes_written": "dram__bytes_write.sum",
    "local_loads": "smsp__inst_executed_op_local_ld.sum",
    "local_stores": "smsp__inst_executed_op_local_st.sum",
    "blocks": "launch__grid_size",
    "threads": "launch__block_size",
    "waves": "launch__waves_per_multiprocessor",
    "registers": "launch__registers_per_thread",
    "static_shared": "launch__shared_mem_per_block_static",
    "dynamic_shared": "launch__shared_mem_per_block_dynamic",
    "blocks_by_registers": "launch__occupancy_limit_registers",
    "blocks_by_shared": "launch__occupancy_limit_shared_mem",
    "blocks_by_warps": "launch__occupancy_limit_warps",
}
# Units as ncu writes them, with --print-units base or without; what is not here is a plain number.
UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "nsecond": 1e-9, "usecond": 1e-6,
         "msecond": 1e-3, "second": 1.0, "byte": 1.0, "Kbyte": 1e3, "Mbyte": 1e6, "Gbyte": 1e9,
         "byte/block": 1.0, "Kbyte/block": 1e3}
BUSY_PERCENT = 60  # from here on a unit is what a kernel waits for


def number(text, unit):
    """A cell of ncu's in seconds, bytes or as it is; NaN where ncu had nothing to say."""
    try:
        return float(text.replace(",", "")) * UNITS.get(unit, 1.0)
    except ValueError:
        return math.nan


def parse(text):
    """The kernels in ncu's output of `--csv --page raw`: a line of names, one of units, then one a
    launch. What the profiled program and ncu print besides comes before and is skipped."""
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), None)
    if start is None:
        sys.exit("profile_report: there is no table of ncu's in the input; it says:\n"
                 + "\n".join(lines[-8:]))
    header, units, *records = list(csv.reader(lines[start:]))
    columns = {name: i for i, name in enumerate(header)}
    kernels = []
    for record in records:
        if len(record) != len(header):
            continue  # a line that the program printed at its end
        kernel = {"kernel": shorten(record[columns["Kernel Name"]])}
        for key, metric in METRICS.items():
            column = columns.get(metric)
            kernel[key] = math.nan if column is None else number(record[column], units[column])
        kernels.append(kernel)
    return kernels


def add_rates(kernels, flop):
    """Bytes and operations a second; the operations are those of the one convolution, if it is one
    kernel."""
    convolutions = [k for k in kernels if re.search("conv|gemm|dgrad|fprop", k["kernel"], re.I)]
    for kernel in kernels:
        moved = kernel["bytes_read"] + kernel["bytes_written"]
        kernel["terabytes_per_second"] = moved / kernel["duration"] / 1e12
        kernel["tflop_per_second"] = math.nan
    if len(convolutions) == 1:
        convolutions[0]["tflop_per_second"] = flop / convolutions[0]["duration"] / 1e12


def limiter(kernel):
    """One sentence on what holds a kernel up."""
    units = {"DRAM": kernel["dram_percent"], "the L2 cache": kernel["l2_percent"],
             "L1 and shared memory": kernel["l1_percent"],
             "the SMs' pipes": kernel["sm_percent"]}
    units = {name: percent for name, percent in units.items() if not math.isnan(percent)}
    if not units:
        return "unknown: ncu measured no throughput"
    busiest = max(units, key=units.get)
    if units[busiest] >= BUSY_PERCENT:
        return f"{busiest}, at {units[busiest]:.0f}% of what it can"
    idle = f"latency; no unit is busier than {busiest}, at {units[busiest]:.0f}%"
    if kernel["waves"] < 1:
        return (f"too few blocks: {kernel['blocks']:.0f} of them are {kernel['waves']:.2f} of what "
                f"the GPU holds at once")
    if kernel["local_loads"] + kernel["local_stores"] > 0:
        idle += "; registers are spilled or arrays lie in local memory"
    if kernel["warps_percent"] < 50:
        limits = {"registers": kernel["blocks_by_registers"],
                  "shared memory": kernel["blocks_by_shared"], "warps": kernel["blocks_by_warps"]}
        tightest = min(limits, key=lambda name: (math.isnan(limits[name]), limits[name]))
        return (f"{idle}; {kernel['warps_percent']:.0f}% of the warps are there, "
                f"for {tightest} holds {limits[tightest]:.0f} blocks an SM")
    return idle


def text_of(value, form=".0f", scale=1.0):
    return "-" if math.isnan(value) else format(value * scale, form)


def print_table(title, kernels, flop):
    print(f"\n{title}")
    lines = [("us", "sm %", "dram %", "L2 %", "L1 %", "L2 hit", "warps %", "blocks", "threads",
              "regs", "local", "shared KB", "TB/s", "TFLOP/s", "kernel")]
    for k in kernels:
        name = k["kernel"]
        lines.append((text_of(k["duration"], ".1f", 1e6), text_of(k["sm_percent"], ".1f"),
                      text_of(k["dram_percent"], ".1f"), text_of(k["l2_percent"], ".1f"),
                      text_of(k["l1_percent"], ".1f"), text_of(k["l2_hit_percent"], ".1f"),
                      text_of(k["warps_percent"], ".1f"), text_of(k["blocks"]),
                      text_of(k["threads"]), text_of(k["registers"]),
                      text_of(k["local_loads"] + k["local_stores"]),
                      text_of(k["static_shared"] + k["dynamic_shared"], ".1f", 1 / 1024),
                      text_of(k["terabytes_per_second"], ".2f"),
                      text_of(k["tflop_per_second"], ".1f"),
                      name if len(name) <= 90 else name[:87] + "..."))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        cells = [cell.rjust(width) for cell, width in zip(line[:-1], widths)]
        print("  ".join([*cells, line[-1]]))
    duration = sum(k["duration"] for k in kernels)
    moved = sum(k["bytes_read"] + k["bytes_written"] for k in kernels)
    print(f"the call: {duration * 1e6:.1f} us in {len(kernels)} kernels, {moved / 1e9:.3f} GB moved "
          f"at {moved / duration / 1e12:.2f} TB/s, {flop / duration / 1e12:.1f} TFLOP/s")
    for k in kernels:
        print(f"limited by {limiter(k)}: {k['kernel'][:70]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", nargs="?", help="ncu's output, or - for the standard input")
    parser.add_argument("--metrics", action="store_true", help="print the metrics to ask ncu for")
    parser.add_argument("--shape", default="mission", help="a name or N,Cin,H,W,Cout,k,s,p,op")
    parser.add_argument("--train", action="store_true", help="the call was forward and backward")
    parser.add_argument("--title", default="", help="printed above the table")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    arguments = parser.parse_args()
    if arguments.metrics:
        print(",".join(METRICS.values()))
        return
    if arguments.csv is None:
        parser.error("what to read?")
    text = sys.stdin.read() if arguments.csv == "-" else Path(arguments.csv).read_text()
    flop = forward_flop(parse_shape(arguments.shape)) * (3 if arguments.train else 1)
    kernels = parse(text)
    if not kernels:
        sys.exit("profile_report: ncu recorded no kernel")
    add_rates(kernels, flop)
    print_table(arguments.title or arguments.shape, kernels, flop)
    if arguments.json:
        known = [{key: None if isinstance(value, float) and math.isnan(value) else value
                  for key, value in k.items()} | {"limiter": limiter(k)} for k in kernels]
        arguments.json.write_text(json.dumps({"shape": arguments.shape, "flop": flop,
                                              "kernels": known}, indent=1) + "\n")


if __name__ == "__main__":
    main()
