"""A worker as a process of the node: its pid can be monitored, linked to, looked at and killed.

One per life. It ends with the worker, and its watchers hear why; an exit signal to it ends the
worker, which starts again by its policy. The work itself goes through the JobDispatcher, never
through here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bridge.etf import Atom, Pid
from bridge.node.process.details import Details
from bridge.node.process.direct import DirectProcess
from bridge.node.signals import gen
from bridge.node.signals.gen import Call, Info
from bridge.node.signals.router import Router
from bridge.ops.answers import bad_request

Term = Any


class WorkerProcess(DirectProcess):
    """The pid of one life. `describe` is its state to `:sys`, `inspect` what other tools see of it;
    `killed(reason)` asks for its end. `parent` is what stands above it in the tree.
    """

    def __init__(
        self,
        router: Router,
        *,
        describe: Callable[[], Term],
        inspect: Callable[[], Details],
        killed: Callable[[Term], None],
        parent: Pid | None = None,
    ) -> None:
        super().__init__(router, module="Ringbridge.Worker")
        self._describe = describe
        self._inspect = inspect
        self._killed = killed
        self._ended = False
        self.start(())
        if process := router.table.find(self.pid):
            process.parent = parent

    def end(self, reason: Term) -> None:
        """The worker has ended: watchers and links hear `reason`. May be repeated."""
        self._ended = True
        if process := self._router.table.find(self.pid):
            self._router.terminate(process, reason)

    def get_state(self) -> Term:
        return self._describe()

    def details(self) -> Details:
        return self._inspect()

    def stopped(self, reason: Term) -> None:
        if not self._ended:
            self._ended = True
            self._killed(reason)

    def handle(self, request: gen.Request) -> None:
        match request:
            case Info((Atom("EXIT"), Pid() as sender, reason)) if reason != gen.NORMAL:
                # As a process that traps no exits: it dies of the reason, if it comes from whom may
                # end a worker. Anybody may link to it, so a link's end counts as an exit/2.
                if not self._router.may(sender.node.name, "a link to a worker, when it breaks,"):
                    return
                if process := self._router.table.find(self.pid):
                    self._router.terminate(process, reason)
            case Call(sender, _):
                why = "a worker takes no calls; submit a job to the JobDispatcher"
                self.reply(sender, bad_request(why))
