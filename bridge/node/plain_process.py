"""A process that runs a function: what `node.spawn` starts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from bridge.etf import Atom
from bridge.node.mailbox import MailboxPolicy
from bridge.node.process_handle import ProcessHandle
from bridge.node.process_task import ProcessTask
from bridge.node.processes import Process

if TYPE_CHECKING:
    from bridge.node.node import Node

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
        await self.run(lambda: self._function(self.handle, *self._args))


def _name_of(function: ProcessFunction) -> str:
    return getattr(function, "__qualname__", None) or type(function).__name__
