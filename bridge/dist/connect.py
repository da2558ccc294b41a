"""The trio shell of the handshake: one stream, one core, from the first byte to the last before the
frames.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from bridge.dist.errors import RemoteProtocolError
from bridge.dist.handshake import HANDSHAKE_TIMEOUT_S, Acceptor, Initiator
from bridge.dist.handshake_events import (
    AskedToReplace,
    Established,
    Event,
    Offered,
    Peer,
    Proven,
    Refused,
    Status,
    Withdrawn,
)


@dataclass(frozen=True, slots=True)
class Connected:
    """A finished handshake: the peer, and bytes it already sent behind it."""

    peer: Peer
    leftover: bytes


class DialRefused(Exception):
    """The acceptor answered `nok` or `not_allowed`, or `alive` and we kept what there is."""

    def __init__(self, status: Status) -> None:
        super().__init__(f"the peer answered {status.value}")
        self.status = status


async def accept_peer(
    stream: trio.abc.Stream,
    core: Acceptor,
    *,
    decide: Callable[[Peer], Status],
    proven: Callable[[Peer], None],
    timeout_s: float = HANDSHAKE_TIMEOUT_S,
) -> Connected | None:
    """Run the acceptor's side; None when we refused with a status or the peer withdrew.

    `decide` and `proven` are called once at most, in this task, and must not block; after `proven`
    the old connection is gone. Raises RemoteProtocolError; the caller closes the stream in every
    case but success. A cancelled call leaves the stream unusable.
    """
    async with _translate(stream, core, timeout_s):
        while True:
            match await _next_event(stream, core):
                case Offered(peer):
                    status = decide(peer)
                    core.decide(status)
                    if status in (Status.NOK, Status.NOT_ALLOWED):
                        await stream.send_all(core.data_to_send())
                        return None
                case Withdrawn():
                    return None
                case Proven(peer):
                    proven(peer)
                    core.confirm()
                    await stream.send_all(core.data_to_send())
                    return Connected(peer, core.take_leftover())
                case event:
                    raise AssertionError(f"an acceptor has no event {event}")


async def dial_peer(
    stream: trio.abc.Stream,
    core: Initiator,
    *,
    replace: Callable[[], bool],
    timeout_s: float = HANDSHAKE_TIMEOUT_S,
) -> Connected:
    """Run the initiator's side. `replace` answers `alive`: is there no connection of ours to keep?

    Raises DialRefused, RemoteProtocolError; the caller closes the stream in every case but success.
    A cancelled call leaves the stream unusable.
    """
    async with _translate(stream, core, timeout_s):
        while True:
            match await _next_event(stream, core):
                case AskedToReplace():
                    answer = replace()
                    core.answer_alive(answer)
                    if not answer:
                        await stream.send_all(core.data_to_send())
                        raise DialRefused(Status.ALIVE)
                case Refused(status):
                    raise DialRefused(status)
                case Established(peer):
                    return Connected(peer, core.take_leftover())
                case event:
                    raise AssertionError(f"an initiator has no event {event}")


async def _next_event(stream: trio.abc.Stream, core: Acceptor | Initiator) -> Event:
    while True:
        try:
            event = core.next_event()
        except RemoteProtocolError:
            if data := core.data_to_send():  # the status that says why
                await stream.send_all(data)
            raise
        if data := core.data_to_send():
            await stream.send_all(data)
        if event is not None:
            return event
        core.receive_data(bytes(await stream.receive_some()))


@asynccontextmanager
async def _translate(
    stream: trio.abc.Stream, core: Acceptor | Initiator, timeout_s: float
) -> AsyncIterator[None]:
    try:
        with trio.fail_after(timeout_s):
            yield
    except trio.TooSlowError:
        rule = f"a handshake takes at most {timeout_s:g} s"
        raise RemoteProtocolError(rule, peer=core.peer_name) from None
    except trio.BrokenResourceError as error:
        raise RemoteProtocolError("the peer reset the connection", peer=core.peer_name) from error
