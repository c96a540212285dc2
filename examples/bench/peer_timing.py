"""bench_block's problems for PyTorch, and how a call is timed: as problem.cpp and timing.cpp do."""

import math
import statistics
import time
from dataclasses import dataclass

import torch

from shapes import forward_flop

DTYPES = {
    "tf32": torch.float32,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
FORMATS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}


@dataclass(frozen=True)
class Problem:
    """One shape, precision and mode, with what counts as its work."""

    name: str
    numbers: tuple
    precision: str
    train: bool

    @property
    def z_shape(self):
        n, _, h, w, cout, k, s, p, op = self.numbers
        return n, cout, (h - 1) * s - 2 * p + k + op, (w - 1) * s - 2 * p + k + op

    def floor_bytes(self):
        """The fewest bytes that a call can move, as bench_block counts them."""
        n, cin, h, w, cout, k, *_ = self.numbers
        inputs = n * cin * h * w + cin * cout * k * k + cout
        z = math.prod(self.z_shape)
        elements = 3 * inputs + 2 * z if self.train else inputs + z
        return elements * DTYPES[self.precision].itemsize

    def flop(self):
        return forward_flop(self.numbers) * (3 if self.train else 1)

    def inputs(self, memory_format):
        """As many sets (x, weight, bias, grad_out) as keep the inputs out of the L2 cache."""
        n, cin, h, w, cout, k, s, *_ = self.numbers
        l2 = torch.cuda.get_device_properties(0).L2_cache_size
        sets = 1
        if self.floor_bytes() < 2 * l2:
            sets = min(math.ceil(2 * l2 / self.floor_bytes()) + 1, 64)

        def normal(shape, deviation=1.0):
            values = torch.randn(shape, device="cuda", dtype=DTYPES[self.precision])
            values *= deviation
            if len(shape) == 4:
                values = values.contiguous(memory_format=memory_format)
            return values

        taps = max(cin * k * k / s**2, 1)
        result = []
        for _ in range(sets):
            weight = normal((cin, cout, k, k), taps**-0.5)
            leaves = [normal((n, cin, h, w)), weight, normal((cout,))]
            for leaf in leaves:
                leaf.requires_grad_(self.train)
            result.append((*leaves, normal(self.z_shape) if self.train else None))
        return result


def measure_roughly(step, repeats=3):
    """Median milliseconds of single calls."""
    step()
    times = []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        step()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)


def measure(step):
    """Median milliseconds of a call by events, and microseconds that the host is busy with it."""
    for i in range(3):
        step(i)  # compiles, tries cuDNN's algorithms
    torch.cuda.synchronize()
    once = max(measure_roughly(lambda: step(0)), 1e-4)
    calls = min(max(math.ceil(1.0 / once), 1), 256)
    samples = int(min(max(300.0 / (once * calls), 10), 100))
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(samples + 1)]
    call = 0
    for _ in range(calls):
        step(call)
        call += 1
    marks[0].record()
    for mark in marks[1:]:
        for _ in range(calls):
            step(call)
            call += 1
        mark.record()
    torch.cuda.synchronize()
    times = [a.elapsed_time(b) / calls for a, b in zip(marks, marks[1:])]

    host = []
    for _ in range(5):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for i in range(8):
            step(i)
        host.append((time.perf_counter() - start) / 8 * 1e6)
    torch.cuda.synchronize()
    return statistics.median(times), statistics.median(host)


def copy_bandwidth():
    """Bytes a second, read and written, of a large copy within the GPU's memory."""
    source = torch.randn(2**28, device="cuda")
    target = torch.empty_like(source)
    milliseconds, _ = measure(lambda _: target.copy_(source))
    return 2 * source.nbytes / (milliseconds * 1e-3)
