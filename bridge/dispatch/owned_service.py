"""A process that the relay answers for, as the node sees it: its Python half.

What is asked of it is the relay's and never comes here. What comes is the rest of a process' life:
`sys` messages, links and exits. Suspended, it begins nothing new until it is resumed. When somebody
ends the process, its watchers hear the reason and it starts again under the same names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from bridge.etf import Atom, brief, encode_bare
from bridge.fabric.relay import Service
from bridge.node.process.details import Details
from bridge.node.process.direct import DirectProcess
from bridge.node.signals.gen import SystemRequest, classify
from bridge.node.signals.router import Router
from bridge.ops.answers import Term


class ServiceOwner(Protocol):
    """The relay, as far as it answers for a process."""

    def install_service(
        self, service: Service, *, pid: tuple[int, int], names: Sequence[str]
    ) -> None: ...
    def service_down(self, service: Service, reason: bytes) -> None: ...
    def hold(self, service: Service, on: bool) -> None: ...


class OwnedService:
    """Keeps the process in the node's table and the relay's; `figures` is its state to `:sys`,
    `inspect` what other tools see of it.
    """

    service: Service
    names: tuple[str, ...]
    module: str

    def __init__(
        self,
        router: Router,
        relay: ServiceOwner,
        *,
        figures: Callable[[], Term],
        inspect: Callable[[], Details] | None = None,
    ) -> None:
        self._router = router
        self._relay = relay
        self._figures = figures
        self._inspect = inspect or (lambda: Details(module=self.module))
        self._stopping = False
        self._log = structlog.get_logger("ringbridge.dispatch")

    def start(self) -> None:
        """Appear under the names. Raises ValueError when one is taken."""
        self._hold(False)  # an incarnation before this one may have ended suspended
        process = _Process(
            self._router,
            module=self.module,
            figures=self._figures,
            inspect=self._inspect,
            hold=self._hold,
            ended=self._ended,
        )
        pid = process.start(tuple(map(Atom, self.names)), relay_owned=True)
        self._relay.install_service(self.service, pid=(pid.id, pid.serial), names=self.names)

    def stop(self) -> None:
        """From now on an end of the process is the last one: the node ends all of its own."""
        self._stopping = True

    def _hold(self, on: bool) -> None:
        self._relay.hold(self.service, on)

    def _ended(self, reason: Term) -> None:
        self._relay.service_down(self.service, encode_bare(reason))
        if not self._stopping:
            self._log.warning(
                "process ended, starting it again", process=self.module, reason=brief(reason)
            )
            self.start()


class _Process(DirectProcess):
    """One incarnation."""

    def __init__(
        self,
        router: Router,
        *,
        module: str,
        figures: Callable[[], Term],
        inspect: Callable[[], Details],
        hold: Callable[[bool], None],
        ended: Callable[[Term], None],
    ) -> None:
        super().__init__(router, module=module)
        self._figures = figures
        self._inspect = inspect
        self._hold = hold
        self._ended = ended

    def get_state(self) -> Term:
        return self._figures()

    def details(self) -> Details:
        return self._inspect()

    def deliver(self, message: Term) -> None:
        match classify(message):
            case SystemRequest(_, Atom("suspend")):
                self._hold(True)  # before the answer: no call after it may slip through
            case SystemRequest(_, Atom("resume")):
                self._hold(False)
        super().deliver(message)

    def stopped(self, reason: Term) -> None:
        self._ended(reason)
