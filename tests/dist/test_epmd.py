"""epmd's messages: layouts of dist-protocol.md, 1.1, and answers in any split."""

from __future__ import annotations

import struct

import pytest
from handshake_support import splits

from bridge.dist import epmd
from bridge.dist.epmd import AnswerReader, Names, NodeEntry, Refused, Registered
from bridge.dist.errors import RemoteProtocolError

PORT2 = (
    struct.pack(">BBHBBHHH", 119, 0, 4711, 77, 0, 6, 5, 5) + b"alice" + struct.pack(">H", 2) + b"xy"
)
ENTRY = NodeEntry(4711, 77, 6, 5, "alice", b"xy")


def read(pieces: list[bytes], what: str) -> object:
    reader = AnswerReader()
    answer = None
    for piece in pieces:
        assert answer is None, "whole before its last byte"
        reader.receive_data(piece)
        answer = getattr(reader, what)()
    return answer


def test_alive2_request_registers_a_hidden_node_of_version_6() -> None:
    assert epmd.alive2_request("bridge", 4711) == (
        b"\x00\x13x" + struct.pack(">HBBHH", 4711, 72, 0, 6, 6) + b"\x00\x06bridge\x00\x00"
    )


def test_port2_and_names_requests() -> None:
    assert epmd.port2_request("bridge") == b"\x00\x07zbridge"
    assert epmd.names_request() == b"\x00\x01n"


@pytest.mark.parametrize("alive", ["", "a@b", "a\0", "a" * 256])
def test_a_name_that_epmd_would_misfile_is_not_sent(alive: str) -> None:
    with pytest.raises(ValueError, match="epmd wants"):
        epmd.alive2_request(alive, 1)


@pytest.mark.parametrize(
    ("data", "what", "answer"),
    [
        (b"v\x00\x12\x34\x56\x78", "alive2", Registered(0x12345678)),
        (b"y\x00\x00\x03", "alive2", Registered(3)),
        (b"v\x01\x00\x00\x00\x63", "alive2", Refused(1)),
        (b"w\x01", "port2", Refused(1)),
        (PORT2, "port2", ENTRY),
    ],
)
def test_an_answer_in_any_split(data: bytes, what: str, answer: object) -> None:
    for pieces in splits(data):
        assert read(pieces, what) == answer


def test_names_are_whole_when_epmd_closes() -> None:
    data = b"\x00\x00\x11\x11name a at port 1\nname b c at port 65535\nnonsense\n"
    for pieces in splits(data):
        assert read([*pieces, b""], "names") == Names(4369, {"a": 1, "b c": 65535})


@pytest.mark.parametrize("what", ["alive2", "port2", "names"])
def test_a_close_without_an_answer_is_epmds_error(what: str) -> None:
    with pytest.raises(RemoteProtocolError, match=r"epmd|NAMES"):
        read([b""], what)


@pytest.mark.parametrize("cut", range(1, len(PORT2)))
def test_a_close_in_the_middle_of_an_answer_is_epmds_error(cut: int) -> None:
    with pytest.raises(RemoteProtocolError, match="in the middle"):
        read([PORT2[:cut], b""], "port2")


def test_an_answer_of_another_kind_or_size_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="tag 119"):
        read([PORT2], "alive2")
    with pytest.raises(RemoteProtocolError, match="creation 0"):
        read([b"v\x00\x00\x00\x00\x00"], "alive2")
    with pytest.raises(RemoteProtocolError, match="at most 65536"):
        read([b"\x00" * 65537], "names")
