"""The codec in Python, to be read, and for tests of the C: the five functions of `bridge.etf`.

Its halves meet here. Decoding asks encoding for the canonical bytes of a map's keys; a key that
encoding finds twice, which it knows by those bytes, is decoded to be shown.
"""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from bridge.etf import _reference_encode as writing
from bridge.etf._reference_decode import decode, decode_bare
from bridge.etf.errors import EncodeError

__all__ = ["canonical", "decode", "decode_bare", "encode", "encode_bare"]

_P = ParamSpec("_P")


def _showing_double_keys(write: Callable[_P, bytes]) -> Callable[_P, bytes]:
    @wraps(write)
    def shown(*args: _P.args, **kwargs: _P.kwargs) -> bytes:
        try:
            return write(*args, **kwargs)
        except writing.DoubleKey as double:
            raise EncodeError("duplicate_key", decode_bare(double.canonical)[0]) from None

    return shown


encode = _showing_double_keys(writing.encode)
encode_bare = _showing_double_keys(writing.encode_bare)
canonical = _showing_double_keys(writing.canonical)
