"""The packets of a channel (docs/channel.md): what a worker sends is a request, an error or a
broken rule, and never anything else.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.etf import Atom, Pid, encode_bare
from bridge.fabric import layout
from bridge.workers.channel import packets
from bridge.workers.channel.packets import (
    BrokenRule,
    Code,
    Coming,
    Kind,
    NotHad,
    read_body,
    read_head,
)

BRIDGE = layout.PACKET_ID_BRIDGE
PID = Pid(Atom("app@host"), 5, 0, 1)


def packet(
    kind: int,
    body: bytes = b"",
    *,
    id_: int = 0,
    flags: int = 0,
    job: int = 9,
    reserved: int = 0,
    size: int | None = None,
) -> bytes:
    announced = len(body) if size is None else size
    return struct.pack("<HHIQQQ", kind, flags, reserved, id_, job, announced) + body


def read(data: bytes, descriptors: int = 0, body: bytes | None = None) -> packets.Request:
    head = read_head(data, descriptors)
    return read_body(head, data[packets.HEAD_BYTES :] if body is None else body)


@pytest.mark.parametrize(
    "dest", [Atom("name"), PID, (Atom("name"), Atom("app@host"))], ids=["name", "pid", "at"]
)
def test_a_message_and_a_call_have_a_dest_of_three_shapes(dest: object) -> None:
    send = packet(layout.PACKET_SEND, encode_bare((dest, [1])))
    assert read(send) == packets.Send(dest, [1])
    call = packet(layout.PACKET_CALL, encode_bare((dest, b"q", 1500)), id_=7)
    assert read(call) == packets.Call(dest, b"q", 1.5)
    assert read_head(call, 0) == packets.Head(
        layout.PACKET_CALL, 7, 9, len(call) - 32, False, False
    )


def test_what_else_a_worker_says() -> None:
    line = encode_bare((Atom("error"), "so ä".encode()))
    assert read(packet(layout.PACKET_LOG, line)) == packets.Log("error", "so ä")
    bad_text = encode_bare((Atom("info"), b"\xff"))
    assert read(packet(layout.PACKET_LOG, bad_text)) == packets.Log(
        "info", "\N{REPLACEMENT CHARACTER}"
    )
    save = struct.pack("<Q", 1) + b"state"
    saved = packets.Save(Kind.INCREMENTAL, b"state")
    for id_ in (0, 5, BRIDGE | 5):
        assert read(packet(layout.PACKET_CHECKPOINT_SAVE, save, id_=id_)) == saved
    assert read(packet(layout.PACKET_CHECKPOINT_LOAD, id_=1)) == packets.Load()
    assert read(packet(layout.PACKET_FORGET, id_=1)) == packets.Forget()
    assert read(packet(layout.PACKET_REPLY, id_=BRIDGE | 1)) == packets.Reply(None)
    error = packet(
        layout.PACKET_REPLY,
        struct.pack("<Q", 9) + encode_bare(Atom("why")),
        id_=BRIDGE | 1,
        flags=layout.PACKET_FLAG_ERROR,
    )
    assert read(error) == packets.Reply(Atom("why"))
    assert read(packet(layout.PACKET_PEER_OPEN, b"back", id_=1)) == packets.PeerOpen("back")
    assert read(packet(layout.PACKET_PEER_OPEN, id_=1)) == packets.PeerOpen(None)
    link = struct.pack("<Q", 7)
    assert read(packet(layout.PACKET_PEER_CLOSE, link, id_=1)) == packets.PeerClose(7)


def test_a_body_may_come_in_a_memfd_of_any_size_but_none() -> None:
    body = encode_bare((Atom("name"), 1))
    by_memfd = packet(layout.PACKET_SEND, size=len(body), flags=layout.PACKET_FLAG_MEMFD)
    assert read(by_memfd, 1, body) == packets.Send(Atom("name"), 1)
    empty = packet(layout.PACKET_SEND, flags=layout.PACKET_FLAG_MEMFD)
    with pytest.raises(BrokenRule, match="0 bytes were announced"):
        read_head(empty, 1)


def test_a_term_that_is_only_large_breaks_no_rule() -> None:
    deep: object = 1
    for _ in range(600):
        deep = [deep]
    for term in (deep, list(range(200_000))):
        with pytest.raises(NotHad) as error:
            read(packet(layout.PACKET_SEND, encode_bare((Atom("name"), term))))
        assert error.value.code is Code.TOO_LARGE


@given(st.binary(max_size=200), st.integers(0, 3))
def test_garbage_is_a_request_or_an_error_or_a_broken_rule(data: bytes, descriptors: int) -> None:
    with suppress(BrokenRule, NotHad):
        read(data, descriptors)


@given(
    st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 16, 17, 21, 999]),
    st.sampled_from([0, 0, 0, 1, 2, 3, 4]),
    st.sampled_from([0, 1, BRIDGE | 1]),
    st.binary(max_size=60),
    st.integers(0, 1),
)
def test_so_is_garbage_behind_a_head(
    kind: int, flags: int, id_: int, body: bytes, descriptors: int
) -> None:
    try:
        request = read(packet(kind, body, id_=id_, flags=flags), descriptors)
    except (BrokenRule, NotHad):
        return
    assert kind in {1, 2, 3, 4, 5, 6, 7, 8, 16}
    assert isinstance(request, packets.Request)


@pytest.mark.parametrize("code", Code)
def test_each_error_has_its_code_and_its_reason(code: Code) -> None:
    out = packets.refusal(3, NotHad(code, "so" if code in (1, 2, 9, 11) else None))
    assert struct.unpack_from("<HHIQQQ", out.head())[:4] == (
        layout.PACKET_REPLY,
        layout.PACKET_FLAG_ERROR,
        0,
        3,
    )
    assert struct.unpack_from("<Q", out.body) == (code,)
    reasons: dict[Code, Any] = {
        Code.NO_PROCESS: Atom("noproc"),
        Code.NO_CONNECTION: Atom("noconnection"),
        Code.REFUSED: (Atom("refused"), b"so"),
        Code.STORE_FAILED: (Atom("store_failed"), b"so"),
        Code.TIMEOUT: Atom("timeout"),
    }
    if code in reasons:
        assert out.body[8:] == encode_bare(reasons[code])


def test_what_the_bridge_says_is_laid_out_as_the_page_has_it() -> None:
    out = packets.checkpoint_now(BRIDGE | 2, Kind.INCREMENTAL, leaving=True)
    assert out.body == struct.pack("<QQ", 1, 1)
    assert out.head() == struct.pack("<HHIQQQ", 17, 0, 0, BRIDGE | 2, 0, 16)
    state = packets.restore(BRIDGE | 3, [(Kind.FULL, b"abc"), (Kind.INCREMENTAL, b"")])
    assert state.body == struct.pack("<QQQ", 0, 0, 3) + b"abc" + struct.pack("<QQ", 1, 0)
    assert packets.announce(Coming.HOLD).body == struct.pack("<Q", 1)
    assert packets.announce(Coming.HOLD).id == 0
    limit = layout.PACKET_BYTES_MAX - 32
    assert not packets.reply(1, bytes(limit)).by_memfd
    large = packets.reply(1, bytes(limit + 1))
    assert large.by_memfd
    assert struct.unpack_from("<HHIQQQ", large.head())[1] == layout.PACKET_FLAG_MEMFD
