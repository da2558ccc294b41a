"""The codec in Python, to be read, and for tests of the C: the five functions of `bridge.etf`."""

from bridge.etf._reference_decode import decode, decode_bare
from bridge.etf._reference_encode import canonical, encode, encode_bare

__all__ = ["canonical", "decode", "decode_bare", "encode", "encode_bare"]
