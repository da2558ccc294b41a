"""Our codec against erlang_py, a codec of other hands, for the terms that it knows.

It gives bytes where it cannot tell a list of bytes from a string, has its own classes for atoms and
lists, and knows no map whose keys a dict would merge; what it does not know is left out here.
"""

from typing import Any

import erlang
import pytest
from etf_support import atoms, integers, unhurried
from hypothesis import given
from hypothesis import strategies as st

from bridge.etf import Atom, Map, canonical, decode, encode

floats = st.floats(allow_nan=False, allow_infinity=False)
plain_atoms = st.one_of(
    atoms.filter(lambda atom: atom != Atom("undefined")),  # its None
    st.sampled_from([True, False]),
)
keys = st.one_of(st.binary(max_size=8), plain_atoms, st.integers(300, 2**40))
leaves = st.one_of(plain_atoms, integers, floats, st.binary(max_size=30))
terms = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5).map(tuple),
        st.lists(inner, min_size=1, max_size=5).filter(
            lambda elements: not all(map(_byte, elements))
        ),
        st.dictionaries(keys, inner, max_size=4),
    ),
    max_leaves=20,
)


def _byte(element: Any) -> bool:
    return type(element) is int and 0 <= element <= 255


def to_erlang_py(term: Any) -> Any:
    match term:
        case Atom():
            return erlang.OtpErlangAtom(term.name)
        case bytes():
            return erlang.OtpErlangBinary(term)
        case tuple():
            return tuple(map(to_erlang_py, term))
        case list():
            return [to_erlang_py(element) for element in term]
        case dict():
            return {to_erlang_py(key): to_erlang_py(value) for key, value in term.items()}
        case _:
            return term


def from_erlang_py(term: Any) -> Any:
    match term:
        case erlang.OtpErlangAtom(value=str() | bytes() as name):
            return Atom(name if isinstance(name, str) else name.decode())
        case erlang.OtpErlangBinary(value=value):
            return value
        case erlang.OtpErlangList(value=elements):
            return [from_erlang_py(element) for element in elements]
        case tuple():
            return tuple(map(from_erlang_py, term))
        case list():
            return [from_erlang_py(element) for element in term]
        case dict():
            return {from_erlang_py(key): from_erlang_py(value) for key, value in term.items()}
        case _:
            return term


@unhurried
@given(term=terms)
def test_it_reads_what_we_send(term: Any) -> None:
    assert canonical(from_erlang_py(erlang.binary_to_term(encode(term)))) == canonical(term)


@unhurried
@given(term=terms)
def test_we_read_what_it_sends(term: Any) -> None:
    assert canonical(decode(erlang.term_to_binary(to_erlang_py(term)))) == canonical(term)


def test_we_read_what_it_compresses() -> None:
    data = erlang.term_to_binary(erlang.OtpErlangBinary(bytes(5000)), compressed=True)
    assert data[1] == 80
    assert decode(data, allow_compressed=True) == bytes(5000)


@pytest.mark.parametrize("wire", [
    b"X\x77\x03a@b" + bytes(range(12)),
    b"Z\0\3\x77\x03a@b" + bytes(range(16)),
    b"Y\x77\x03a@b" + bytes(range(8)),
    b"x\x77\x03a@b\0\0\0\1" + bytes(8),
    b"M\0\0\0\2\3\xff\xa0",
])  # fmt: skip
def test_it_gives_back_our_identifiers_as_they_were(wire: bytes) -> None:
    data = encode(decode(b"\x83" + wire))
    assert data == b"\x83" + wire
    assert erlang.term_to_binary(erlang.binary_to_term(data)) == data


def test_maps_that_it_cannot_hold_are_left_out_here() -> None:
    assert len(erlang.binary_to_term(encode(Map([(1, 2), (1.0, 3)])))) == 1
