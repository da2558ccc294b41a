"""One slot of a remote worker on this host, which has the worker's end of its link itself.

The link is offered to the worker; when it fetches it, the relay and the worker are alone with the
slot's jobs, as with any worker's, and what is left here is its end. When it does not, the bridge
plays that end (slot.py), and the jobs are messages: the link has not been used until then, so no
job is lost or seen twice. Which of both it is holds for one life of the slot.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Protocol

import trio

from bridge.fabric.proxy import Proxy
from bridge.lanes.links import LinkGrant
from bridge.workers.remote import messages
from bridge.workers.remote.messages import Began, Ended, Pulse, Said
from bridge.workers.remote.slot import Desk, Slot, write_end

FETCH_S = 5.0  # as long as the grant


class Offers(Protocol):
    """Who gives links out, at a socket (bridge/lanes/links.py)."""

    def allows(self, node: str) -> bool: ...
    def grant(self, node: str, os_pid: int, give: Callable[[], tuple[int, ...]]) -> LinkGrant: ...
    def withdraw(self, grant: LinkGrant) -> None: ...


class LinkedSlot:
    """One life. It stands where a Slot does; `fds` are its own, until they are fetched."""

    def __init__(
        self,
        desk: Desk,
        index: int,
        worker_id: int,
        fds: tuple[int, ...],
        obituary: int,
        stderr: int,
        *,
        offers: Offers,
        patience_s: float,
        fetched: Callable[[], None],
        greet: Callable[[Proxy], None],
    ) -> None:
        self._desk = desk
        self.index = index
        self.worker_id = worker_id
        self._fds = fds
        self._obituary = obituary
        self._stderr = stderr
        self._offers = offers
        self._patience_s = min(FETCH_S, patience_s)
        self._fetched = fetched
        self._greet = greet
        self._decided = trio.Event()
        self._scope = trio.CancelScope()
        self._played: Slot | None = None
        self.linked = False
        self.over = trio.Event()

    # ---- its life

    async def run(self) -> None:
        """Offer it, and be there until the end."""
        try:
            with self._scope:
                await self._offer()
                if self.linked:
                    await trio.sleep_forever()
                elif not self._is_dead():
                    await self._play()
        finally:
            if not self._is_dead():
                self.die(-1, 9, "the bridge has ended")
            self._close_fds()
            self.over.set()

    async def _offer(self) -> None:
        memory = self._desk.hello.memory
        assert memory is not None
        grant = self._offers.grant(self._desk.hello.pid.node.name, memory.os_pid, self._give)
        try:
            self._desk.tell(
                messages.message(
                    "link",
                    slot=self.index,
                    worker=self.worker_id,
                    socket=grant.socket,
                    token=grant.token,
                    within_ms=int(self._patience_s * 1000),
                    bell=True,
                )
            )
            with trio.move_on_after(self._patience_s):
                await self._decided.wait()
        finally:
            self._offers.withdraw(grant)

    @property
    def decided(self) -> bool:
        """Is it known who has the worker's end?"""
        return self.linked or self._played is not None

    def _give(self) -> tuple[int, ...]:
        """They are fetched: from now on the worker has this end."""
        fds, self._fds = self._fds, ()
        self.linked = True
        self._fetched()
        self._decided.set()
        return fds

    def declined(self) -> bool:
        """The worker does not take the link. False: it has it already, and so has lost it."""
        self._decided.set()
        return not self.linked

    async def _play(self) -> None:
        proxy = Proxy(self._fds)  # type: ignore[arg-type]  # a tuple, as LinkFds is one
        self._close_fds()
        try:
            self._greet(proxy)
        except BaseException:
            proxy.close()
            raise
        ends, self._obituary = (self._obituary, self._stderr), -1
        self._played = Slot(self._desk, self.index, proxy, *ends)
        await self._played.run()

    def _is_dead(self) -> bool:
        return self._obituary < 0 and (self._played is None or self._played.is_dead())

    def die(self, status: int, signal: int, words: str, *, has_ended: bool = False) -> None:
        """As Slot.die. Of a link that was fetched nothing is marked as begun: the relay and the
        worker settle that between them, by a word that the worker looks at before each begin.
        """
        if self._played is not None:
            self._played.die(status, signal, words, has_ended=has_ended)
        elif self._obituary >= 0:
            write_end(self._obituary, self._stderr, status, signal, words)
            self._obituary = -1
            self._scope.cancel()

    def _close_fds(self) -> None:
        fds, self._fds = self._fds, ()
        for fd in fds:
            os.close(fd)

    # ---- as a Slot: of what was fetched, the bridge sees nothing

    def turn(self) -> None:
        if self._played is not None:
            self._played.turn()

    def holds(self, job_id: int) -> bool:
        return self._played is not None and self._played.holds(job_id)

    def take(self, said: Began | Pulse | Said | Ended) -> None:
        if self._played is not None:
            self._played.take(said)

    def overdue(self, now_s: float, patience_s: float) -> None:
        if self._played is not None:
            self._played.overdue(now_s, patience_s)

    def beat(self) -> None:
        if self._played is not None:
            self._played.beat()


def copies_of(fds: tuple[int, ...], undo: contextlib.ExitStack) -> tuple[int, ...]:
    """Copies of a link's descriptors, for the time after the relay has closed its own."""
    copies = []
    for fd in fds:
        copies.append(os.dup(fd))
        undo.callback(os.close, copies[-1])
    return tuple(copies)
