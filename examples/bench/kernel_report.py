#!/usr/bin/env python3
"""Registers, spills and shared memory of kernels, and how many of their blocks an SM holds.

Reads what CMake's target kernel_report made: for each source and architecture what `ptxas -v` said
of it, NAME.sm_XX.txt, and beside it the PTX, NAME.sm_XX.ptx. Exits with 1 when a kernel spills
registers, or when a block does not fit an SM.

A file of configurations has a line for each way in which a kernel is launched with dynamic shared
memory: four words and, perhaps, a name for it,

    PATTERN  SM  THREADS  BYTES  [NAME]

where PATTERN is a regular expression that is searched in the kernel's name, SM is 80, 89, 90 or *,
and BYTES is the dynamic shared memory of a block. Lines that begin with # are skipped.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

# What an SM holds, by the tables of the CUDA programming guide; shared memory in bytes, of which
# every block takes 1 KB more than it asks for.
Sm = namedtuple("Sm", "registers warps blocks shared block_shared")
SMS = {
    "80": Sm(65536, 64, 32, 164 * 1024, 163 * 1024),
    "86": Sm(65536, 48, 16, 100 * 1024, 99 * 1024),
    "89": Sm(65536, 48, 24, 100 * 1024, 99 * 1024),
    "90": Sm(65536, 64, 32, 228 * 1024, 227 * 1024),
}
RESERVED_SHARED = 1024
SHARED_UNIT = 128
REGISTER_UNIT = 256  # registers are given to a warp in this many
WARP_UNIT = 4  # one for each of the SM's four parts

Configuration = namedtuple("Configuration", "pattern sm threads shared name")


def round_up(value, unit):
    return (value + unit - 1) // unit * unit


def parse_ptxas(text):
    """Registers, spilled bytes and static shared memory of every kernel, by mangled name."""
    kernels = {}
    name = None
    for line in text.splitlines():
        if match := re.search(r"Compiling entry function '(\S+)'", line):
            name = match[1]
            kernels[name] = {"registers": 0, "spilled_bytes": 0, "static_shared": 0}
        elif match := re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", line):
            # Also printed for functions that are called, whose spills are the caller's trouble.
            if name is not None:
                kernels[name]["spilled_bytes"] += int(match[1]) + int(match[2])
        elif (match := re.search(r"Used (\d+) registers", line)) and name is not None:
            kernels[name]["registers"] = int(match[1])
            shared = re.search(r"(\d+)(?:\+\d+)? bytes smem", line)
            kernels[name]["static_shared"] = int(shared[1]) if shared else 0
    return kernels


def parse_launch_bounds(ptx):
    """Most threads of a block of every kernel, by mangled name."""
    bounds = {}
    entries = re.finditer(r"\.entry\s+(\w+)\s*\((.*?)\)(.*?)\{", ptx, re.DOTALL)
    for name, _, directives in (match.groups() for match in entries):
        threads = 1024
        if match := re.search(r"\.(?:max|req)ntid\s+(\d+)(?:,\s*(\d+))?(?:,\s*(\d+))?", directives):
            threads = int(match[1]) * int(match[2] or 1) * int(match[3] or 1)
        bounds[name] = threads
    return bounds


def parse_configurations(text):
    result = []
    for line in text.splitlines():
        words = line.split(maxsplit=4)
        if not words or words[0].startswith("#"):
            continue
        if len(words) < 4:
            sys.exit(f"kernel_report: {line!r} is not PATTERN SM THREADS BYTES [NAME]")
        result.append(Configuration(words[0], words[1], int(words[2]), int(words[3]),
                                    words[4] if len(words) > 4 else ""))
    return result


def occupancy(sm, threads, registers, shared):
    """Blocks an SM holds, and what holds no more of them."""
    warps = (threads + 31) // 32
    limits = {"blocks": sm.blocks, "warps": sm.warps // warps}
    if registers > 0:
        warps_by_registers = sm.registers // round_up(registers * 32, REGISTER_UNIT)
        limits["registers"] = warps_by_registers // WARP_UNIT * WARP_UNIT // warps
    limits["shared memory"] = sm.shared // round_up(shared + RESERVED_SHARED, SHARED_UNIT)
    if shared > sm.block_shared:
        limits["shared memory"] = 0
    limiter = min(limits, key=limits.get)
    return limits[limiter], limiter


def demangle(names):
    """Readable names, shortened to what tells kernels of one file apart."""
    if shutil.which("c++filt") is None:
        return dict(zip(names, names))
    plain = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True,
                           check=True).stdout.splitlines()
    return {mangled: shorten(name) for mangled, name in zip(names, plain)}


def shorten(name):
    name = re.sub(r"\(anonymous namespace\)::|tenon::(ops::)?(cuda::)?", "", name)
    name = re.sub(r"^void ", "", name)
    depth = 0
    for i, character in enumerate(name):  # the parameters begin at the first ( outside < >
        depth += (character == "<") - (character == ">")
        if character == "(" and depth == 0:
            return name[:i]
    return name


def rows_of(file, sm_name, ptxas_text, ptx, configurations):
    """One row for each kernel, or for each configuration of it."""
    sm = SMS[sm_name.rstrip("a")]
    kernels = parse_ptxas(ptxas_text)
    bounds = parse_launch_bounds(ptx)
    names = demangle(list(kernels))
    rows = []
    for mangled, used in kernels.items():
        fitting = [c for c in configurations
                   if c.sm in ("*", sm_name) and re.search(c.pattern, names[mangled])]
        default = Configuration("", sm_name, bounds.get(mangled, 1024), 0, "")
        for configuration in fitting or [default]:
            shared = used["static_shared"] + configuration.shared
            blocks, limiter = occupancy(sm, configuration.threads, used["registers"], shared)
            warps = blocks * ((configuration.threads + 31) // 32)
            rows.append({"file": file, "kernel": names[mangled],
                         "configuration": configuration.name, "sm": sm_name,
                         "threads": configuration.threads, **used,
                         "dynamic_shared": configuration.shared, "blocks_per_sm": blocks,
                         "warps_per_sm": warps, "most_warps_per_sm": sm.warps,
                         "limiter": limiter})
    return rows


def read_reports(reports, configurations):
    rows = []
    for report in reports:
        file, sm_name = report.stem.split(".sm_")
        rows += rows_of(file, sm_name, report.read_text(), report.with_suffix(".ptx").read_text(),
                        configurations)
    return rows


def print_table(rows):
    lines = [("sm", "threads", "regs", "spill", "static", "dynamic", "blocks", "warps", "limit",
              "kernel")]
    for row in sorted(rows, key=lambda row: (row["file"], row["kernel"], row["sm"])):
        kernel = " ".join(filter(None, (row["kernel"], row["configuration"])))
        lines.append((row["sm"], row["threads"], row["registers"], row["spilled_bytes"],
                      row["static_shared"], row["dynamic_shared"], row["blocks_per_sm"],
                      f"{row['warps_per_sm']}/{row['most_warps_per_sm']}", row["limiter"],
                      kernel if len(kernel) <= 110 else kernel[:107] + "..."))
    widths = [max(len(str(line[i])) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        cells = [str(cell).rjust(width) for cell, width in zip(line[:8], widths)]
        print("  ".join([*cells, line[8].ljust(widths[8]), line[9]]))


def faults(rows):
    for row in rows:
        where = f"{row['kernel']} {row['configuration']}".strip() + f" on sm_{row['sm']}"
        if row["spilled_bytes"] > 0:
            yield f"{where} spills {row['spilled_bytes']} bytes"
        if row["blocks_per_sm"] == 0:
            yield f"{where}: not one block fits an SM, for its {row['limiter']}"


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", type=Path, nargs="+", help="the files NAME.sm_XX.txt")
    parser.add_argument("--configurations", type=Path, help="see above")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    arguments = parser.parse_args()
    configurations = []
    if arguments.configurations:
        configurations = parse_configurations(arguments.configurations.read_text())
    rows = read_reports(arguments.reports, configurations)
    if not rows:
        sys.exit("kernel_report: the reports name no kernel")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    print_table(rows)
    found = list(faults(rows))
    for fault in found:
        print(f"kernel_report: {fault}", file=sys.stderr)
    kernels = {(row["file"], row["kernel"]) for row in rows}
    places = ", ".join(f"sm_{sm}" for sm in sorted({row["sm"] for row in rows}))
    print(f"{len(kernels)} kernels on {places}: {len(found) or 'no'} spills or blocks that do not fit")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
