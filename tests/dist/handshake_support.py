"""Two handshakes to drive against each other, and every way of cutting bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bridge.dist.cookie import Cookie
from bridge.dist.handshake import Acceptor, Initiator
from bridge.dist.handshake_events import Event, Identity

ALICE = Identity("alice@127.0.0.1", 0x11111111)
BOB = Identity("bob@127.0.0.1", 0x22222222)
COOKIE = Cookie("a cookie of the tests")
A_CHALLENGE, B_CHALLENGE = 0xA1A2A3A4, 0xFFFFFFFF


def initiator(**options: Any) -> Initiator:
    """Alice dials Bob."""
    options = {"challenge": A_CHALLENGE, **options}
    identity = options.pop("identity", ALICE)
    cookie = options.pop("cookie", COOKIE)
    return Initiator(identity, cookie, options.pop("peer_name", BOB.name), **options)


def acceptor(**options: Any) -> Acceptor:
    """Bob is dialled."""
    options = {"challenge": B_CHALLENGE, **options}
    return Acceptor(options.pop("identity", BOB), options.pop("cookie", COOKIE), **options)


def splits(data: bytes) -> Iterator[list[bytes]]:
    """`data` whole, byte by byte, and cut in two at every place."""
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    for cut in range(1, len(data)):
        yield [data[:cut], data[cut:]]


def feed(core: Acceptor | Initiator, pieces: list[bytes]) -> list[Event]:
    """The events of `pieces`, given one after the other."""
    events: list[Event] = []
    for piece in pieces:
        core.receive_data(piece)
        while (event := core.next_event()) is not None:
            events.append(event)
    return events
