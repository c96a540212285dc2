#!/usr/bin/env python3
"""Writes the small data set of this folder: the first images of the full Fashion-MNIST.

usage: make_subset.py [SOURCE]     SOURCE: folder of the full set, by default Debian's
"""
import gzip
import pathlib
import struct
import sys

SOURCE = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "/usr/share/datasets/fashion-mnist")
COUNTS = {"train": 2000, "t10k": 500}


def first_items(raw: bytes, count: int) -> bytes:
    """The IDX file `raw` cut to its first `count` items."""
    dims = raw[3]
    sizes = struct.unpack(f">{dims}I", raw[4 : 4 + 4 * dims])
    item = 1
    for size in sizes[1:]:
        item *= size
    start = 4 + 4 * dims
    return raw[:4] + struct.pack(f">{dims}I", count, *sizes[1:]) + raw[start : start + count * item]


for split, count in COUNTS.items():
    for kind in ("images-idx3", "labels-idx1"):
        name = f"{split}-{kind}-ubyte.gz"
        raw = gzip.decompress((SOURCE / name).read_bytes())
        target = pathlib.Path(__file__).parent / name
        # mtime=0: the same input gives the same file, byte for byte.
        target.write_bytes(gzip.compress(first_items(raw, count), 9, mtime=0))
        print(f"{target.name}: {count} items, {target.stat().st_size} bytes")
