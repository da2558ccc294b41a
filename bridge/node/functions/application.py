"""What `apply(M, F, A)` is on this node: an entry of the exports, or the error that a BEAM raises.

Stack traces are those of a BEAM that lacks the function, as far as they are the same in every
release: a caller's code matches on them (`{undef, [{M, F, A, []} | _]}`), and Elixir makes its
messages of them. No name that a peer sends is looked up anywhere but in the table of exports.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bridge.etf import Atom, Export, Fun
from bridge.node.exports import Exports, Published
from bridge.node.functions.outcomes import Outcome

Term = Any

BADARG, UNDEF, BADFUN, BADARITY = map(Atom, ("badarg", "undef", "badfun", "badarity"))
ERLANG, APPLY, ERROR_INFO = Atom("erlang"), Atom("apply"), Atom("error_info")
_ERTS_ERRORS = {Atom("module"): Atom("erl_erts_errors")}


@dataclass(frozen=True, slots=True)
class Application:
    """A published function and the arguments that it is to be called with."""

    entry: Published
    args: list[Term]

    @property
    def mfa(self) -> tuple[Atom, Atom, int]:
        return self.entry.module, self.entry.name, len(self.args)

    def __str__(self) -> str:
        return f"{self.entry.module.name}:{self.entry.name.name}/{len(self.args)}"


@dataclass(frozen=True, slots=True)
class Frames:
    """What lies under a function on the stack: in a process of its own, or under erpc or rpc.

    A spawned process has lost the frames of the calls that it began with, but for one that a
    refused apply leaves; erpc trims its own frames, which leaves an apply in between.
    """

    refused: list[Term]
    applied: bool


SPAWNED = Frames([(Atom("erts_internal"), Atom("dist_spawn_init"), 1, [])], applied=False)
CALLED = Frames([], applied=True)


def resolve(
    exports: Exports, module: Term, function: Term, args: Term, frames: Frames
) -> Application | Outcome:
    """What `apply(module, function, args)` runs, or the error it raises."""
    if isinstance(args, list) and _is_atom(module) and _is_atom(function):
        if module == ERLANG and function == APPLY:
            match args:
                case [inner_module, inner_function, inner_args]:
                    return _apply_3(exports, inner_module, inner_function, inner_args, frames)
                case [fun, inner_args]:
                    return _apply_2(exports, fun, inner_args, frames)
        if entry := exports.find(module, function, len(args)):
            return Application(entry, args)
        return _error(UNDEF, [(module, function, args, [])])
    stack = [_refused_apply(module, function, args)]
    if frames.applied and isinstance(args, list):
        stack.append((module, function, len(args), []))
    return _error(BADARG, stack + frames.refused)


def _apply_3(
    exports: Exports, module: Term, function: Term, args: Term, frames: Frames
) -> Application | Outcome:
    if not (isinstance(args, list) and _is_atom(module) and _is_atom(function)):
        return _error(BADARG, [_refused_apply(module, function, args), *frames.refused])
    if entry := exports.find(module, function, len(args)):
        return Application(entry, args)
    return _error(UNDEF, [(module, function, args, []), *_under_apply(3, frames)])


def _apply_2(exports: Exports, fun: Term, args: Term, frames: Frames) -> Application | Outcome:
    if not isinstance(args, list):
        refused = (ERLANG, APPLY, [fun, args], [(ERROR_INFO, _ERTS_ERRORS)])
        return _error(BADARG, [refused, (ERLANG, APPLY, 2, [])])
    match fun:
        case Export() | Fun() if fun.arity != len(args):
            return _error((BADARITY, (fun, args)), [(ERLANG, APPLY, 2, [])])
        case Export(module, function):
            if entry := exports.find(module, function, len(args)):
                return Application(entry, args)
            return _error(UNDEF, [(module, function, args, []), *_under_apply(2, frames)])
        case Fun():  # its module is not loaded here, and never will be
            return _error(UNDEF, [(fun, args, []), *_under_apply(2, frames)])
        case _:
            return _error((BADFUN, fun), [(ERLANG, APPLY, 2, [])])


def _is_atom(term: Term) -> bool:
    return isinstance(term, Atom) or term is None or term is True or term is False


def _refused_apply(module: Term, function: Term, args: Term) -> Term:
    return (ERLANG, APPLY, [module, function, args], [(ERROR_INFO, _ERTS_ERRORS)])


def _under_apply(arity: int, frames: Frames) -> list[Term]:
    return [(ERLANG, APPLY, arity, [])] if frames.applied else []


def _error(reason: Term, stack: list[Term]) -> Outcome:
    return Outcome("error", reason, stack)
