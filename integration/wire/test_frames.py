"""After the handshake: what is cut, too long or nonsense ends its connection, and only that."""

from __future__ import annotations

import contextlib
import random
import struct
from collections.abc import Callable
from itertools import pairwise

import pytest

from integration.cluster import wait_until
from integration.wire.conftest import Bridge
from integration.wire.peer import (
    DEADLINE_S,
    FRAGMENTS,
    PLAIN,
    Peer,
    atom,
    binary,
    fragment,
    frame,
    headed,
    passed,
    small,
    tuple_,
)

Connect = Callable[..., Peer]


def test_a_call_is_answered(connect: Connect) -> None:
    peer = connect()
    assert peer.echo(b"hello").endswith(binary(b"hello"))


def test_a_call_in_single_bytes_is_answered(connect: Connect) -> None:
    peer = connect()
    for byte in frame(passed(*peer.submit(b"slowly"))):
        peer.send(bytes([byte]))
    assert peer.receive_answer().endswith(binary(b"slowly"))


def test_two_calls_in_one_write_and_ticks_between_are_answered(connect: Connect) -> None:
    peer = connect()
    first, second = (frame(passed(*peer.submit(text, n))) for n, text in ((1, b"one"), (2, b"two")))
    peer.send(b"\0\0\0\0" + first + b"\0\0\0\0" * 3 + second)
    answers = {peer.receive_answer()[-3:], peer.receive_answer()[-3:]}
    assert answers == {b"one", b"two"}


def test_a_frame_cut_at_every_byte_ends_in_silence_and_one_line(
    bridge: Bridge, connect: Connect, witness: Peer
) -> None:
    whole = len(frame(passed(*connect().submit(b"cut here"))))
    for length in range(1, whole):
        peer = connect()
        data = frame(passed(*peer.submit(b"cut here")))
        peer.send(data[:length])
        peer.half_close()
        assert peer.is_closed(), f"cut at byte {length}"
        bridge.one_line_about(peer)
        if length % 16 == 0:
            assert witness.echo(b"meanwhile").endswith(b"meanwhile")


def test_payloads_cut_half_way_give_their_room_in_the_pool_back(
    bridge: Bridge, connect: Connect, witness: Peer
) -> None:
    # 320 MiB in all, a pool of 256 MiB: if the halves stayed, the last would find no room.
    for _ in range(80):
        with bridge.connect() as peer:
            whole = frame(passed(*peer.submit(bytes(4 << 20))))
            peer.send(whole[: len(whole) // 2])
            peer.half_close()
            assert peer.is_closed()
    payload = bytes(60 << 20)
    assert witness.echo(payload).endswith(payload)


def test_a_connection_that_ends_between_frames_leaves_one_line(
    bridge: Bridge, connect: Connect
) -> None:
    peer = connect()
    peer.half_close()
    assert peer.is_closed()
    bridge.one_line_about(peer)


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x80000000])
def test_a_frame_of_an_oversized_length_is_refused_before_it_comes(
    bridge: Bridge, connect: Connect, length: int
) -> None:
    before = bridge.resident_bytes()
    peer = connect()
    peer.send(struct.pack(">I", length) + b"p\x83")
    assert peer.is_closed()
    bridge.one_line_about(peer)
    assert bridge.resident_bytes() - before < 16 << 20


def test_a_frame_of_the_largest_length_takes_no_memory_before_it_comes(
    bridge: Bridge, connect: Connect
) -> None:
    before = bridge.resident_bytes()
    peer = connect()
    peer.send(struct.pack(">I", 0x7FFFFFFF) + b"p\x83")
    peer.sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        peer.receive(1)
    assert bridge.resident_bytes() - before < 4 << 20
    peer.sock.settimeout(DEADLINE_S)
    peer.half_close()
    assert peer.is_closed()
    bridge.one_line_about(peer)


def test_a_message_too_large_for_a_service_in_python_ends_its_connection(
    bridge: Bridge, connect: Connect
) -> None:
    before = bridge.resident_bytes()
    peer = connect()
    control = tuple_(small(6), peer.pid(), atom(""), atom("worker_registry"))
    with contextlib.suppress(OSError):  # closed on the way
        peer.send_frame(passed(control, binary(bytes(300 << 20))))
    assert peer.is_closed()
    bridge.one_line_about(peer)
    assert bridge.resident_bytes() - before < 96 << 20


def test_a_peer_that_does_not_read_its_answers_is_cut_off_and_bounded(
    bridge: Bridge, connect: Connect, witness: Peer
) -> None:
    before = bridge.resident_bytes()
    peer = connect()
    call = frame(passed(*peer.submit(bytes(1 << 20))))
    with contextlib.suppress(OSError):  # cut off on the way
        for _ in range(400):
            peer.send(call)
    assert witness.echo(b"meanwhile").endswith(b"meanwhile")
    wait_until(lambda: bool(bridge.about(peer)), "the peer is cut off", 10)
    bridge.one_line_about(peer)
    assert bridge.resident_bytes() - before < 384 << 20


# What a BEAM never sends. Each is a whole frame of the right length.
NONSENSE = {
    "not a pass-through frame": b"q\x83" + tuple_(small(6)),
    "empty pass-through": b"p",
    "no version byte": b"p" + tuple_(small(6)),
    "a control message that is no tuple": passed(small(6)),
    "an empty tuple": passed(tuple_()),
    "an operation that does not exist": passed(tuple_(small(99), small(1))),
    "an operation that is no integer": passed(tuple_(atom("send"), small(1))),
    "an operation with too few elements": passed(tuple_(small(6), small(1))),
    "a tuple longer than its frame": b"p\x83h\x04a\x06",
    "an atom longer than its frame": b"p\x83h\x04a\x06w\xffab",
    "a large tuple that claims 2^32 - 1 elements": b"p\x83i\xff\xff\xff\xff",
    "a list that claims 2^32 - 1 elements": b"p\x83l\xff\xff\xff\xff",
    "a tag that does not exist": b"p\x83\x01\x02\x03",
    "a compressed control message": b"p\x83P\x00\x00\x00\x10" + bytes(16),
    "a header where none was agreed on": headed(tuple_(small(6))),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_closes_the_connection_with_one_line(
    bridge: Bridge, connect: Connect, name: str
) -> None:
    peer = connect()
    peer.send_frame(NONSENSE[name])
    assert peer.is_closed()
    bridge.one_line_about(peer)


def test_a_signal_in_another_nodes_name_closes_the_connection(
    bridge: Bridge, connect: Connect
) -> None:
    peer, other = connect(), connect()
    ref = peer.reference()
    peer.send_frame(passed(tuple_(small(19), other.pid(), atom("job_dispatcher"), ref)))
    assert peer.is_closed()
    bridge.one_line_about(peer)
    assert other.echo(b"not me").endswith(b"not me")


def test_random_bytes_never_do_more_than_close_the_connection(
    bridge: Bridge, connect: Connect, witness: Peer
) -> None:
    rng = random.Random(20261120)
    for turn in range(150):
        peer = connect(rng.choice([FRAGMENTS, PLAIN]))
        head = rng.choice([b"", b"\x83D", b"\x83E", b"\x83F", b"p\x83", b"\x83D\x00h\x04a\x06"])
        with contextlib.suppress(OSError):  # closed already, which is one of the two right answers
            for _ in range(3):
                peer.send_frame(head + rng.randbytes(rng.randrange(1, 200)))
            peer.half_close()
        assert peer.is_closed(), f"turn {turn}"
        bridge.one_line_about(peer)
    assert witness.echo(b"still here").endswith(b"still here")


def test_a_call_with_a_bit_turned_never_does_more_than_close_the_connection(
    bridge: Bridge, connect: Connect, witness: Peer
) -> None:
    size = len(passed(*connect().submit(b"x" * 20)))
    for index in range(size):
        peer = connect()
        body = bytearray(passed(*peer.submit(b"x" * 20)))
        body[index] ^= 1 << (index % 8)
        peer.send_frame(bytes(body))
        peer.half_close()
        assert peer.is_closed(), f"byte {index}"
    assert witness.echo(b"still here").endswith(b"still here")


# -- fragments


def call_in_fragments(peer: Peer, payload: bytes, cuts: list[int], seq: int = 5) -> list[bytes]:
    control, message = peer.submit(payload)
    data = control + message
    edges = [0, *(len(control) + cut for cut in cuts), len(data)]
    parts = [data[a:b] for a, b in pairwise(edges)]
    count = len(parts)
    return [fragment(seq, count - n, part, first=n == 0) for n, part in enumerate(parts)]


def test_a_call_in_fragments_is_answered(connect: Connect) -> None:
    peer = connect(FRAGMENTS)
    for body in call_in_fragments(peer, b"x" * 1000, [0, 10, 500]):
        peer.send_frame(body)
    assert peer.receive_answer().endswith(binary(b"x" * 1000))


BROKEN_SEQUENCES = {
    "a continuation of nothing": lambda parts: [parts[1]],
    "a number left out": lambda parts: [parts[0], parts[2]],
    "a number twice": lambda parts: [parts[0], parts[1], parts[1]],
    "the first part twice": lambda parts: [parts[0], parts[0]],
    "sequence 0": lambda parts: [parts[0][:2] + bytes(8) + parts[0][10:]],
    "a count of 0": lambda parts: [parts[0][:10] + bytes(8) + parts[0][18:]],
    "a header of unknown atoms": lambda parts: [b"\x83D\x02\x00\x00\x00\x00" + parts[0][19:]],
}


@pytest.mark.parametrize("name", BROKEN_SEQUENCES)
def test_a_broken_sequence_of_fragments_closes_the_connection(
    bridge: Bridge, connect: Connect, name: str
) -> None:
    peer = connect(FRAGMENTS)
    before = bridge.resident_bytes()
    for body in BROKEN_SEQUENCES[name](call_in_fragments(peer, b"x" * 1000, [0, 10])):
        peer.send_frame(body)
    assert peer.is_closed()
    bridge.one_line_about(peer)
    assert bridge.resident_bytes() - before < 16 << 20


def test_a_count_of_2_63_fragments_takes_no_memory(bridge: Bridge, connect: Connect) -> None:
    peer = connect(FRAGMENTS)
    before = bridge.resident_bytes()
    first = call_in_fragments(peer, b"x" * 1000, [0, 10])[0]
    peer.send_frame(first[:10] + b"\x80" + bytes(7) + first[18:])
    for body in call_in_fragments(peer, b"y" * 1000, [0, 10], seq=6):
        peer.send_frame(body)
    assert peer.receive_answer().endswith(binary(b"y" * 1000))
    assert bridge.resident_bytes() - before < 4 << 20


def test_sequences_that_are_never_finished_are_bounded(bridge: Bridge, connect: Connect) -> None:
    before = bridge.resident_bytes()
    peer = connect(FRAGMENTS)
    with contextlib.suppress(OSError):  # closed at the bound
        for seq in range(1, 20_000):
            peer.send_frame(call_in_fragments(peer, b"x" * 2000, [1000], seq)[0])
    assert peer.is_closed()
    bridge.one_line_about(peer)
    assert bridge.resident_bytes() - before < 64 << 20
