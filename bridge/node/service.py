"""The task that runs one GenServer: takes its messages in order, calls its handlers, ends it in one
place.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import structlog
import trio

from bridge.etf import Atom, Pid
from bridge.node import gen, sys_protocol
from bridge.node.gen import Call, Cast, Info, Request, Sender, SystemRequest
from bridge.node.mailbox import Mailbox
from bridge.node.router import Router
from bridge.node.server import NO_REPLY, GenServer, Stop

Term = Any
log = structlog.get_logger("ringbridge.node")

TERMINATE_GRACE_S = 5.0  # a supervisor's usual shutdown time
_CHECKPOINT_EVERY = 32  # messages handled in a row before others get a turn


class Service:
    """One running GenServer: the inbox of its process, and its task."""

    def __init__(self, router: Router, server: GenServer) -> None:
        self._router = router
        self._server = server
        self._scope = trio.CancelScope()
        self._killed = False
        self._killed_with: Term = None
        self.suspended = False
        self.mailbox = Mailbox(
            capacity=server.mailbox_capacity, refuse=self._reply, what=server.module
        )

    # -- Inbox -------------------------------------------------------------------------------------

    def deliver(self, message: Term) -> None:
        self.mailbox.deliver(message)

    def deliver_signal(self, message: Term) -> None:
        self.mailbox.deliver_signal(message)

    def stop(self, reason: Term) -> None:
        self._killed = True
        self._killed_with = reason
        self._scope.cancel()

    # -- SystemView --------------------------------------------------------------------------------

    @property
    def pid(self) -> Pid:
        return self._server.pid

    @property
    def module(self) -> str:
        return self._server.module

    def get_state(self) -> Term:
        return self._server.get_state()

    # -- the task ----------------------------------------------------------------------------------

    async def run(
        self, names: Iterable[Atom], *, task_status: trio.TaskStatus[Pid] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Run `init`, appear in the table, handle messages until the end. Only `init`'s errors
        leave it.

        Started: the pid. Raises ValueError when a name is taken.
        """
        server = self._server
        await server.init()
        process = self._router.spawn(self, names=names, trap_exit=server.trap_exit)
        server._process = process
        self.mailbox.pid = process.pid
        reason: Term = gen.SHUTDOWN  # when the node's nursery is cancelled
        try:
            with self._scope:
                task_status.started(process.pid)
                reason = await self._serve()
        finally:
            if self._killed:
                reason = self._killed_with
            self._router.terminate(process, reason)
            await self._clean_up(reason)

    async def _serve(self) -> Term:
        """Handle messages; returns the reason of the end."""
        try:
            while True:
                await self.mailbox.wait_message()
                for _ in range(_CHECKPOINT_EVERY):
                    try:
                        request = self.mailbox.take_nowait()
                    except trio.WouldBlock:
                        break
                    await self._handle(request)
        except Stop as stop:
            return stop.reason
        except Exception as error:
            log.exception("process crashed", process=self.module, pid=str(self.pid))
            text = str(error).encode("utf-8", "replace")[:1024]
            return (Atom("exception"), type(error).__name__.encode(), text)

    async def _handle(self, request: Request) -> None:
        if self.suspended and not isinstance(request, SystemRequest):
            self.mailbox.defer(request)
            return
        match request:
            case Call(sender, body):
                try:
                    value = await self._server.handle_call(body, sender)
                except Stop as stop:
                    if stop.reply is not NO_REPLY:
                        self._reply(sender, stop.reply)
                    raise
                if value is not NO_REPLY:
                    self._reply(sender, value)
            case Cast(body):
                await self._server.handle_cast(body)
            case Info(message):
                await self._server.handle_info(message)
            case SystemRequest(sender, body):
                self._handle_system(sender, body)

    def _handle_system(self, sender: Sender, request: Term) -> None:
        value, action = sys_protocol.answer(self, sender, request)
        self._reply(sender, value)
        match action:
            case sys_protocol.Suspend():
                self.suspended = True
            case sys_protocol.Resume():
                self.suspended = False
                self.mailbox.restore_deferred()
            case sys_protocol.Terminate(reason):
                raise Stop(reason)
            case None:
                pass

    def _reply(self, sender: Sender, value: Term) -> None:
        self._router.reply(self.pid, sender, value)

    async def _clean_up(self, reason: Term) -> None:
        with trio.CancelScope(shield=True), trio.move_on_after(TERMINATE_GRACE_S) as grace:
            try:
                await self._server.terminate(reason)
            except Exception:
                log.exception("terminate failed", process=self.module, pid=str(self.pid))
        if grace.cancelled_caught:
            log.warning("terminate took too long", process=self.module, grace_s=TERMINATE_GRACE_S)
