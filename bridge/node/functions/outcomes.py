"""How a function that another node asked for ended, and what that is to whoever waits for it.

`erpc` and `rpc` read the outcome from the exit reason of the process that ran the function
(erpc.erl, rpc.erl; dist-protocol.md, 4.4); a spawned process ends as any process does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from bridge.etf import Atom
from bridge.node.signals import gen

Term = Any

RETURN, THROW, EXIT = Atom("return"), Atom("throw"), Atom("exit")
EXCEPTION, NOCATCH, BADRPC = Atom("exception"), Atom("nocatch"), Atom("badrpc")
ERPC, EXECUTE_CALL, EXECUTE_CAST = Atom("erpc"), Atom("execute_call"), Atom("execute_cast")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a function returned, or what it raised. `stack` is an error's."""

    kind: Literal["return", "error", "exit", "throw"]
    value: Term
    stack: list[Term]

    @property
    def crashed(self) -> bool:
        """Whether a process that ends so is told to the log."""
        return self.kind in ("error", "throw")


def call_reason(res: Term, outcome: Outcome) -> Term:
    """The exit reason of `erpc:execute_call/4`: `res` is the caller's mark of its own call."""
    match outcome:
        case Outcome("error", reason, stack):
            return (res, gen.ERROR, reason, stack)
        case Outcome(kind, value):
            return (res, Atom(kind), value)


def cast_reason(outcome: Outcome) -> Term:
    """The exit reason of `erpc:execute_cast/3`."""
    if outcome.kind == "error":
        exception = (EXCEPTION, (outcome.value, outcome.stack))
        return (exception, [(ERPC, EXECUTE_CAST, 3, [])])
    return process_reason(outcome, [(ERPC, EXECUTE_CAST, 3, [])])


def process_reason(outcome: Outcome, under: list[Term]) -> Term:
    """The exit reason of a process that began with the function; `under` are frames below it."""
    match outcome:
        case Outcome("return"):
            return gen.NORMAL
        case Outcome("exit", reason):
            return reason
        case Outcome("throw", value, stack):
            return ((NOCATCH, value), under or stack)
        case Outcome(_, reason, stack):
            return (reason, [*stack, *under])


def rpc_result(outcome: Outcome) -> Term:
    """What `rpc` gives its caller when `rex` ran the function."""
    match outcome:
        case Outcome("return" | "throw", value):
            return value
        case Outcome("exit", reason):
            return (BADRPC, (gen.EXIT, reason))
        case Outcome(_, reason, stack):
            return (BADRPC, (gen.EXIT, (reason, stack)))
