"""Before a connection is one: cut, oversized, wrong or silent handshakes disturb nobody."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator

import pytest

from integration.wire.conftest import Bridge
from integration.wire.peer import MANDATORY, PLAIN, Peer, digest


@pytest.fixture
def peer(bridge: Bridge) -> Iterator[Peer]:
    with Peer.dial(bridge.port) as dialled:
        yield dialled


def test_a_handshake_cut_at_every_byte_is_the_end_of_it(bridge: Bridge) -> None:
    for length in range(40):
        with Peer.dial(bridge.port) as cut:
            message = cut.name_message()
            whole = len(message).to_bytes(2, "big") + message
            cut.send(whole[: min(length, len(whole) - 1)])
            cut.half_close()
            assert cut.is_closed(), f"cut at byte {length}"


def test_a_wrong_cookie_is_refused_with_a_line_that_says_so(bridge: Bridge, peer: Peer) -> None:
    peer.send_short(peer.name_message())
    assert peer.receive_short() == b"sok"
    challenge = int.from_bytes(peer.receive_short()[9:13], "big")
    peer.send_short(b"r" + bytes(4) + digest("not the cookie", challenge))
    assert peer.is_closed()
    line = bridge.one_line_about(peer)
    assert "cookie" in str(line)
    assert line["level"] == "warning"


def test_a_peer_without_a_mandatory_flag_is_told_not_allowed(bridge: Bridge, peer: Peer) -> None:
    peer.send_short(peer.name_message(PLAIN & ~0x400000000 & ~0x4))
    assert peer.receive_short() == b"snot_allowed"
    assert peer.is_closed()
    bridge.one_line_about(peer)


@pytest.mark.parametrize("name", ["nohost", "@127.0.0.1", "two@at@signs", "wire 1@127.0.0.1", ""])
def test_a_name_that_is_none_is_refused(bridge: Bridge, peer: Peer, name: str) -> None:
    peer.name = name
    peer.send_short(peer.name_message())
    assert peer.is_closed()


def test_a_message_of_the_largest_length_is_refused(peer: Peer) -> None:
    peer.send_short(b"N" + bytes(65_000))
    assert peer.is_closed()


def test_random_bytes_instead_of_a_handshake_end_it(bridge: Bridge) -> None:
    rng = random.Random(20261120)
    for _ in range(100):
        with Peer.dial(bridge.port) as peer:
            start = rng.choice([b"", b"N", b"n", b"r"])
            with contextlib.suppress(OSError):  # closed already, which is as good
                peer.send_short(start + rng.randbytes(rng.randrange(300)))
                peer.half_close()
            assert peer.is_closed()


def test_a_silent_peer_is_sent_away_in_seven_seconds(peer: Peer) -> None:
    # dist_util's net_setuptime: 7 s.
    peer.sock.settimeout(12)
    began = time.monotonic()
    assert peer.is_closed()
    assert 5 < time.monotonic() - began < 10


def test_a_second_connection_of_the_same_name_takes_the_first_ones_place(bridge: Bridge) -> None:
    with bridge.connect() as first, Peer.dial(bridge.port) as second:
        second.name = first.name
        second.send_short(second.name_message())
        assert second.receive_short() == b"salive"
        second.send_short(b"strue")
        challenge = int.from_bytes(second.receive_short()[9:13], "big")
        second.send_short(b"r" + bytes(4) + digest(bridge.cluster.cookie, challenge))
        assert second.receive_short() == b"a" + digest(bridge.cluster.cookie, 0)
        assert second.echo(b"second").endswith(b"second")
        assert first.is_closed()


def test_a_wrong_cookie_in_anothers_name_does_not_disturb_the_other(bridge: Bridge) -> None:
    with bridge.connect() as first, Peer.dial(bridge.port) as thief:
        thief.name = first.name
        thief.send_short(thief.name_message(MANDATORY))
        assert thief.receive_short() == b"salive"
        thief.send_short(b"strue")
        thief.receive_short()
        thief.send_short(b"r" + bytes(4) + digest("guess", 1))
        assert thief.is_closed()
        assert first.echo(b"mine").endswith(b"mine")
