"""Signals to a node that is not connected: they wait in order while it is dialled, as on a BEAM.

A BEAM connects when one of its processes sends to, links with or monitors something elsewhere, and
holds the sender back meanwhile. Ours are not held back: what they send waits here and goes out when
the connection is up. If there is none to be had, it is carried out all the same: a send is lost, a
link or monitor says `noconnection`. So it is for more nodes than DIALS_MAX at a time: which node
that is may be a peer's choice, who names a pid there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio

from bridge.etf import EncodeError
from bridge.log import Log
from bridge.node.log_limit import LogLimit

WAITING_MAX = 10_000  # signals per node that is being dialled, as many as a mailbox holds
DIALS_MAX = 100  # nodes at a time: each takes a descriptor, a look-up and up to ten seconds
Action = Callable[[], object]
log = Log("ringbridge.node")


class AutoConnect:
    """`reachable(node)` says whether signals can go at once; `connect(node)` raises if it fails.

    `nursery` runs one task per node that is dialled, until its signals are out.
    """

    def __init__(
        self,
        *,
        reachable: Callable[[str], bool],
        connect: Callable[[str], Awaitable[object]],
        failures: tuple[type[Exception], ...],
        nursery: trio.Nursery,
    ) -> None:
        self._reachable = reachable
        self._connect = connect
        self._failures = failures
        self._nursery = nursery
        self._waiting: dict[str, deque[Action]] = {}
        self._lines = LogLimit()

    def run(self, node: str, action: Action, check: Action | None = None) -> bool:
        """Carry `action` out now, or behind the others that wait for `node`. False: no room.

        `check` is called for one that waits: what it raises, the caller hears at once.
        """
        waiting = self._waiting.get(node)
        if waiting is None and self._reachable(node):
            action()
            return True
        if check is not None:
            check()
        if waiting is None and len(self._waiting) >= DIALS_MAX:
            if (held_back := self._lines.due(None)) is not None:
                log.warning("too many nodes are dialled", peer=node, held_back=held_back)
            action()
            return True
        if waiting is None:
            waiting = self._waiting[node] = deque()
            self._nursery.start_soon(self._dial, node)
        if len(waiting) >= WAITING_MAX:
            return False
        waiting.append(action)
        return True

    async def _dial(self, node: str) -> None:
        try:
            with suppress(*self._failures):
                await self._connect(node)
        finally:  # cancelled too: nobody waits for a node that is ending
            for action in self._waiting.pop(node):
                try:
                    action()
                except EncodeError as error:  # the term is fine, the peer's release cannot have it
                    log.warning("signal not sent", peer=node, error=str(error))
