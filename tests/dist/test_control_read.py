"""Reading a control message by the table in C is reading it slowly: same message, same error."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from test_control import OPERATIONS

from bridge.dist import control as c
from bridge.dist.errors import RemoteProtocolError
from bridge.etf import Atom, DecodeError, ImproperList, Pid, Port, Reference, encode_bare

NODE = Atom("n@h")
terms = st.one_of(
    st.builds(Pid, st.just(NODE), *[st.integers(0, 2**32 - 1)] * 3),
    st.builds(
        lambda words: Reference(NODE, 1, tuple(words)),
        st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=5),
    ),
    st.builds(Port, st.just(NODE), st.integers(0, 2**64 - 1), st.just(1)),
    st.sampled_from([Atom(""), Atom("name"), None, True, False, [], {}, 1.5, b"x", (NODE, NODE, 3)]),
    st.integers(-1, 2**70),
    st.recursive(st.just(NODE), lambda inner: st.lists(inner).map(tuple), max_leaves=4),
    st.just(ImproperList((Atom("alias"),), NODE)),
)
control_tuples = st.builds(
    lambda number, rest: (number, *rest), st.integers(-1, 260), st.lists(terms, max_size=8)
)
encoded = st.one_of(
    control_tuples.map(encode_bare),
    st.sampled_from([encode_bare(term) for term, _, _ in OPERATIONS]),
)


def outcome(read: Any, data: bytes, payload: bool) -> Any:
    """The message, or the error by what it says."""
    try:
        return read(data, payload=payload)
    except (RemoteProtocolError, DecodeError) as error:
        return type(error), str(error)


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """Control messages, most of them with something cut off, put in or changed."""
    data = bytearray(draw(encoded))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(data)


@given(data=broken(), payload=st.booleans())
@example(data=b"", payload=False)
@example(data=b"h\0", payload=False)
@example(data=encode_bare((19, NODE, NODE, NODE)) + b"j", payload=False)
def test_any_bytes_are_read_as_they_are_slowly(data: bytes, payload: bool) -> None:
    assert outcome(c.read, data, payload) == outcome(c.read_slowly, data, payload)


@pytest.mark.parametrize(("term", "payload", "message"), OPERATIONS)
def test_every_operation_is_read(term: Any, payload: bool, message: c.ControlMessage) -> None:
    data = encode_bare(term)
    assert c.read(data, payload=payload) == c.read_slowly(data, payload=payload) == message
    for cut in range(len(data)):
        assert outcome(c.read, data[:cut], payload) == outcome(c.read_slowly, data[:cut], payload)
    assert outcome(c.read, data + b"j", payload) == outcome(c.read_slowly, data + b"j", payload)


@pytest.mark.parametrize(("term", "payload", "_message"), OPERATIONS)
def test_every_element_may_be_what_it_may_be_slowly(
    term: tuple[Any, ...], payload: bool, _message: Any
) -> None:
    others = [Pid(NODE, 1, 2, 3), Reference(NODE, 1, (1,)), Port(NODE, 1, 1), NODE, None, True]
    for at in range(len(term)):
        for other in [*others, 0, 2**64, b"", (), [], [1, 2], {}]:
            data = encode_bare((*term[:at], other, *term[at + 1 :]))
            assert outcome(c.read, data, payload) == outcome(c.read_slowly, data, payload)


@pytest.mark.parametrize(
    "depth", [9_997, 9_998, 9_999, 10_000, 10_001], ids=lambda depth: f"{depth} deep"
)
def test_limits_are_the_same(depth: int) -> None:
    token = b"l\0\0\0\1" * depth + b"a\1" + b"j" * depth
    data = b"h\4a\x0cw\0" + encode_bare(Pid(NODE, 1, 0, 1)) + token
    fast, slow = outcome(c.read, data, True), outcome(c.read_slowly, data, True)
    assert type(fast) is type(slow) is (c.Send if depth < 10_000 else tuple)  # not by ==: too deep
    if isinstance(slow, tuple):
        assert fast == slow


def test_what_every_call_is_made_of_is_read_by_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that nobody makes the common way the slow one without noticing."""
    monkeypatch.setattr(c, "read_slowly", None)
    for term, payload, message in OPERATIONS:
        if term[0] in {1, 2, 6, 19, 20, 21, 22, 24, 26, 28, 33}:
            assert c.read(encode_bare(term), payload=payload) == message
