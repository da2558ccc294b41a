"""zstd frames made by hand (RFC 8878, section 3.1.1), true ones and false: the battery has no zstd.

A frame is one segment: magic, descriptor, the content's size, blocks of at most 128 KiB.
"""

from __future__ import annotations

import struct

BLOCK_BYTES = 128 << 10


def raw(content: bytes, stated: int | None = None) -> bytes:
    """The content as it is. `stated`: what the head says of its size instead."""
    parts = [content[at : at + BLOCK_BYTES] for at in range(0, len(content), BLOCK_BYTES)] or [b""]
    frame = _head(len(content) if stated is None else stated)
    for i, part in enumerate(parts):
        frame += _block(0, len(part), i == len(parts) - 1) + part
    return frame


def repeated(byte: bytes, size: int, stated: int | None = None) -> bytes:
    """One byte, so often: 4 bytes for each 128 KiB."""
    frame = _head(size if stated is None else stated)
    while True:
        now = min(size, BLOCK_BYTES)
        size -= now
        frame += _block(1, now, size == 0) + byte
        if size == 0:
            return frame


def _head(size: int) -> bytes:
    return struct.pack("<IBI", 0xFD2FB528, 0xA0, size)


def _block(kind: int, size: int, last: bool) -> bytes:
    return (last | kind << 1 | size << 3).to_bytes(3, "little")
