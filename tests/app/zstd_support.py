"""zstd for tests: the machine's own library, by ctypes, and frames that it would never write."""

from __future__ import annotations

import ctypes
import ctypes.util
import struct

NAME = "libzstd.so.1"
BLOCK_BYTES = 128 << 10

try:
    _zstd: ctypes.CDLL | None = ctypes.CDLL(NAME)
except OSError:
    _zstd = None
if _zstd is not None:
    for _function in ("ZSTD_compress", "ZSTD_decompress", "ZSTD_compressBound"):
        getattr(_zstd, _function).restype = ctypes.c_size_t
    _zstd.ZSTD_compressBound.argtypes = [ctypes.c_size_t]
    _zstd.ZSTD_isError.argtypes = [ctypes.c_size_t]

HERE = _zstd is not None


def compress(data: bytes, level: int = 3) -> bytes:
    """One frame that states its content's size. Needs the library (HERE)."""
    assert _zstd is not None
    room = ctypes.create_string_buffer(_zstd.ZSTD_compressBound(len(data)))
    size = _zstd.ZSTD_compress(
        room, ctypes.c_size_t(len(room)), data, ctypes.c_size_t(len(data)), level
    )
    assert not _zstd.ZSTD_isError(size)
    return room.raw[:size]


def decompress(frame: bytes, most: int) -> bytes:
    """The content, of at most so many bytes."""
    assert _zstd is not None
    room = ctypes.create_string_buffer(most)
    size = _zstd.ZSTD_decompress(room, ctypes.c_size_t(most), frame, ctypes.c_size_t(len(frame)))
    assert not _zstd.ZSTD_isError(size), size
    return room.raw[:size]


def repeated(byte: bytes, size: int, stated: int | None = None) -> bytes:
    """A frame of one byte, `size` times (RFC 8878, RLE blocks): 4 bytes for each 128 KiB.

    `stated`: what its head says of its size instead.
    """
    frame = struct.pack("<IBI", 0xFD2FB528, 0xA0, size if stated is None else stated)
    while True:
        n = min(size, BLOCK_BYTES)
        size -= n
        frame += ((size == 0) | 1 << 1 | n << 3).to_bytes(3, "little") + byte
        if size == 0:
            return frame
