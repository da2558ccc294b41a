"""Spawn requests of ours that wait for their SPAWN_REPLY, and what is owed when it comes late.

The reply comes exactly once, and before anything of the new process (dist-protocol.md, 4.4). Who
has stopped waiting is not told: then the monitor that the reply reports is given back, and a link
that it reports breaks. Until the reply, or the loss of the connection, nothing is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import trio

from bridge.dist import control as c
from bridge.dist.errors import RemoteProtocolError
from bridge.etf import Atom, Pid, Reference
from bridge.node.signals import gen
from bridge.node.signals.table import Process, ProcessTable

Term = Any
Answered = Callable[[Pid | Atom], None]

PENDING_MAX = 100_000  # in all: who has so many waits for a node that does not answer
FLAG_LINK, FLAG_MONITOR = 1, 2
ABANDONED = Atom("abandoned")  # the exit reason that OTP gives to a spawn nobody waits for


@dataclass(slots=True)
class _Pending:
    owner: Process
    peer: str
    answered: Answered | None  # None: nobody waits (any more)
    down: Callable[[Term], None] | None
    abandoned: bool = False


class Signals(Protocol):
    """What of the router is needed here; the router has these requests, so it is not imported."""

    table: ProcessTable

    def emit(self, node: str, message: c.ControlMessage, payload: Term = None) -> bool: ...
    def hold_monitor(
        self,
        process: Process,
        target: Pid,
        notify: Callable[[Term], None] | None,
        *,
        ref: Reference,
    ) -> None: ...
    def demonitor(self, ref: Reference) -> None: ...


class SpawnRequests:
    """The pending requests of one node, sent and undone by way of its `signals`."""

    def __init__(self, signals: Signals) -> None:
        self._signals = signals
        self._pending: dict[Reference, _Pending] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def send(
        self,
        request: c.SpawnRequest,
        args: list[Term],
        *,
        owner: Process,
        peer: str,
        answered: Answered | None = None,
        down: Callable[[Term], None] | None = None,
    ) -> None:
        """Send `request`; `answered` gets the pid, or the atom that says why there is none.

        `down` takes the reason in place of a DOWN message, if it asks for a monitor. Either may be
        called before this returns. Raises EncodeError, trio.WouldBlock when too many wait.
        """
        if len(self._pending) >= PENDING_MAX:
            raise trio.WouldBlock(f"{PENDING_MAX} spawn requests wait for their answer already")
        self._pending[request.ref] = _Pending(owner, peer, answered, down)
        try:
            connected = self._signals.emit(peer, request, args)
        except BaseException:
            del self._pending[request.ref]
            raise
        if not connected and self._pending.pop(request.ref, None) is not None and answered:
            answered(gen.NOCONNECTION)

    def abandon(self, ref: Reference) -> bool:
        """Nobody waits for the answer any more; False: it has come."""
        pending = self._pending.get(ref)
        if pending is None:
            return False
        pending.answered = pending.down = None
        pending.abandoned = True
        return True

    def give_up(self, ref: Reference, owner: Process, result: Pid | Atom) -> None:
        """As `abandon`; if the answer `result` has come, what it set up is undone."""
        if not self.abandon(ref):
            self._signals.demonitor(ref)
            if isinstance(result, Pid) and owner.links.receive_exit(result):
                self._signals.emit(result.node.name, c.Exit(owner.pid, result, ABANDONED))

    def receive(self, origin: str, reply: c.SpawnReply) -> None:
        """One SPAWN_REPLY of the node `origin`. Raises RemoteProtocolError."""
        pending = self._pending.get(reply.ref)
        if pending is None or pending.peer != origin or reply.to != pending.owner.pid:
            return
        if isinstance(reply.result, Pid):
            if reply.result.node.name != origin:
                raise RemoteProtocolError("a spawned process is of the node that spawned it")
            del self._pending[reply.ref]
            self._spawned(pending, reply, reply.result)
        else:
            del self._pending[reply.ref]
        if pending.answered is not None:
            pending.answered(reply.result)

    def check_down(self, origin: str, ref: Reference) -> None:
        """A DOWN of `ref` came. Raises RemoteProtocolError if its SPAWN_REPLY did not."""
        pending = self._pending.get(ref)
        if pending is not None and pending.peer == origin:
            raise RemoteProtocolError("a spawn reply comes before the DOWN of its process")

    def connection_lost(self, node: str) -> None:
        lost = [ref for ref, pending in self._pending.items() if pending.peer == node]
        for ref in lost:
            answered = self._pending.pop(ref).answered
            if answered is not None:
                answered(gen.NOCONNECTION)

    def _spawned(self, pending: _Pending, reply: c.SpawnReply, pid: Pid) -> None:
        owner = pending.owner
        alive = self._signals.table.find(owner.pid) is owner
        wanted = alive and not pending.abandoned
        if reply.flags & FLAG_MONITOR:
            if wanted:
                self._signals.hold_monitor(owner, pid, pending.down, ref=reply.ref)
            else:
                self._signals.emit(pending.peer, c.DemonitorP(owner.pid, pid, reply.ref))
        if reply.flags & FLAG_LINK:
            if wanted:
                owner.links.receive_link(pid)
            else:
                reason = ABANDONED if alive else gen.NOPROC
                self._signals.emit(pending.peer, c.Exit(owner.pid, pid, reason))
