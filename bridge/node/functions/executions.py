"""One run of an exported function: a process of its own, with an outcome, an output and bounds.

A plain function runs where it is asked for, before the next signal is read; an async one is a task,
which an exit signal, the caller's leaving, or the time limit cancels.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import trio

from bridge.etf import Atom, Pid, decode_bare, encode_bare
from bridge.log import Log
from bridge.node.exports import Raise
from bridge.node.functions.application import Application
from bridge.node.functions.caller import Caller, Output
from bridge.node.functions.leader_output import LeaderOutput
from bridge.node.functions.outcomes import Outcome
from bridge.node.log_limit import LogLimit
from bridge.node.process.ends import Stop, exception_reason, traceback_of, unwrapped
from bridge.node.process.mailbox import MailboxPolicy
from bridge.node.process.task import ProcessTask
from bridge.node.signals import gen
from bridge.node.signals.router import Router

Term = Any
Finish = Callable[[Outcome], Term]
log = Log("ringbridge.node")

INLINE_WARNING_S = 0.02  # a plain function that takes longer holds up every caller of the node


@dataclass(frozen=True, slots=True)
class ExportLimits:
    """What other nodes may use up. `time_s` bounds an async function, not a process."""

    executions_max: int = 1000
    executions_per_node_max: int = 250
    time_s: float = 300.0
    argument_bytes_max: int = 16 << 20


class Executions:
    """The runs under way, counted per node that asked. What is over a limit is not begun.

    Those of async functions are tasks in `nursery`, and let no error out into it. `handle_of` makes
    the handle that an exported process is given.
    """

    def __init__(
        self,
        router: Router,
        limits: ExportLimits,
        *,
        nursery: trio.Nursery,
        handle_of: Callable[[ProcessTask], object],
    ) -> None:
        self.router = router
        self.limits = limits
        self.nursery = nursery
        self.handle_of = handle_of
        self.refused = 0
        self.lines = LogLimit()
        self._of_node: Counter[str] = Counter()
        self._changed = trio.Event()

    def __len__(self) -> int:
        return self._of_node.total()

    def has_room(self, origin: str) -> bool:
        room = (
            self._of_node.total() < self.limits.executions_max
            and self._of_node[origin] < self.limits.executions_per_node_max
        )
        if not room:
            self.refused += 1
            if (held_back := self.lines.due(("full", origin))) is not None:
                log.warning("too many executions", peer=origin, held_back=held_back)
        return room

    def new(self, origin: str, caller: Pid, leader: Pid | Output) -> Execution:
        """A process in the table that runs nothing yet: `run_now` or `end` it."""
        self._of_node[origin] += 1
        return Execution(self, origin, caller, leader)

    def _ended(self, origin: str) -> None:
        self._of_node[origin] -= 1
        if not self._of_node[origin]:
            del self._of_node[origin]
        if not self._of_node:
            self._changed.set()

    async def wait_none(self) -> None:
        """Return when nothing runs. A checkpoint always."""
        await trio.lowlevel.checkpoint()
        while self._of_node:
            self._changed = trio.Event()
            await self._changed.wait()


class Execution(ProcessTask):
    """The process that runs one application of an exported function."""

    def __init__(
        self, executions: Executions, origin: str, caller: Pid, leader: Pid | Output
    ) -> None:
        super().__init__(executions.router, module="exported function", policy=MailboxPolicy())
        self._executions = executions
        self._origin = origin
        self._caller = caller
        self._running = False
        process = self.router.spawn(self)
        process.spawned_by = origin
        process.parent = caller
        self.spawned(process)
        self._leader: LeaderOutput | None = None
        self._output: Output
        if isinstance(leader, Pid):
            process.group_leader = leader
            self._output = self._leader = LeaderOutput(self.router, process, leader)
        else:
            self._output = leader

    def deliver(self, message: Term) -> None:
        if self._leader is None or not self._leader.take(message):
            super().deliver(message)

    def stop(self, reason: Term) -> None:
        if self._running:
            super().stop(reason)
        else:
            self._executions._ended(self._origin)

    def run_now(self, application: Application, finish: Finish) -> None:
        """Run it, and end the process with what `finish` makes of the outcome. Never raises."""
        entry = application.entry
        self.module = str(application)
        self.process.initial_call = (entry.module.name, entry.name.name, len(application.args))
        what = f"calling {application}"
        if entry.admin and not self.router.may(self._origin, what):
            why = self.router.policy.why_not(self._origin, what)
            self.end(finish(_raised(application, (Atom("unauthorized"), why.encode()))))
        elif entry.is_async:
            self._running = True
            self._executions.nursery.start_soon(self._run_task, application, finish)
        else:
            self.end(finish(self._call(application)))

    def end(self, reason: Term) -> None:
        """End without running anything (more)."""
        self.router.terminate(self.process, reason)

    def _arguments(self, application: Application) -> dict[str, Any]:
        if not application.entry.takes_caller:
            return {}
        return {"caller": Caller(self._origin, self._caller, self._output)}

    def _call(self, application: Application) -> Outcome:
        begun = time.monotonic()
        failure: Exception | None = None
        value: Term = None
        try:
            value = application.entry.run(*application.args, **self._arguments(application))
        except Exception as error:
            failure = error
        took = time.monotonic() - begun
        if took > INLINE_WARNING_S and self._executions.lines.due(("slow", self.module)) == 0:
            log.warning(
                "a plain exported function held up the node; make it async",
                function=self.module,
                took_ms=round(took * 1000),
            )
        if failure is not None:
            return self._outcome_of(application, failure)
        return self._returned(application, value)

    async def _run_task(self, application: Application, finish: Finish) -> None:
        async def body() -> None:
            raise Stop(finish(await self._await(application)))

        try:
            if self.router.table.find(self.process.pid) is not None:  # else killed before it began
                await self.run(body)
        finally:
            self._executions._ended(self._origin)

    async def _await(self, application: Application) -> Outcome:
        entry = application.entry
        is_process = entry.kind == "process"
        handle = [self._executions.handle_of(self)] if is_process else []
        limit = trio.CancelScope()
        if not is_process:
            limit.deadline = trio.current_time() + self._executions.limits.time_s
        try:
            with limit:
                value = await entry.run(*handle, *application.args, **self._arguments(application))
                return self._returned(application, value)
        except Exception as error:
            return self._outcome_of(application, unwrapped(error))
        return _raised(application, Atom("timeout"))

    def _returned(self, application: Application, value: Term) -> Outcome:
        if not gen.is_term(value):
            return _raised(application, (Atom("not_a_term"), type(value).__name__.encode()))
        if self._origin == self.router.ids.node.name:  # a copy, with the types that others get
            value, _ = decode_bare(encode_bare(value))
        return Outcome("return", value, [])

    def _outcome_of(self, application: Application, error: Exception) -> Outcome:
        if isinstance(error, Raise):
            stack = error.stack if error.stack is not None else [(*application.mfa, [])]
            if gen.is_term((error.reason, stack)):
                return Outcome(error.kind, error.reason, stack)
            return _raised(application, Atom("not_a_term"))
        if isinstance(error, Stop):  # as in any process of ours
            return Outcome("exit", gen.sendable(error.reason), [])
        if (held_back := self._executions.lines.due(self.module)) is not None:
            log.error(
                "exported function raised",
                function=self.module,
                peer=self._origin,
                held_back=held_back,
                exception=traceback_of(error),
            )
        return _raised(application, exception_reason(error))


def _raised(application: Application, reason: Term) -> Outcome:
    return Outcome("error", reason, [(*application.mfa, [])])
