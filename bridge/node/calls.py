"""Calls and monitors out of Python tasks: each waits in its own task for one answer or one DOWN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import trio

from bridge.dist.errors import LocalProtocolError
from bridge.etf import Reference
from bridge.etf.errors import brief
from bridge.node.signals import gen
from bridge.node.signals.addresses import Target
from bridge.node.signals.router import Router
from bridge.node.signals.table import Process

Term = Any


class ProcessDown(trio.BrokenResourceError):
    """The process called or watched has ended: `reason` is the term of its DOWN (`noproc`,
    `noconnection`, ...).
    """

    def __init__(self, target: Target, reason: Term) -> None:
        super().__init__(f"{target!r} is down: {brief(reason)}")
        self.target = target
        self.reason = reason


class PendingCall:
    """One call that waits. As in OTP: monitor first, then ask; the monitor's reference is the reply
    alias. `alias=False`: the target's node sends none to aliases, so the answer comes to the pid.
    """

    def __init__(
        self, router: Router, caller: Process, target: Target, *, alias: bool = True
    ) -> None:
        self._router = router
        self._caller = caller
        self._target = target
        self._ended = trio.Event()
        self._answer: Term = None
        self._reason: tuple[Term] | None = None
        self._ref = router.ids.next_ref()
        self._tag = gen.alias_tag(self._ref) if alias else self._ref

    def ask(self, request: Term) -> None:
        """Send the request of a `GenServer.call`. Raises EncodeError."""
        self._ask(gen.call_message(self._caller.pid, self._tag, request))

    def ask_system(self, request: Term) -> None:
        """Send a request of the `sys` protocol. Raises EncodeError."""
        self._ask((gen.SYSTEM, (self._caller.pid, self._tag), request))

    def _ask(self, message: Term) -> None:
        self._router.open_alias(self._ref, self._take_answer)
        self._router.monitor(self._caller, self._target, self._take_down, ref=self._ref)
        self._router.send(self._caller.pid, self._target, message)

    async def wait(self) -> Term:
        """The answer. Raises ProcessDown."""
        await self._ended.wait()
        if self._reason is not None:
            raise ProcessDown(self._target, self._reason[0])
        return self._answer

    def forget(self) -> None:
        """Nothing of this call reaches anybody any more, however late it comes."""
        self._router.close_alias(self._ref)
        self._router.demonitor(self._ref)

    def _take_answer(self, message: tuple[Term, Term]) -> None:
        if not self._ended.is_set():
            self._answer = message[1]
            self._ended.set()

    def _take_down(self, reason: Term) -> None:
        if not self._ended.is_set():
            self._reason = (reason,)
            self._ended.set()


@dataclass(frozen=True, slots=True)
class Down:
    """What a monitor reports, once. `target` is as it was given: a pid, or {name, node}."""

    ref: Reference
    target: Target
    reason: Term


class Monitor:
    """A monitor held by a Python task. `wait` for its Down, or `cancel` it.

    Without an `owner` it is not asked for here: a spawn request does that, and gives the target.
    """

    def __init__(self, router: Router, owner: Process | None, target: Target) -> None:
        self._router = router
        self._ended = trio.Event()
        self._down: Down | None = None
        self.target = target
        self.ref = router.ids.next_ref()
        if owner is not None:
            router.monitor(owner, target, self.take, ref=self.ref)

    async def wait(self) -> Down:
        """The Down, also if it came before. Cancelled: the monitor stays. LocalProtocolError after
        `cancel`.
        """
        await self._ended.wait()
        if self._down is None:
            raise LocalProtocolError("this monitor was cancelled")
        return self._down

    def cancel(self) -> None:
        """Demonitor; a Down that has come already stays."""
        self._router.demonitor(self.ref)
        self._ended.set()

    def take(self, reason: Term) -> None:
        """The reason of the DOWN; once."""
        self._down = Down(self.ref, self.target, reason)
        self._ended.set()
