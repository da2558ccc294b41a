"""Duplicates and simultaneous connects: dist-protocol.md, 2.5, decided per peer name."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bridge.dist.handshake_events import Status
from bridge.node.cluster.peers import Connection, Peers

OWN, SMALLER, GREATER = "m@h", "a@h", "z@h"


def connection(peer: str, id_: int = 1) -> Connection:
    return Connection(id_, peer, 0, 1)


async def test_a_first_claim_is_ok() -> None:
    assert Peers(OWN).claim(SMALLER) is Status.OK


async def test_a_smaller_peer_yields_to_our_attempt() -> None:
    peers = Peers(OWN)
    peers.begin_attempt(SMALLER, lambda: pytest.fail("our attempt goes on"))
    assert peers.claim(SMALLER) is Status.NOK
    assert peers.claims_of(SMALLER) == 0


async def test_our_attempt_goes_on_until_a_greater_peer_has_proved_itself() -> None:
    """Else anybody without the cookie could end our attempts by claiming the peer's name."""
    peers = Peers(OWN)
    peers.begin_attempt(GREATER, lambda: pytest.fail("nothing is proven yet"))
    assert peers.claim(GREATER) is Status.OK_SIMULTANEOUS
    assert peers.claims_of(GREATER) == 1


async def test_a_connected_name_is_alive() -> None:
    peers = Peers(OWN)
    peers.up(connection(SMALLER))
    assert peers.claim(SMALLER) is Status.ALIVE
    assert peers.claim(SMALLER) is Status.ALIVE, "unproven claims do not block each other"


async def test_names_are_apart() -> None:
    peers = Peers(OWN)
    peers.up(connection(SMALLER))
    assert peers.claim(GREATER) is Status.OK


async def test_a_connection_goes_down_once() -> None:
    peers = Peers(OWN)
    peers.up(connection(SMALLER, 5))
    assert peers.down(5) == connection(SMALLER, 5)
    assert peers.down(5) is None
    assert peers.connection_of(SMALLER) is None


async def test_idle_names_are_forgotten() -> None:
    peers = Peers(OWN)
    for number in range(100):
        name = f"n{number}@h"
        peers.claim(name)
        peers.end_claim(name)
        attempt = peers.begin_attempt(name, lambda: None)
        peers.end_attempt(name, attempt, None)
        assert attempt.done.is_set()
        assert peers.connection_of(name) is None
    assert peers._entries == {}


async def test_waiters_hear_of_every_change() -> None:
    peers = Peers(OWN)
    peers.claim(SMALLER)
    changes: list[Callable[[], object]] = [
        lambda: peers.up(connection(SMALLER)),
        lambda: peers.end_claim(SMALLER),
        lambda: peers.down(1),
    ]
    for change in changes:
        event = peers.changed(SMALLER)
        change()
        assert event.is_set()
