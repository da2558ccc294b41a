"""What the workers of a role may write to, and what may be in it ([roles.NAME.callback]). Pure.

A name allows that name wherever it is registered on a node that the bridge is connected with;
`name@node` on that node alone. `*` stands for any run of characters in either. The bridge dials for
a worker only nodes that are spelt out: else a worker could make it knock at any door.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.etf import Atom, BitString, Export, Fun, ImproperList, Map, Pid, Port, Reference
from bridge.workers.channel.packets import Code, NotHad

Term = Any

NEW_ATOMS_MAX = 256  # of one life, as in answers (docs/workers-c.md)
# Processes of OTP that do what a message says: only where they are spelt out.
_OF_OTP = frozenset(
    (
        "application_controller",
        "code_server",
        "erl_prim_loader",
        "erl_signal_server",
        "erts_code_purger",
        "file_server_2",
        "global_group",
        "global_name_server",
        "inet_db",
        "init",
        "kernel_safe_sup",
        "kernel_sup",
        "logger",
        "net_kernel",
        "rex",
        "standard_error",
        "user",
        "user_drv",
        "Elixir.Code",
        "Elixir.IEx.Broker",
        "Elixir.Mix.State",
    )
)
# Atoms that every BEAM has, so that saying them costs nobody anything.
_OF_EVERY_BEAM = frozenset(
    (
        "",
        "ok",
        "error",
        "true",
        "false",
        "nil",
        "undefined",
        "normal",
        "shutdown",
        "noproc",
        "noconnection",
        "timeout",
        "reply",
        "noreply",
        "stop",
        "continue",
        "info",
        "debug",
        "warning",
        "EXIT",
        "DOWN",
        "process",
        "__struct__",
        "__exception__",
        "Elixir",
    )
)


def pattern(text: str) -> Callable[[str], bool]:
    """Whether a text is like `text`, in which `*` stands for any run of characters."""
    if "*" not in text:
        return text.__eq__
    regex = re.compile(".*".join(map(re.escape, text.split("*"))), re.DOTALL)
    return lambda candidate: regex.fullmatch(candidate) is not None


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of `allow`."""

    name: str
    node: str | None  # None: any that is connected

    @classmethod
    def of(cls, text: str) -> Rule:
        name, at, node = text.partition("@")
        return cls(name, node if at else None)

    def allows(self, name: str, node: str, own: str) -> bool:
        if "*" in self.name and (name in _OF_OTP or node == own):
            return False  # what obeys messages has to be spelt out
        if not pattern(self.name)(name):
            return False
        return self.node is None or pattern(self.node)(node)


class CallbackPolicy:
    """The policy of one role. `own`: the bridge's node; `connected(node)`: is it there already?"""

    def __init__(
        self,
        *,
        allow: Iterable[str],
        pids: Sequence[str],
        own: str,
        connected: Callable[[str], bool],
    ) -> None:
        self._rules = [Rule.of(text) for text in allow]
        self._pids = list(map(pattern, pids))
        self._spelt_out = {rule.node for rule in self._rules if rule.node} | set(pids)
        self._own = own
        self._connected = connected

    def address(self, dest: Term) -> Pid | tuple[Atom, Atom]:
        """Where `dest` is, if it may be written to. Raises NotHad."""
        if isinstance(dest, Pid):
            if not self.lets_pid_of(dest.node.name):
                raise refused("no pid of that node may be written to ([roles.*.callback] pids)")
            self._check_reach(dest.node.name)
            return dest
        name, node = dest if type(dest) is tuple else (dest, Atom(self._own))
        if not any(rule.allows(name.name, node.name, self._own) for rule in self._rules):
            raise refused("this name may not be written to ([roles.*.callback] allow)")
        self._check_reach(node.name)
        return (name, node)

    def lets_pid_of(self, node: str) -> bool:
        return any(matches(node) for matches in self._pids)

    def _check_reach(self, node: str) -> None:
        if node != self._own and node not in self._spelt_out and not self._connected(node):
            raise NotHad(Code.NO_CONNECTION)


class AtomBudget:
    """The atoms that one life of a worker may bring into the cluster."""

    def __init__(self, declared: Iterable[str], *, new_max: int = NEW_ATOMS_MAX) -> None:
        self._free = _OF_EVERY_BEAM.union(declared)
        self._new_max = new_max
        self._used: set[str] = set()

    def spend(self, atoms: set[str]) -> None:
        """Count those that are new. Raises NotHad, and counts none, when they are too many."""
        new = atoms - self._free - self._used
        if len(self._used) + len(new) > self._new_max:
            raise refused(f"more than {self._new_max} new atoms in one life of a worker")
        self._used |= new


def check_term(term: Term, policy: CallbackPolicy, budget: AtomBudget) -> None:
    """May a worker of this role say `term`? Raises NotHad."""
    atoms: set[str] = set()
    waiting: list[Term] = [term]
    while waiting:
        item = waiting.pop()
        kind = type(item)
        if kind in (int, bytes, float, bool, type(None), BitString):
            continue
        if kind is Atom:
            atoms.add(item.name)
        elif kind in (tuple, list):
            waiting.extend(item)
        elif kind is ImproperList:
            waiting.extend(item.elements)
            waiting.append(item.tail)
        elif kind in (Pid, Port, Reference):
            if not policy.lets_pid_of(item.node.name):
                raise refused("a term with a pid, port or reference ([roles.*.callback] pids)")
            atoms.add(item.node.name)
        elif kind in (Fun, Export):
            raise refused("no term with a fun")
        elif isinstance(item, Mapping | Map):
            for key, value in item.items():
                waiting += (key, value)
        else:
            raise refused(f"no term with a {kind.__name__}")
    budget.spend(atoms)


def refused(why: str) -> NotHad:
    return NotHad(Code.REFUSED, why)
