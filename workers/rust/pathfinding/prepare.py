"""The sea as one bit a square minute of arc, for all workers of the role pathfinding.

    python workers/rust/pathfinding/prepare.py build/data/sea.mask

The coastline is that of PyPI's global-land-mask: NOAA's GLOBE at 30 seconds of arc (about 1 km). A
minute is sea where one of its four squares is, so that straits stay open.

Layout of the file: b"RBSEA", 3 zero bytes; u32 rows, u32 columns (little endian); 48 zero bytes;
then the rows from north to south, each of columns / 8 bytes from 180 W eastwards, bit 0 first; 1 is
sea.
"""

from __future__ import annotations

import os
import struct
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np

ROWS, COLUMNS = 10_800, 21_600  # minutes
MAGIC = b"RBSEA\0\0\0"


def source() -> Path:
    """The grid of the installed package, without importing it: that would load a gigabyte."""
    spec = find_spec("global_land_mask")
    if spec is None or spec.origin is None:
        raise SystemExit("prepare: pip install global-land-mask")
    return Path(spec.origin).parent / "globe_combined_mask_compressed.npz"


def prepare(grid: Path, target: Path) -> None:
    """Write `target` whole or not at all."""
    part = target.with_suffix(f".{os.getpid()}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(grid) as archive, archive.open("mask.npy") as mask:
        version = np.lib.format.read_magic(mask)
        assert version == (1, 0)
        shape, by_column, kind = np.lib.format.read_array_header_1_0(mask)
        if (shape, by_column, kind) != ((2 * ROWS, 2 * COLUMNS), False, np.dtype(bool)):
            raise SystemExit(f"prepare: {grid} is another grid: {shape} of {kind}")
        with part.open("wb") as out:
            out.write(struct.pack("<8sII48x", MAGIC, ROWS, COLUMNS))
            for _ in range(ROWS):
                two = np.frombuffer(mask.read(4 * COLUMNS), dtype=bool)
                sea = two.reshape(2, COLUMNS, 2).any(axis=(0, 2))
                out.write(np.packbits(sea, bitorder="little").tobytes())
    part.replace(target)


if __name__ == "__main__":
    prepare(source(), Path(sys.argv[1]))
