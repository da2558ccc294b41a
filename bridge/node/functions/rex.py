"""`rex`: the process that takes the older forms of remote calls (rpc.erl; dist-protocol.md, 4.5).

`rpc:block_call`, C nodes, and whoever asks which remote calls this node can do come by it. Every
call is a run of its own here: what blocks in a BEAM's `rex` blocks nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bridge.dist import control as c
from bridge.etf import Atom, Pid
from bridge.node.exports import Exports
from bridge.node.functions.application import CALLED, resolve
from bridge.node.functions.caller import Output
from bridge.node.functions.executions import Executions
from bridge.node.functions.outcomes import BADRPC, ERPC, Outcome, cast_reason, rpc_result
from bridge.node.functions.spawns import SYSTEM_LIMIT
from bridge.node.process.direct import DirectProcess
from bridge.node.signals import gen
from bridge.node.signals.gen import Call, Cast, Info
from bridge.node.signals.router import Router

Term = Any

REX, REX_STDOUT = Atom("rex"), Atom("rex_stdout")


class StdoutToCaller:
    """The output of a call that asked for `send_stdout_to_caller`: `{rex_stdout, Binary}`."""

    def __init__(self, router: Router, rex: Pid, caller: Pid) -> None:
        self._router = router
        self._rex = rex
        self._caller = caller

    async def put(self, text: str) -> None:
        self.put_nowait(text)

    def put_nowait(self, text: str) -> None:
        message = (REX_STDOUT, text.encode("utf-8", "replace"))
        self._router.send(self._rex, self._caller, message)


class Rex(DirectProcess):
    def __init__(
        self, router: Router, exports: Exports, executions: Executions, user: Output
    ) -> None:
        super().__init__(router, module="rpc")
        self._exports = exports
        self._executions = executions
        self._user = user

    def handle(self, request: gen.Request) -> None:
        match request:
            case Call(sender, (Atom("call" | "block_call"), m, f, a, leader)):
                self._call(sender.pid, (m, f, a), leader, lambda result: self.reply(sender, result))
            case Cast((Atom("cast"), m, f, a, Pid() as leader)):
                self._run(leader, (m, f, a), leader, cast_reason)
            case Info((Pid() as caller, (Atom("call"), m, f, a, leader))):
                stdout = leader == Atom("send_stdout_to_caller")
                self._call(
                    caller,
                    (m, f, a),
                    (leader, caller) if stdout else leader,
                    lambda result: self._tell(caller, (REX, result)),
                )
            case Info((Pid() as caller, Atom("features_request"))):
                name = self._router.ids.node
                self._tell(caller, (Atom("features_reply"), name, [ERPC]))
            case Info((Pid() as caller, (Atom("sbcast"), name, message))):
                if not self._pass_on(caller, name, message):
                    self._tell_nonexisting(caller, name)
                else:
                    self._tell(caller, (REX, self._router.ids.node, self._router.ids.node))
            case Info((Pid() as caller, (Atom("send"), name, message))):
                if not self._pass_on(caller, name, (caller, message)):
                    self._tell_nonexisting(caller, name)

    def _call(
        self,
        caller: Pid,
        mfa: tuple[Term, Term, Term],
        leader: Term,
        answer: Callable[[Term], None],
    ) -> None:
        answered = False

        def answer_once(result: Term) -> None:
            nonlocal answered
            if not answered:
                answered = True
                answer(gen.sendable(result))

        def finish(outcome: Outcome) -> Term:
            answer_once(rpc_result(outcome))
            return gen.NORMAL

        def down(reason: Term) -> None:  # killed before it had an outcome
            answer_once((BADRPC, (gen.EXIT, reason)))

        output = self._output(leader)
        if output is None:
            frame: Term = (Atom("rpc"), Atom("set_group_leader"), [leader], [])
            answer_once((BADRPC, (gen.EXIT, (Atom("function_clause"), [frame]))))
        elif not self._run(caller, mfa, output, finish, down):
            answer_once((BADRPC, (gen.EXIT, SYSTEM_LIMIT)))

    def _run(
        self,
        caller: Pid,
        mfa: tuple[Term, Term, Term],
        output: Pid | Output,
        finish: Callable[[Outcome], Term],
        down: Callable[[Term], None] = lambda reason: None,
    ) -> bool:
        """Whether there was room to run it."""
        origin = self._router.origin
        if not self._executions.has_room(origin):
            return False
        assert self._process is not None
        execution = self._executions.new(origin, caller, output)
        self._router.monitor(self._process, execution.process.pid, down)
        match resolve(self._exports, *mfa, CALLED):
            case Outcome() as outcome:
                execution.end(finish(outcome))
            case application:
                execution.run_now(application, finish)
        return True

    def _output(self, leader: Term) -> Pid | Output | None:
        match leader:
            case Pid():
                return leader
            case Atom("user"):
                return self._user
            case (Atom("send_stdout_to_caller"), Pid() as caller):
                return StdoutToCaller(self._router, self.pid, caller)
            case _:
                return None

    def _tell(self, to: Pid, message: Term) -> None:
        self._router.send(self.pid, to, message)

    def _tell_nonexisting(self, caller: Pid, name: Term) -> None:
        missing = (Atom("nonexisting_name"), gen.sendable(name))
        self._tell(caller, (REX, self._router.ids.node, missing))

    def _pass_on(self, caller: Pid, name: Term, message: Term) -> bool:
        """Send to a process of ours, with the rights of the node that asks and no others.

        Not to `rex` itself: a request within a request has no use and no bottom.
        """
        process = self._router.table.find(name)
        if process is None or process is self._process:
            return False
        signal = c.Send(caller, process.pid)
        self._router.receive(self._router.origin, signal, lambda: message)
        return True
