"""Nodes that ours keeps connected: dialled again, with growing pauses, whenever they are not.

The pause doubles from `min_s` to `max_s`, and up to a half of it is taken off at random, so that
the nodes of a cluster that lost one do not all knock at its door in the same moment. A connection
that held for `settled_s` starts the pauses anew.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import trio

from bridge.log import Log
from bridge.node.cluster.connections import Connections
from bridge.node.cluster.dialling import NoConnection

log = Log("ringbridge.node")


@dataclass(frozen=True)
class Backoff:
    """The pauses between attempts, in seconds. `jitter()` gives a number from 0 to 1."""

    min_s: float = 0.1
    max_s: float = 30.0
    settled_s: float = 10.0
    jitter: Callable[[], float] = field(default=random.random, repr=False)

    def pause_s(self, failures: int) -> float:
        """The pause after so many failures in a row, 1 at least."""
        whole = min(self.max_s, self.min_s * 2.0 ** min(failures - 1, 64))
        return whole * (1 - self.jitter() / 2)


@dataclass(frozen=True, slots=True)
class KeptStatistics:
    """One kept peer. `ups` and `losses` count connections, whoever made them; `failures` are the
    attempts in a row that failed, 0 while it is connected and settled.
    """

    peer: str
    connected: bool
    attempts: int
    ups: int
    losses: int
    failures: int
    last_error: str | None


class Kept:
    """The peers of one `keep_connected`, until `stop` or the end of the node."""

    def __init__(
        self,
        connections: Connections,
        peers: Iterable[str],
        nursery: trio.Nursery,
        backoff: Backoff,
    ) -> None:
        self._connections = connections
        self._backoff = backoff
        self._scope = trio.CancelScope()
        self._figures = {
            peer: KeptStatistics(peer, False, 0, 0, 0, 0, None) for peer in dict.fromkeys(peers)
        }
        nursery.start_soon(self._run)

    def stop(self) -> None:
        """Keep them no longer; connections that are up stay up."""
        self._scope.cancel()

    def statistics(self) -> list[KeptStatistics]:
        """One record per peer, in the order they were given."""
        up = self._connections.peers.connection_of
        return [
            replace(figures, connected=up(peer) is not None)
            for peer, figures in self._figures.items()
        ]

    async def wait_connected(self) -> None:
        """Return when all of them are connected at the same time."""
        peers = self._connections.peers
        while missing := [peer for peer in self._figures if peers.connection_of(peer) is None]:
            await peers.changed(missing[0]).wait()

    async def _run(self) -> None:
        with self._scope:
            async with trio.open_nursery() as nursery:
                for peer in self._figures:
                    nursery.start_soon(self._keep, peer)

    async def _keep(self, peer: str) -> None:
        while True:
            self._count(peer, attempts=1)
            try:
                await self._connections.connect(peer)
            except NoConnection as error:
                failures = self._figures[peer].failures + 1
                self._set(peer, failures=failures, last_error=error.why)
                pause_s = self._backoff.pause_s(failures)
                if failures == 1:  # one line per loss, not one per attempt
                    log.warning("a kept node is not reached, trying on", peer=peer, why=error.why)
                await self._pause(peer, pause_s)
            else:
                await self._watch(peer)

    async def _pause(self, peer: str, pause_s: float) -> None:
        """Sleep, or until the peer has connected with us by itself."""
        with trio.move_on_after(pause_s):
            while self._connections.peers.connection_of(peer) is None:
                await self._connections.peers.changed(peer).wait()

    async def _watch(self, peer: str) -> None:
        """Return when the connection is lost."""
        self._count(peer, ups=1)
        with trio.move_on_after(self._backoff.settled_s) as settling:
            await self._wait_lost(peer)
        if settling.cancelled_caught:
            self._set(peer, failures=0)
            await self._wait_lost(peer)
        self._count(peer, losses=1)
        if not settling.cancelled_caught:  # it comes and goes: no faster than it fails
            failures = self._figures[peer].failures + 1
            self._set(peer, failures=failures)
            await self._pause(peer, self._backoff.pause_s(failures))

    async def _wait_lost(self, peer: str) -> None:
        while self._connections.peers.connection_of(peer) is not None:
            await self._connections.peers.changed(peer).wait()

    def _count(self, peer: str, **more: int) -> None:
        was = self._figures[peer]
        self._set(peer, **{name: getattr(was, name) + by for name, by in more.items()})

    def _set(self, peer: str, **values: int | str | None) -> None:
        self._figures[peer] = replace(self._figures[peer], **values)  # type: ignore[arg-type]
