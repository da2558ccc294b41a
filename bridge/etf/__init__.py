"""Erlang's external term format: the term types and the codec (docs/terms.md). No I/O, no clock.

`encode`, `decode`, their `_bare` forms and `canonical` are the C codec's; `bridge.etf._reference`
has the same five in Python.
"""

from bridge.etf import _codec, errors, limits, terms
from bridge.etf import _rare as rare
from bridge.etf._codec import canonical, decode, decode_bare, encode, encode_bare
from bridge.etf.errors import CodecError, DecodeError, EncodeError, brief
from bridge.etf.limits import DEFAULT_LIMITS, Limits
from bridge.etf.terms import (
    Atom,
    BitString,
    Encodable,
    Export,
    Fun,
    ImproperList,
    Map,
    Pid,
    Port,
    Record,
    Reference,
    Term,
    charlist,
)

# The C codec builds objects of these types by itself, and raises and bounds by these.
_codec.bind(terms, errors, limits, rare)

__all__ = [
    "DEFAULT_LIMITS",
    "Atom",
    "BitString",
    "CodecError",
    "DecodeError",
    "Encodable",
    "EncodeError",
    "Export",
    "Fun",
    "ImproperList",
    "Limits",
    "Map",
    "Pid",
    "Port",
    "Record",
    "Reference",
    "Term",
    "brief",
    "canonical",
    "charlist",
    "decode",
    "decode_bare",
    "encode",
    "encode_bare",
]
