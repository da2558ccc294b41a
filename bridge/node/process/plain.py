"""A process that runs a function: what `node.spawn` starts.

It answers `sys` itself, where a BEAM's plain process would leave the caller to its timeout, and at
once, whatever the function is doing. Suspended, it receives nothing until it is resumed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from bridge.etf import Atom
from bridge.etf.errors import brief
from bridge.node.exports import Exports
from bridge.node.process import sys_protocol
from bridge.node.process.handle import ProcessHandle
from bridge.node.process.mailbox import MailboxPolicy
from bridge.node.process.sys_debug import IN, Debug
from bridge.node.process.sys_protocol import is_system
from bridge.node.process.task import ProcessTask
from bridge.node.signals.gen import sender_of
from bridge.node.signals.table import Process

if TYPE_CHECKING:
    from bridge.node.node import Node

Term = Any
ProcessFunction = Callable[..., Awaitable[object]]  # fn(me, *args); what it returns is nobody's


class PlainProcess(ProcessTask):
    """Runs `function(me, *args)`; the process ends when that does."""

    def __init__(
        self, node: Node, function: ProcessFunction, args: tuple[Any, ...], policy: MailboxPolicy
    ) -> None:
        super().__init__(node.router, module=_name_of(function), policy=policy)
        self._node = node
        self._function = function
        self._args = args
        self.suspended = False
        self.debug = Debug(module=self.module)

    # -- Inbox -------------------------------------------------------------------------------------

    def deliver(self, message: Term) -> None:
        if is_system(message):
            self._answer_system(message)
            return
        if self.debug.on:
            self.debug.event((IN, message))
        self.mailbox.deliver(message)

    # -- SystemView --------------------------------------------------------------------------------

    @property
    def exports(self) -> Exports:
        return self._node.exports

    def get_state(self) -> Term:
        return self.handle.state

    def replace_state(self, state: Term) -> None:
        raise sys_protocol.NotReplaceable(f"{self.module} is a function, it takes no state")

    def _answer_system(self, message: Term) -> None:
        sender = sender_of(message[1])
        assert sender is not None, "asked before"
        value, action = sys_protocol.answer(self, sender, message[2])
        self.reply(sender, value)
        match action:
            case sys_protocol.Suspend():
                self.suspended = True
                self.mailbox.pause(True)
            case sys_protocol.Resume():
                self.suspended = False
                self.mailbox.pause(False)
            case sys_protocol.Terminate(reason):
                self.router.terminate(self.process, reason)
            case None:
                pass

    # -- the task ----------------------------------------------------------------------------------

    def spawn(self, *, names: Iterable[Atom], trap_exit: bool) -> Process:
        """Appear in the table. Raises ValueError when a name is taken."""
        process = self.router.spawn(self, names=names, trap_exit=trap_exit)
        process.initial_call = (
            getattr(self._function, "__module__", None) or "python",
            self.module,
            len(self._args),
        )
        self.spawned(process)
        self.handle = ProcessHandle(self._node, self)
        return process

    async def start(self) -> None:
        """Run until the end. Errors of the function end the process, nothing else."""
        await self.run(self._live)

    async def _live(self) -> None:
        running = self._function(self.handle, *self._args)
        if not isinstance(running, Awaitable):
            raise TypeError(f"a process is an async function; {self.module} gave {brief(running)}")
        await running


def _name_of(function: ProcessFunction) -> str:
    return getattr(function, "__qualname__", None) or type(function).__name__
