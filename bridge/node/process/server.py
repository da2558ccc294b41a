"""`GenServer`: the class a Python service derives from, in the shape Elixir developers know."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from bridge.etf import Atom, Pid, Reference, brief
from bridge.log import Log
from bridge.node.log_limit import LogLimit
from bridge.node.process.ends import NoReply, Stop
from bridge.node.process.handlers import BadRequest, Handlers, run
from bridge.node.process.mailbox import MailboxPolicy, MailboxStatistics
from bridge.node.process.sys_protocol import NotReplaceable
from bridge.node.signals.addresses import Dest
from bridge.node.signals.gen import ERROR, Request, Sender

if TYPE_CHECKING:
    from bridge.node.node import Node
    from bridge.node.process.handle import ProcessHandle

Term = Any
log = Log("ringbridge.node")
_unexpected_lines = LogLimit(lines=20)  # of one process and kind


class GenServer:
    """A registered process in Python. Derive, override the handlers, `await
    node.start(YourServer())`.

    One message is handled at a time, in order of arrival; a handler that awaits holds the next ones
    back. An exception that leaves a handler ends the process with the reason `{exception, Type,
    Text}` (binaries): callers that wait, watchers and links hear of it, as they would of a crash on
    a BEAM. `state` is what `:sys.get_state` shows; override `get_state` when it is not a term.
    """

    trap_exit: ClassVar[bool] = True
    supervises: ClassVar[bool] = False
    terminate_grace_s: ClassVar[float] = 5.0  # a supervisor's usual shutdown time
    mailbox: ClassVar[MailboxPolicy] = MailboxPolicy()

    state: Term = None
    _me: ProcessHandle
    _calls: ClassVar[Handlers]
    _casts: ClassVar[Handlers]
    _infos: ClassVar[Handlers]
    _continuations: tuple[Term, ...] = ()
    _idle_s: float | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls._find_handlers()

    @classmethod
    def _find_handlers(cls) -> None:
        cls._calls = Handlers(cls, "call")
        cls._casts = Handlers(cls, "cast")
        cls._infos = Handlers(cls, "info")

    # -- to override -------------------------------------------------------------------------------

    async def init(self) -> None:
        """Runs first, with pid and names; messages wait meanwhile. An exception makes `node.start`
        raise.
        """

    async def handle_call(self, request: Term, sender: Sender) -> Term | NoReply:
        """Answer a call: return the reply, or NO_REPLY. Here: by the method decorated with `@call`.

        A request that fits none is answered `{error, {bad_request, Why}}`. Without any such method
        an unexpected call ends the process, as in Elixir.
        """
        if not self._calls:
            raise Stop((Atom("bad_call"), request))
        try:
            if found := self._calls.find(request):
                return await run(self, *found, sender)
            raise BadRequest(f"{self.module} knows {self._calls.describe()}, not {brief(request)}")
        except BadRequest as error:
            return (ERROR, (Atom("bad_request"), str(error).encode()))

    async def handle_cast(self, request: Term) -> None:
        """Handle a cast, here by the method decorated with `@cast`; one that fits none is dropped.

        Without any such method an unexpected cast ends the process, as in Elixir.
        """
        if not self._casts:
            raise Stop((Atom("bad_cast"), request))
        await self._take(self._casts, request, "cast")

    async def handle_info(self, message: Term) -> None:
        """Handle any other message: plain sends, `{'DOWN', ...}`, `{'EXIT', ...}`. Here by the
        method decorated with `@info`; what fits none leaves a log line.
        """
        await self._take(self._infos, message, "message")

    async def handle_continue(self, continuation: Term) -> None:
        """What `continue_with` asked for: it runs before the next message."""
        raise Stop((Atom("bad_continue"), continuation))

    async def handle_timeout(self) -> None:
        """No message came in the time that `timeout_after` gave. As in OTP a message `timeout`."""
        await self.handle_info(Atom("timeout"))

    async def terminate(self, reason: Term) -> None:
        """Clean up. Runs shielded, for a bounded time. Watchers hear of the end after it; after an
        exit signal they have heard already.
        """

    def changes(self, request: Request) -> str | None:
        """The words for a request that changes or stops things, which only admin nodes may do."""
        return None

    def get_state(self) -> Term:
        """What `sys` shows as the state."""
        return self.state

    def replace_state(self, state: Term) -> None:
        """Take what an exported function made of `get_state()`, for `:sys.replace_state`."""
        if type(self).get_state is not GenServer.get_state:
            raise NotReplaceable(f"{self.module} shows a state but does not take one")
        self.state = state

    @property
    def module(self) -> str:
        """What stands for the callback module in `:sys.get_status` and in logs."""
        return type(self).__name__

    # -- to use ------------------------------------------------------------------------------------

    @property
    def node(self) -> Node:
        return self._me.node

    @property
    def pid(self) -> Pid:
        return self._me.pid

    def reply(self, sender: Sender, value: Term) -> None:
        """Answer a call for which NO_REPLY was returned. Raises EncodeError. Lost if the caller's
        node is.
        """
        self._me.reply(sender, value)

    def continue_with(self, continuation: Term) -> None:
        """Run `handle_continue(continuation)` after this handler, before the next message."""
        self._continuations = (*self._continuations, continuation)

    def timeout_after(self, seconds: float) -> None:
        """Run `handle_timeout()` if no message comes within `seconds` after this handler."""
        self._idle_s = seconds

    def send(self, to: Dest, message: Term) -> bool:
        """Send a message from this process, see `ProcessHandle.send`."""
        return self._me.send(to, message)

    async def receive(
        self,
        pattern: Any = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # as in ProcessHandle
    ) -> Term:
        """A message out of turn, within a handler; see `ProcessHandle.receive`."""
        return await self._me.receive(pattern, timeout=timeout)

    def forget(self, pattern: Any) -> int:
        """Drop the messages that match and have not been taken yet; how many there were."""
        return self._me.forget(pattern)

    def mailbox_statistics(self) -> MailboxStatistics:
        """What waits in the mailbox, and what has come and was refused since the start."""
        return self._me.mailbox_statistics()

    async def monitor(self, target: Dest) -> Reference:
        """Watch `target`; `{'DOWN', ref, process, target, reason}` comes to `handle_info`."""
        return await self.node.monitor_for(self._me, target)

    def demonitor(self, ref: Reference, *, flush: bool = False) -> None:
        """No DOWN of `ref` comes any more; `flush`: one that has come already goes too."""
        self._me.demonitor(ref, flush=flush)

    async def link(self, other: Pid) -> None:
        """Link with `other`. With `trap_exit` its end comes to `handle_info`, else it ends this
        process.
        """
        await self.node.link_for(self._me, other)

    def unlink(self, other: Pid) -> None:
        self._me.unlink(other)

    def exit(self, to: Pid, reason: Term) -> None:
        """exit/2 from this process, see `ProcessHandle.exit`."""
        self._me.exit(to, reason)

    def names(self) -> Iterable[str]:
        return self._me.names

    async def _take(self, handlers: Handlers, request: Term, what: str) -> None:
        try:
            if found := handlers.find(request):
                await run(self, *found)
                return
            why = "no handler takes it"
        except BadRequest as error:
            why = str(error)
        if (held_back := _unexpected_lines.due((self.pid, what))) is not None:
            log.warning(
                f"unexpected {what}",
                process=self.module,
                pid=str(self.pid),
                why=why,
                held_back=held_back,
            )

    def _attach(self, me: ProcessHandle) -> None:
        self._me = me


GenServer._find_handlers()
