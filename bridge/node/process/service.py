"""The process of a GenServer: takes its messages in order, calls its handlers, sees to its end.

The paths that every call goes: `deliver` of the mailbox, `_serve`, `_handle`, `reply`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import trio

from bridge.etf import Atom, Pid
from bridge.log import Log
from bridge.node.exports import Exports
from bridge.node.process import sys_protocol
from bridge.node.process.ends import NO_REPLY, Stop, exception_reason, traceback_of, unwrapped
from bridge.node.process.handle import ProcessHandle
from bridge.node.process.server import GenServer
from bridge.node.process.sys_debug import IN, NOREPLY, OUT, Debug
from bridge.node.process.sys_protocol import is_system
from bridge.node.process.task import ProcessTask
from bridge.node.signals import gen
from bridge.node.signals.gen import GEN_CALL, GEN_CAST, SYSTEM, Sender

if TYPE_CHECKING:
    from bridge.node.node import Node

Term = Any
log = Log("ringbridge.node")

_CHECKPOINT_EVERY = 32  # messages handled in a row before others get a turn


class Service(ProcessTask):
    """One running GenServer."""

    def __init__(self, node: Node, server: GenServer) -> None:
        _check_is_server(server)
        super().__init__(node.router, module=server.module, policy=server.mailbox)
        self._node = node
        self._server = server
        self._handle = self._handle_message
        self._parent: Pid | None = None
        self._initialised = False
        self._replied = False
        self.suspended = False
        self.debug = Debug(module=self.module, changed=self._debug_changed)

    @property
    def is_root_supervisor(self) -> bool:
        """Whether it supervises and no other supervisor of this node will stop it."""
        parent = self.process.parent
        return self._server.supervises and self.router.table.find(parent) is None

    # -- SystemView --------------------------------------------------------------------------------

    @property
    def exports(self) -> Exports:
        return self._node.exports

    def get_state(self) -> Term:
        return self._server.get_state()

    def replace_state(self, state: Term) -> None:
        self._server.replace_state(state)

    # -- the task ----------------------------------------------------------------------------------

    async def start(
        self,
        names: Iterable[Atom],
        *,
        parent: Pid | None = None,
        task_status: trio.TaskStatus[Pid] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Appear in the table, run `init`, handle messages until the end. Only `init`'s errors, and
        ValueError when a name is taken, leave it; its process has ended with them then.

        `parent` is linked with it, and its end ends this one, trapping or not, as in OTP. Started:
        the pid, when `init` is done.
        """
        server = self._server
        process = self.router.spawn(self, names=names, trap_exit=server.trap_exit)
        process.parent = parent
        self._parent = parent or process.pid  # as in OTP: its own if nobody is linked
        process.initial_call = (server.module, "init", 1)
        if type(server).changes is not GenServer.changes:  # else not every call need be asked about
            process.changes = server.changes
        self.spawned(process)
        server._attach(ProcessHandle(self._node, self))
        if parent is not None:
            self.router.link(process, parent)
        failed: Exception | None = None

        async def live() -> None:
            nonlocal failed
            try:
                await server.init()
            except Exception as error:
                failed = error
                if parent is not None:  # who started it hears of it by the raise
                    self.router.unlink(process, parent)
                raise Stop(_init_reason(error)) from None
            self._initialised = True
            task_status.started(process.pid)
            await self._serve()

        await self.run(live, self._clean_up)
        if failed is not None:
            raise failed

    async def _serve(self) -> None:
        """Handle messages until a handler raises."""
        mailbox, server = self.mailbox, self._server
        await self._continue()
        while True:
            if server._idle_s is not None and not len(mailbox):
                await self._wait_idle(server._idle_s)
            else:
                await mailbox.wait_message()
            for _ in range(_CHECKPOINT_EVERY):
                try:
                    message = mailbox.take_nowait()
                except trio.WouldBlock:
                    break
                if server._idle_s is not None and not is_system(message):
                    server._idle_s = None  # a message came; `sys` only starts the time anew
                await self._handle(message)
                if server._continuations:
                    await self._continue()

    async def _continue(self) -> None:
        server = self._server
        while server._continuations:
            continuation, *rest = server._continuations
            server._continuations = tuple(rest)
            await server.handle_continue(continuation)

    async def _wait_idle(self, idle_s: float) -> None:
        with trio.move_on_after(idle_s) as scope:
            await self.mailbox.wait_message()
        if scope.cancelled_caught:
            self._server._idle_s = None
            await self._server.handle_timeout()
            await self._continue()

    async def _handle_message(self, message: Term) -> None:
        if type(message) is tuple and message:
            tag = message[0]
            if tag == GEN_CALL and len(message) == 3:
                if (sender := gen.sender_of(message[1])) is not None:
                    await self._handle_call(sender, message[2])
                    return
            elif tag == GEN_CAST and len(message) == 2:
                await self._server.handle_cast(message[1])
                return
            elif tag == SYSTEM and is_system(message):
                await self._handle_system(message)
                return
            elif tag == gen.EXIT and len(message) == 3 and message[1] == self._parent:
                raise Stop(message[2])
        await self._server.handle_info(message)

    async def _handle_call(self, sender: Sender, request: Term) -> None:
        try:
            value = await self._server.handle_call(request, sender)
        except Stop as stop:
            if stop.reply is not NO_REPLY:
                self.reply(sender, stop.reply)
            raise
        if value is not NO_REPLY:
            self.reply(sender, value)

    async def _handle_system(self, message: Term) -> None:
        """Answer, and while suspended take nothing but system messages and the parent's end."""
        self._answer_system(message)
        while self.suspended:
            message = await self.mailbox.receive(self._concerns_suspended)
            if message[0] == gen.EXIT:
                raise Stop(message[2])
            self._answer_system(message)

    def _concerns_suspended(self, message: Term) -> bool:
        return is_system(message) or (
            type(message) is tuple and len(message) == 3 and message[:2] == (gen.EXIT, self._parent)
        )

    def _answer_system(self, message: Term) -> None:
        sender = gen.sender_of(message[1])
        assert sender is not None, "asked before"
        value, action = sys_protocol.answer(self, sender, message[2])
        super().reply(sender, value)
        match action:
            case sys_protocol.Suspend():
                self.suspended = True
            case sys_protocol.Resume():
                self.suspended = False
            case sys_protocol.Terminate(reason):
                raise Stop(reason)
            case None:
                pass

    # -- while `sys` traces, logs or counts --------------------------------------------------------

    def _debug_changed(self) -> None:
        self._handle = self._handle_debugged if self.debug.on else self._handle_message

    async def _handle_debugged(self, message: Term) -> None:
        if is_system(message):
            await self._handle_message(message)
            return
        self.debug.event((IN, message))
        self._replied = False
        await self._handle_message(message)
        if not self._replied:
            self.debug.event((NOREPLY, self._shown_state()))

    def reply(self, sender: Sender, value: Term) -> None:
        super().reply(sender, value)
        if self.debug.on:
            self._replied = True
            self.debug.event((OUT, value, (sender.pid, sender.tag), self._shown_state()))

    def _shown_state(self) -> Term:
        try:
            return self._server.get_state()
        except Exception as error:  # a bug in what only shows
            return exception_reason(error)

    async def _clean_up(self, reason: Term) -> None:
        if not self._initialised:
            return  # as in OTP: what init did not finish, terminate does not undo
        grace_s = self._server.terminate_grace_s
        with trio.CancelScope(shield=True), trio.move_on_after(grace_s) as grace:
            try:
                await self._server.terminate(reason)
            except Exception as error:
                log.error(
                    "terminate failed",
                    process=self.module,
                    pid=str(self.process.pid),
                    exception=traceback_of(error),
                )
        if grace.cancelled_caught:
            log.warning("terminate took too long", process=self.module, grace_s=grace_s)


def _init_reason(error: Exception) -> Term:
    error = unwrapped(error)
    return error.reason if isinstance(error, Stop) else exception_reason(error)


def _check_is_server(given: object) -> None:
    if not isinstance(given, GenServer):
        mend = f": write {given.__name__}()" if isinstance(given, type) else ""
        raise TypeError(f"a service is an instance of a GenServer, not {given!r}{mend}")
