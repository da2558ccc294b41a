"""Processes that answer at once, in the task that reads the signals: `net_kernel`, and proxies of
relay services.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bridge.etf import Atom, Pid
from bridge.node.exports import Exports
from bridge.node.process import sys_protocol
from bridge.node.process.sys_debug import IN, OUT, Debug
from bridge.node.signals import gen
from bridge.node.signals.gen import Call, Sender, SystemRequest, classify
from bridge.node.signals.router import Router
from bridge.node.signals.table import Process

Term = Any


class DirectProcess:
    """A process whose messages are handled where they arrive; its handlers must not block.

    It has no mailbox, so `suspend` is only noted: what it means is the owner's, who overrides
    `suspend` and `resume`.
    """

    def __init__(self, router: Router, *, module: str) -> None:
        self._router = router
        self._process: Process | None = None
        self._module = module
        self.suspended = False
        self.received = 0
        self.debug = Debug(module=module)
        self.exports = Exports()  # nobody replaces a state here

    def start(self, names: tuple[Atom, ...], *, relay_owned: bool = False) -> Pid:
        """Appear in the table. Raises ValueError when a name is taken."""
        self._process = self._router.spawn(
            self, names=names, trap_exit=True, owner="relay" if relay_owned else "python"
        )
        self._process.initial_call = (self.module, "init", 1)
        return self.pid

    @property
    def process(self) -> Process:
        assert self._process is not None, "not started"
        return self._process

    @property
    def pid(self) -> Pid:
        return self.process.pid

    @property
    def module(self) -> str:
        return self._module

    def get_state(self) -> Term:
        return None

    def replace_state(self, state: Term) -> None:
        """Not taken, whatever the owner's state is."""
        raise sys_protocol.NotReplaceable(f"{self._module} shows figures, not a state to replace")

    def suspend(self) -> None:
        """Hold the work; called after the answer is sent."""

    def resume(self) -> None:
        """Go on."""

    def stopped(self, reason: Term) -> None:
        """The process has ended: killed by an exit signal, told to terminate, or the node ends."""

    def handle(self, request: gen.Request) -> None:
        """Anything but a system message. Must not block."""

    # -- Inbox -------------------------------------------------------------------------------------

    def deliver(self, message: Term) -> None:
        self.received += 1
        request = classify(message)
        if isinstance(request, SystemRequest):
            self._handle_system(request.sender, request.request)
        else:
            if self.debug.on:
                self.debug.event((IN, message))
            self.handle(request)

    def deliver_urgent(self, message: Term) -> None:
        self.deliver(message)  # nothing waits here that it could go before

    def deliver_signal(self, message: Term, *, urgent: bool = False) -> None:
        self.handle(gen.Info(message))

    def stop(self, reason: Term) -> None:
        self.stopped(reason)

    def reply(self, sender: Sender, value: Term) -> None:
        self._router.reply(self.pid, sender, value)
        if self.debug.on:
            self.debug.event((OUT, value, (sender.pid, sender.tag), self.get_state()))

    def _handle_system(self, sender: Sender, request: Term) -> None:
        value, action = sys_protocol.answer(self, sender, request)
        self._router.reply(self.pid, sender, value)
        match action:
            case sys_protocol.Suspend():
                self.suspended = True
                self.suspend()
            case sys_protocol.Resume():
                self.suspended = False
                self.resume()
            case sys_protocol.Terminate(reason):
                self._router.terminate(self.process, reason)
            case None:
                pass


class NetKernel(DirectProcess):
    """`net_kernel`: answers `Node.ping`. A ping without `yes` ends in `pang` and a disconnect
    (net_adm.erl).
    """

    def __init__(self, router: Router) -> None:
        super().__init__(router, module="net_kernel")

    def handle(self, request: gen.Request) -> None:
        match request:
            case Call(sender, (Atom("is_auth"), _)):
                self.reply(sender, Atom("yes"))


@dataclass(frozen=True)
class RelayServiceHooks:
    """What the owner of a relay service does when Erlang's tools ask for it. All plain, none may
    block.
    """

    get_state: Callable[[], Term] = lambda: None
    suspend: Callable[[], None] = lambda: None
    resume: Callable[[], None] = lambda: None
    stopped: Callable[[Term], None] = lambda reason: None


class RelayServiceProxy(DirectProcess):
    """Python's half of a service that the relay answers: `sys` messages, links and exits only.

    Calls, casts and monitors never come here: the relay answers them and sends the DOWNs.
    """

    def __init__(self, router: Router, *, module: str, hooks: RelayServiceHooks) -> None:
        super().__init__(router, module=module)
        self._hooks = hooks

    def handle(self, request: gen.Request) -> None:
        match request:
            case Call(sender, _):  # of a process of this node: a remote one's is the relay's
                why = b"this service takes calls from other nodes only"
                self.reply(sender, (gen.ERROR, (Atom("bad_request"), why)))

    def get_state(self) -> Term:
        return self._hooks.get_state()

    def suspend(self) -> None:
        self._hooks.suspend()

    def resume(self) -> None:
        self._hooks.resume()

    def stopped(self, reason: Term) -> None:
        self._hooks.stopped(reason)
