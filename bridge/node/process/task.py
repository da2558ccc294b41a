"""A process whose life is a trio task: its mailbox, its end by a signal, and the reason of its end.

It ends in one of three ways, and whoever is linked with it or watches it hears which: what it runs
returns (`normal`) or raises (see `ends`), an exit signal arrives (the signal's reason; the cancel
scope of the task is cancelled), or the node ends (`shutdown`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from bridge.log import Log
from bridge.node.process.ends import Stop, exception_reason, traceback_of, unwrapped
from bridge.node.process.mailbox import Mailbox, MailboxPolicy
from bridge.node.signals import gen
from bridge.node.signals.gen import Sender
from bridge.node.signals.router import Router
from bridge.node.signals.table import Process

Term = Any
log = Log("ringbridge.node")


class ProcessTask:
    """The inbox of one process, and what runs it. `module` names it in logs and to tools."""

    def __init__(self, router: Router, *, module: str, policy: MailboxPolicy) -> None:
        self.router = router
        self.module = module
        self.mailbox = Mailbox(policy, refuse=self.reply, close=self._close, what=module)
        self.ended = trio.Event()
        self._scope = trio.CancelScope()
        self._stopped: tuple[Term] | None = None
        self._process: Process | None = None
        self.task: trio.lowlevel.Task | None = None  # for who wants to see where it stands

    @property
    def process(self) -> Process:
        assert self._process is not None, "not spawned yet"
        return self._process

    def spawned(self, process: Process) -> None:
        """The router knows the process from now on."""
        self._process = process
        self.mailbox.pid = process.pid

    # -- Inbox -------------------------------------------------------------------------------------

    def deliver(self, message: Term) -> None:
        self.mailbox.deliver(message)

    def deliver_urgent(self, message: Term) -> None:
        self.mailbox.deliver_urgent(message)

    def deliver_signal(self, message: Term, *, urgent: bool = False) -> None:
        self.mailbox.deliver_signal(message, urgent=urgent)

    def stop(self, reason: Term) -> None:
        self._stopped = (reason,)
        self._scope.cancel()

    # -- the task ----------------------------------------------------------------------------------

    async def run(
        self,
        body: Callable[[], Awaitable[object]],
        clean_up: Callable[[Term], Awaitable[None]] | None = None,
    ) -> None:
        """Run `body` as the process, then `clean_up` with the reason of the end.

        After an exit signal the process is out of the table before `clean_up`, otherwise after it,
        as a BEAM's is.
        """
        reason: Term = gen.SHUTDOWN  # when the node's nursery is cancelled
        self.task = trio.lowlevel.current_task()
        try:
            with self._scope:
                reason = await self._run(body)
        finally:
            if self._stopped is not None:
                (reason,) = self._stopped
            try:
                if clean_up is not None:
                    await clean_up(reason)
            finally:
                self.router.terminate(self.process, reason)
                self.ended.set()

    async def _run(self, body: Callable[[], Awaitable[object]]) -> Term:
        try:
            await body()
        except Exception as failure:
            error = unwrapped(failure)
            if isinstance(error, Stop):
                return error.reason
            log.error(
                "process crashed",
                process=self.module,
                pid=str(self.process.pid),
                exception=traceback_of(failure),
            )
            return exception_reason(error)
        return gen.NORMAL

    def reply(self, sender: Sender, value: Term) -> None:
        self.router.reply(self.process.pid, sender, value)

    def _close(self, reason: Term) -> None:
        self.router.terminate(self.process, reason)
