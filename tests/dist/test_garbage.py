"""Garbage gives events or RemoteProtocolError, never anything else, at each place where a peer's
bytes come in.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from handshake_support import ALICE, BOB, acceptor, initiator
from hypothesis import given
from hypothesis import strategies as st

from bridge.dist import control, epmd
from bridge.dist.errors import RemoteProtocolError
from bridge.dist.flags import OFFERED
from bridge.dist.handshake import Acceptor, Initiator
from bridge.dist.handshake_events import AskedToReplace, Offered, Proven, Status
from bridge.dist.handshake_messages import Challenge, Name, frame
from bridge.etf import Atom, Pid, Reference

bodies = st.one_of(
    st.binary(max_size=80),
    st.sampled_from([b"sok", b"salive", b"strue", b"snok", b"sok_simultaneous"]),
    st.builds(
        lambda tag, rest: tag + rest,
        st.sampled_from([b"N", b"s", b"r", b"a", b"n", b"c"]),
        st.binary(),
    ),
    st.builds(
        lambda flags, creation: Name(flags, creation, ALICE.name).encode(),
        st.sampled_from([OFFERED, 0, 2**64 - 1]),
        st.integers(0, 2**32 - 1),
    ),
    st.builds(
        lambda challenge: Challenge(OFFERED, challenge, 1, BOB.name).encode(), st.integers(0, 9)
    ),
)
streams = st.lists(st.one_of(bodies.map(frame), st.binary(max_size=5)), max_size=6).map(b"".join)


def run(core: Acceptor | Initiator, data: bytes, cuts: list[int]) -> None:
    """Drive a core to its end with `data`, cut where `cuts` say, answering whatever it asks."""
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    pieces = [data[a:b] for a, b in pairwise(places)]
    for piece in [*pieces, b""]:
        core.receive_data(piece)
        while (event := core.next_event()) is not None:
            match event:
                case Offered():
                    assert isinstance(core, Acceptor)
                    core.decide(Status.ALIVE)
                case Proven():
                    raise AssertionError("garbage proved the cookie")
                case AskedToReplace():
                    assert isinstance(core, Initiator)
                    core.answer_alive(True)
        core.data_to_send()


@pytest.mark.parametrize("make", [acceptor, initiator])
@given(data=streams, cuts=st.lists(st.integers(0, 500), max_size=4))
def test_a_handshake_takes_garbage(make: Any, data: bytes, cuts: list[int]) -> None:
    with suppress(RemoteProtocolError):
        run(make(), data, cuts)


@pytest.mark.parametrize("read", ["alive2", "port2", "names"])
@given(data=st.one_of(st.binary(max_size=60), st.binary(max_size=40).map(b"w\x00".__add__)))
def test_an_epmd_answer_takes_garbage(read: str, data: bytes) -> None:
    reader = epmd.AnswerReader()
    with suppress(RemoteProtocolError):
        reader.receive_data(data)
        reader.receive_data(b"")
        assert getattr(reader, read)() is not None


PID = Pid(Atom("a@h"), 1, 0, 5)
terms = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(0, 40),
        st.binary(max_size=4),
        st.sampled_from([Atom(""), Atom("x"), PID, Reference(Atom("a@h"), 5, (1, 2, 3))]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.lists(inner, max_size=6).map(tuple)),
    max_leaves=8,
)


@given(term=st.one_of(terms, st.lists(terms, max_size=6).map(tuple)), payload=st.booleans())
def test_a_control_message_takes_garbage(term: object, payload: bool) -> None:
    with suppress(RemoteProtocolError):
        message = control.parse(term, payload=payload)
        assert control.parse(control.to_tuple(message), payload=payload) == message
