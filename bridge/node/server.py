"""`GenServer`: the class a Python service derives from, in the shape Elixir developers know."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Final

import structlog

from bridge.etf import Atom, Pid, Reference
from bridge.node import gen
from bridge.node.gen import Sender
from bridge.node.mailbox import CAPACITY

if TYPE_CHECKING:
    from bridge.node.node import Node
    from bridge.node.processes import Process
    from bridge.node.router import Target

Term = Any
log = structlog.get_logger("ringbridge.node")


class NoReply(Enum):
    """`handle_call` returns NO_REPLY when it answers later, by `self.reply(sender, value)`."""

    NO_REPLY = "no_reply"


NO_REPLY: Final = NoReply.NO_REPLY


class Stop(Exception):
    """Raised by a handler: end this process with `reason`, a term; answer the call with `reply`
    first.
    """

    def __init__(self, reason: Term = gen.NORMAL, *, reply: Term = NO_REPLY) -> None:
        super().__init__(reason)
        self.reason = reason
        self.reply = reply


class GenServer:
    """A registered process in Python. Derive, override the handlers, `await
    node.start(YourServer())`.

    One message is handled at a time, in order of arrival; a handler that awaits holds the next ones
    back. An exception that leaves a handler ends the process with the reason `{exception, Type,
    Text}` (binaries): callers that wait, watchers and links hear of it, as they would of a crash on
    a BEAM. `state` is what `:sys.get_state` shows; override `get_state` when it is not a term.
    """

    trap_exit: ClassVar[bool] = True
    mailbox_capacity: ClassVar[int] = CAPACITY

    state: Term = None
    _node: Node
    _process: Process

    # -- to override -------------------------------------------------------------------------------

    async def init(self) -> None:
        """Runs before the pid and the names exist for others; an exception makes `node.start`
        raise.
        """

    async def handle_call(self, request: Term, sender: Sender) -> Term | NoReply:
        """Answer a call: return the reply, or NO_REPLY. As in Elixir, an unexpected call ends the
        process.
        """
        raise Stop((Atom("bad_call"), request))

    async def handle_cast(self, request: Term) -> None:
        """Handle a cast. As in Elixir, an unexpected cast ends the process."""
        raise Stop((Atom("bad_cast"), request))

    async def handle_info(self, message: Term) -> None:
        """Handle any other message: plain sends, `{'DOWN', ...}`, `{'EXIT', ...}`."""
        log.warning("unexpected message", process=self.module, pid=str(self.pid))

    async def terminate(self, reason: Term) -> None:
        """Clean up. The process is out of the table already; it runs shielded, for a bounded
        time.
        """

    def get_state(self) -> Term:
        return self.state

    @property
    def module(self) -> str:
        """What stands for the callback module in `:sys.get_status` and in logs."""
        return type(self).__name__

    # -- to use ------------------------------------------------------------------------------------

    @property
    def node(self) -> Node:
        return self._node

    @property
    def pid(self) -> Pid:
        return self._process.pid

    def reply(self, sender: Sender, value: Term) -> None:
        """Answer a call for which NO_REPLY was returned. Raises EncodeError. Lost if the caller's
        node is.
        """
        self._node.router.reply(self.pid, sender, value)

    async def monitor(self, target: Target) -> Reference:
        """Watch `target`; `{'DOWN', ref, process, target, reason}` comes to `handle_info`."""
        return await self._node.monitor_for(self._process, target)

    def demonitor(self, ref: Reference) -> None:
        self._node.router.demonitor(ref)

    async def link(self, other: Pid) -> None:
        """Link with `other`. With `trap_exit` its end comes to `handle_info`, else it ends this
        process.
        """
        await self._node.link_for(self._process, other)

    def unlink(self, other: Pid) -> None:
        self._node.router.unlink(self._process, other)

    def names(self) -> Iterable[str]:
        return sorted(name.name for name in self._process.names)
