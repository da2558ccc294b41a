"""One function call on another node, as `erpc` makes it: a spawn with a monitor, and its DOWN.

The outcome is the exit reason of the process that the other node spawns, marked with a reference of
this very call; the monitor is the request itself, so an answer that comes late finds nobody
(erpc.erl; dist-protocol.md, 4.5).
"""

from __future__ import annotations

from typing import Any

import trio

from bridge.dist import control as c
from bridge.etf import Atom, Pid
from bridge.node.calls import ProcessDown
from bridge.node.functions.outcomes import ERPC, EXECUTE_CALL
from bridge.node.functions.remote_errors import RemoteError, RemoteExit, RemoteThrow, SpawnRefused
from bridge.node.signals import gen
from bridge.node.signals.router import Router
from bridge.node.signals.spawn_requests import SpawnRequests
from bridge.node.signals.table import Process

Term = Any

MONITOR = Atom("monitor")


class RemoteCall:
    """A call that is under way. `await result()`, or `forget()` it."""

    def __init__(
        self, router: Router, requests: SpawnRequests, peer: str, mfa: tuple[Atom, Atom, list[Term]]
    ) -> None:
        self._router = router
        self._requests = requests
        self._peer = peer
        self._mfa = mfa
        self._ref = router.ids.next_ref()
        self._res = router.ids.next_ref()
        self._ended = trio.Event()
        self._forgotten = False
        self._target: Pid | tuple[Atom, Atom] = (ERPC, Atom(peer))
        self._refused: Atom | None = None
        self._reason: Term = None

    @property
    def function(self) -> str:
        module, function, args = self._mfa
        return f"{module.name}:{function.name}/{len(args)}"

    def start(self, caller: Process, leader: Pid) -> None:
        """Send the request. Raises EncodeError, trio.WouldBlock."""
        module, function, args = self._mfa
        request = c.SpawnRequest(self._ref, caller.pid, leader, (ERPC, EXECUTE_CALL, 4), [MONITOR])
        self._requests.send(
            request,
            [self._res, module, function, args],
            owner=caller,
            peer=self._peer,
            answered=self._take_reply,
            down=self._take_down,
        )

    async def result(self) -> Term:
        """What the function returned, also if it came before.

        Raises RemoteError, RemoteExit, RemoteThrow; ProcessDown when its process was killed or the
        connection lost; SpawnRefused. Cancelled: the call goes on.
        """
        await self._ended.wait()
        if self._refused is not None:
            raise SpawnRefused(self._peer, self._refused)
        match self._reason:
            case (res, Atom("return"), value) if res == self._res:
                return value
            case (res, Atom("throw"), value) if res == self._res:
                raise RemoteThrow(self._peer, self.function, value)
            case (res, Atom("exit"), reason) if res == self._res:
                raise RemoteExit(self._peer, self.function, reason)
            case (res, Atom("error"), reason, stack) if res == self._res:
                raise RemoteError(self._peer, self.function, reason, stack)
            case (res, Atom("error"), (Atom("erpc"), reason)) if res == self._res:
                raise RemoteError(self._peer, self.function, (ERPC, reason), [])
            case reason:
                raise ProcessDown(self._target, reason)

    def forget(self) -> None:
        """Nothing of this call reaches anybody any more, however late it comes."""
        self._forgotten = True
        if not self._requests.abandon(self._ref):
            self._router.demonitor(self._ref)

    def _take_reply(self, result: Pid | Atom) -> None:
        if isinstance(result, Pid):
            self._target = result
        elif result == gen.NOCONNECTION:
            self._take_down(result)
        else:
            self._refused = result
            self._ended.set()

    def _take_down(self, reason: Term) -> None:
        if not self._ended.is_set() and not self._forgotten:
            self._reason = reason
            self._ended.set()
