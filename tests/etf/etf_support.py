"""What the codec's tests share: the two codecs, terms at random, equality as strict as Erlang's."""

import struct
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st

import bridge.etf
from bridge.etf import (
    Atom,
    BitString,
    Export,
    Fun,
    ImproperList,
    Map,
    Pid,
    Port,
    Record,
    Reference,
    _reference,
)

CODECS: dict[str, Any] = {"c": bridge.etf, "python": _reference}

# Time here is that of a shared machine; each test has pytest's own deadline.
unhurried = settings(deadline=None)

both_codecs = pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS.keys())


def exact(term: object) -> object:
    """A value that is equal for two terms only if they are the same in type, sign and order."""
    match term:
        case float():
            return ("float", struct.pack(">d", term))
        case tuple() | list():
            return (type(term).__name__, tuple(map(exact, term)))
        case dict() | Map():
            entries = tuple((exact(key), exact(value)) for key, value in term.items())
            return (type(term).__name__, entries)
        case ImproperList(elements, tail):
            return ("improper", exact(elements), exact(tail))
        case Record(module, name, flags, fields, values):
            return ("record", module, name, flags, fields, exact(values))
        case _:
            return (type(term).__name__, term)


def outcome(function: Any, *args: Any, **kwargs: Any) -> object:
    """What a call gives: its exact value, or the type and arguments of its CodecError."""
    try:
        result = function(*args, **kwargs)
    except bridge.etf.CodecError as error:
        return (type(error).__name__, *map(exact, error.args))
    return exact(result)


def fun_raw(free: bytes = b"", count: int = 0, module: bytes = b"w\x01m") -> bytes:
    """A NEW_FUN_EXT with these bytes as its `count` free variables."""
    head = struct.pack(">B16sII", 2, bytes(range(16)), 7, count)
    pid = b"Xw\x03a@b" + struct.pack(">III", 1, 2, 3)
    body = head + module + b"a\x07b\x00\x01\x02\x03" + pid + free
    return b"p" + struct.pack(">I", len(body) + 4) + body


def _fun(count: int) -> Fun:
    fun, _ = bridge.etf.decode_bare(fun_raw(b"a\x05" * count, count))
    assert type(fun) is Fun
    return fun


u32 = st.integers(0, 2**32 - 1)
atoms = st.one_of(
    st.sampled_from(["ok", "error", "a", "undefined", "Elixir.Ringbridge", "", "with blank"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20).filter(
        lambda text: text not in ("true", "false", "nil")  # they come back as constants
    ),
    st.text(
        st.characters(min_codepoint=0x800, max_codepoint=0xFFFF, exclude_categories=["Cs"]),
        min_size=200,
        max_size=255,
    ),
).map(Atom)
# Not nonode@nohost: an undistributed BEAM takes its identifiers for its own and bounds their
# numbers.
nodes = st.sampled_from(["a@b", "rb@127.0.0.1", "other@nohost", "true"]).map(Atom)
pids = st.builds(Pid, nodes, u32, u32, u32)
ports = st.builds(Port, nodes, st.one_of(u32, st.integers(0, 2**64 - 1)), u32)
references = st.builds(Reference, nodes, u32, st.lists(u32, min_size=1, max_size=5).map(tuple))
bitstrings = st.builds(
    lambda data, bits: BitString(data[:-1] + bytes([data[-1] & (0xFF00 >> bits) & 0xFF]), bits),
    st.binary(min_size=1, max_size=20),
    st.integers(1, 7),
)
integers = st.one_of(
    st.integers(-300, 300),
    st.integers(-(2**33), 2**33),
    st.integers(-(2**65), 2**65),
    st.binary(max_size=300).map(lambda digits: int.from_bytes(digits, "little", signed=True)),
    st.sampled_from(
        [s * 2**n + d for s in (1, -1) for n in (8, 31, 32, 63, 64) for d in (-1, 0, 1)]
    ),
)
floats = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([0.0, -0.0, 1.0])
)
constants = st.sampled_from([True, False, None])
leaves = st.one_of(
    constants,
    integers,
    floats,
    st.binary(max_size=40),
    atoms,
    pids,
    ports,
    references,
    bitstrings,
    st.builds(Export, atoms, atoms, st.integers(0, 255)),
)
funs = st.sampled_from([0, 1, 3]).map(_fun)
byte_lists = st.lists(st.integers(0, 255), max_size=20)


def _containers(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(children, max_size=6),
        st.lists(children, max_size=6).map(tuple),
        st.builds(
            ImproperList,
            st.lists(children, min_size=1, max_size=4).map(tuple),
            children.map(lambda tail: (tail,) if isinstance(tail, list | ImproperList) else tail),
        ),
        st.lists(st.tuples(children, children), max_size=5).map(as_map),
        byte_lists,
    )


def as_map(pairs: list[tuple[Any, Any]]) -> Any:
    """The map of these pairs as decoding gives it: a dict wherever a dict will do."""
    return bridge.etf.decode(bridge.etf.encode(Map(pairs)))


terms = st.recursive(st.one_of(leaves, funs), _containers, max_leaves=25)
terms_without_funs = st.recursive(leaves, _containers, max_leaves=25)
