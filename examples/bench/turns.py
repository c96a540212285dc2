#!/usr/bin/env python3
"""Tenon's fused block on the CPU in turns: of several builds, or with several numbers of threads.

    examples/bench/turns.py --bench build/cpu/examples/bench_block --threads 1,2
    examples/bench/turns.py --bench old/examples/bench_block,build/cpu/examples/bench_block

Each is a program of its own; while one is timed the others wait, and between two turns the machine
idles until the threads of the last one have stopped looking for work. A turn is an untimed call and
a timed one. A build must have bench_block's --turns.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

from shapes import SHAPES, parse_shape

# The first is the mission's shape at batch 4; all as onednn_peer measures them.
CPU_SHAPES = ("4,64,128,128,64,3,2,1,1 16,128,32,32,64,4,2,1,0 "
              "32,256,8,8,128,4,2,1,0 4,128,64,64,64,2,2,0,0")
IDLE_SECONDS = 0.02


class Tenon:
    """bench_block, which times one call whenever it is asked."""

    def __init__(self, name, bench, numbers, mode, threads):
        self.name = name
        self.command = [os.path.abspath(bench), "--turns", "--device", "cpu",
                        "--precision", "float32", "--shape", ",".join(map(str, numbers)),
                        "--mode", mode, "--path", "fused"]
        environment = os.environ | {"TENON_NUM_THREADS": str(threads)}
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


def take_turns(candidates, rounds):
    """Milliseconds of each round by the candidates' names; closes them."""
    times = {candidate.name: [] for candidate in candidates}
    for _ in range(rounds):
        for candidate in candidates:
            time.sleep(IDLE_SECONDS)
            times[candidate.name].append(candidate.turn())
    for candidate in candidates:
        candidate.close()
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", required=True, help="bench_block; several separated by commas")
    parser.add_argument("--threads", default=str(os.cpu_count()), help="likewise")
    parser.add_argument("--shape", default=CPU_SHAPES,
                        help="names or N,Cin,H,W,Cout,k,s,p,op; several separated by spaces")
    parser.add_argument("--mode", default="forward,train", help="forward, train, or both")
    parser.add_argument("--rounds", type=int, default=11)
    arguments = parser.parse_args()
    for text in arguments.shape.split():
        try:
            numbers = parse_shape(text)
        except ValueError:
            parser.error(f"--shape: {text!r} is neither {', '.join(SHAPES)} nor nine numbers")
        for mode in arguments.mode.split(","):
            times = take_turns([Tenon(f"{bench}, {threads} threads", bench, numbers, mode, threads)
                                for bench in arguments.bench.split(",")
                                for threads in arguments.threads.split(",")], arguments.rounds)
            print(f"\n{text}, float32, {'forward + backward' if mode == 'train' else 'forward'}")
            first = statistics.median(next(iter(times.values())))
            for name, values in times.items():
                median = statistics.median(values)
                print(f"  {name}: {median:.3f} ms, least {min(values):.3f}, the first takes "
                      f"{first / median:.3f} of it", flush=True)


if __name__ == "__main__":
    main()
