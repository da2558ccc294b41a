"""Steps of decoding so rare that both codecs take them from here.

COMPRESSED, FLOAT_EXT, and funs that came with atom cache references.
"""

import re
import struct
import zlib

from bridge.etf import _tags as tag
from bridge.etf.errors import DecodeError
from bridge.etf.terms import Atom, Fun, Pid, Term

_FLOAT_TEXT = re.compile(rb" *[+-]?[0-9]+\.[0-9]+([eE][+-]?[0-9]+)?")


def text_float(text: bytes) -> float | None:
    """FLOAT_EXT's 31 bytes ("%.20e", then NUL) as a float; None if they are no finite number."""
    digits = text.partition(b"\0")[0]
    if not _FLOAT_TEXT.fullmatch(digits):
        return None
    value = float(digits)
    return value if abs(value) != float("inf") else None


def inflate(data: bytes, offset: int, size: int, inflated_bytes_max: int) -> bytes:
    """Inflate the zlib stream of the COMPRESSED at `offset`: exactly `size` bytes, nothing after.

    Raises DecodeError. Never allocates more than `size` and what zlib needs.
    """
    if size > inflated_bytes_max:
        raise DecodeError("inflated_size", offset, size)
    stream = zlib.decompressobj()
    try:
        # One byte more than declared shows a stream that is longer; 0 would mean "no bound".
        inflated = stream.decompress(data[offset + 5 :], size + 1)
    except zlib.error:
        raise DecodeError("inflate", offset, size) from None
    if len(inflated) != size or not stream.eof:
        raise DecodeError("inflate", offset, size)
    if stream.unused_data:
        raise DecodeError(
            "trailing_bytes", len(data) - len(stream.unused_data), len(stream.unused_data)
        )
    return inflated


def fun_bytes(fun: Fun, free: tuple[Term, ...]) -> bytes:
    """NEW_FUN_EXT written anew: cache references mean nothing outside of the frame they came in."""
    from bridge.etf import _codec

    def bare(term: Term | Atom | Pid) -> bytes:
        return _codec.encode_bare(term, record_ok=True)

    body = b"".join(
        (
            struct.pack(">B16sII", fun.arity, fun.uniq, fun.index, len(free)),
            bare(fun.module),
            bare(fun.old_index),
            bare(fun.old_uniq),
            bare(fun.pid),
            *map(bare, free),
        )
    )
    return struct.pack(">BI", tag.NEW_FUN_EXT, 4 + len(body)) + body
