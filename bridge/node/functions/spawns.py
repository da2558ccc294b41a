"""Spawn requests of other nodes: `rpc`, `erpc`, `Node.spawn`, answered at once and exactly once.

SPAWN_REQUEST is answered by SPAWN_REPLY before anything runs, with a pid or with the reason why
there is none; links and monitors asked for hold from then on, so that every DOWN and EXIT comes
after it (dist-protocol.md, 4.4). `rpc` and `erpc` are spawns of `erpc:execute_call/4` and
`erpc:execute_cast/3`, which are known here by name; every other function is of the exports.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bridge.dist import control as c
from bridge.dist.errors import RemoteProtocolError
from bridge.etf import Atom, charlist
from bridge.node.exports import Exports
from bridge.node.functions.application import CALLED, SPAWNED, Frames, resolve
from bridge.node.functions.executions import Execution, Executions
from bridge.node.functions.outcomes import (
    ERPC,
    EXECUTE_CALL,
    Outcome,
    call_reason,
    cast_reason,
    process_reason,
)
from bridge.node.functions.spawn_options import parse_options
from bridge.node.signals import gen
from bridge.node.signals.router import Router
from bridge.node.signals.table import Process, Watcher

Term = Any
Finish = Callable[[Outcome], Term]

BADOPT, SYSTEM_LIMIT, LOGGER_PROXY = Atom("badopt"), Atom("system_limit"), Atom("logger_proxy")
FLAG_LINK, FLAG_MONITOR = 1, 2
_INIT_P_FRAME: Term = (Atom("proc_lib"), Atom("init_p_do_apply"), 3, [])


class Spawns:
    """Answers spawn requests for one node from the table of its exports."""

    def __init__(self, router: Router, exports: Exports, executions: Executions) -> None:
        self._router = router
        self._exports = exports
        self._executions = executions

    def receive(self, origin: str, request: c.SpawnRequest, payload: Callable[[], Term]) -> None:
        """One SPAWN_REQUEST of the node `origin`. Raises what `payload` does, having answered."""
        options = parse_options(request.options)
        if options is None:
            self.refuse(origin, request, BADOPT)
            return
        if not self._executions.has_room(origin):
            self.refuse(origin, request, SYSTEM_LIMIT)
            return
        held_on_us = self._router.held_on_us
        if options.monitor and not held_on_us.is_new(origin, request.ref):
            raise RemoteProtocolError("a spawn request has a reference of its own")
        execution = self._executions.new(origin, request.sender, request.leader)
        process = execution.process
        flags = 0
        if options.link:
            process.links.receive_link(request.sender)
            flags |= FLAG_LINK
        if options.monitor:
            held_on_us.add(origin, request.ref, process, Watcher(request.sender, process.pid))
            flags |= FLAG_MONITOR
        reply = c.SpawnReply(request.ref, request.sender, flags, process.pid)
        self._router.emit(origin, reply)
        if self._router.table.find(process.pid) is None:
            return  # the connection went with the reply, and the link with it
        try:
            args = payload()
        except Exception:
            execution.end(gen.NOCONNECTION)
            raise
        self._start(execution, request, args)

    def is_too_large(self, arguments: bytes | None) -> bool:
        """Whether encoded arguments are over the limit: then they are not even decoded."""
        return arguments is not None and len(arguments) > self._executions.limits.argument_bytes_max

    def refuse(self, origin: str, request: c.SpawnRequest, reason: Atom) -> None:
        """No process for `request`, and why."""
        self._router.emit(origin, c.SpawnReply(request.ref, request.sender, 0, reason))

    def _start(self, execution: Execution, request: c.SpawnRequest, args: Term) -> None:
        module, function, _ = request.mfa  # a BEAM goes by the arguments too, not by the arity
        match (module, function, args):
            case (Atom("erpc"), Atom("execute_call"), [res, m, f, a]):
                # Nobody else can have the result: a caller that gave up ends the run.
                execution.process.unwatched = lambda: execution.end(gen.KILLED)
                self._apply(execution, m, f, a, CALLED, lambda outcome: call_reason(res, outcome))
            case (Atom("erpc"), Atom("execute_call"), [m, f, a]):
                under: list[Term] = [(ERPC, EXECUTE_CALL, 3, [])]
                self._apply_reported(
                    execution, m, f, a, CALLED, lambda outcome: process_reason(outcome, under)
                )
            case (Atom("erpc"), Atom("execute_cast"), [m, f, a]):
                self._apply_reported(execution, m, f, a, CALLED, cast_reason)
            case (Atom("proc_lib"), Atom("init_p"), [_, _, m, f, a]):
                self._apply_reported(
                    execution,
                    m,
                    f,
                    a,
                    CALLED,
                    lambda outcome: process_reason(outcome, [_INIT_P_FRAME]),
                )
            case _:
                self._apply_reported(
                    execution,
                    module,
                    function,
                    args,
                    SPAWNED,
                    lambda outcome: process_reason(outcome, []),
                )

    def _apply(
        self, execution: Execution, m: Term, f: Term, a: Term, frames: Frames, finish: Finish
    ) -> None:
        match resolve(self._exports, m, f, a, frames):
            case Outcome() as outcome:
                execution.end(finish(outcome))
            case application:
                execution.run_now(application, finish)

    def _apply_reported(
        self, execution: Execution, m: Term, f: Term, a: Term, frames: Frames, finish: Finish
    ) -> None:
        """The same for a process whose crash nobody need hear of: its caller's logger is told."""

        def finish_and_report(outcome: Outcome) -> Term:
            reason = finish(outcome)
            if outcome.crashed:
                self._report_crash(execution.process, reason)
            return reason

        self._apply(execution, m, f, a, frames, finish_and_report)

    def _report_crash(self, process: Process, reason: Term) -> None:
        """Tell the logger of the group leader's node, as a BEAM's emulator does."""
        leader = process.group_leader
        if leader is None or leader.node.name != process.spawned_by:
            return
        name = self._router.ids.node
        meta = {
            Atom("error_logger"): {Atom("emulator"): True, Atom("tag"): gen.ERROR},
            Atom("gl"): leader,
            Atom("pid"): process.pid,
            Atom("time"): time.time_ns() // 1000,
        }
        text = charlist("Error in process ~p on node ~p with exit value:~n~p~n")
        event = (Atom("log"), gen.ERROR, text, [process.pid, name, gen.sendable(reason)], meta)
        self._router.send(process.pid, (LOGGER_PROXY, leader.node), event)
