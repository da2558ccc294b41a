"""The process table: every pid and registered name of the node, whoever owns it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from bridge.etf import Atom, Pid, Reference
from bridge.node.signals.gen import Request
from bridge.node.signals.links import Links

Term = Any


class Inbox(Protocol):
    """Where a process takes what the node has for it. None of these blocks or raises."""

    def deliver(self, message: Term) -> None:
        """A message somebody sent. A bounded inbox may refuse or drop it by its stated policy."""

    def deliver_urgent(self, message: Term) -> None:
        """A priority message: to be received before ordinary ones, bounded like them."""

    def deliver_signal(self, message: Term, *, urgent: bool = False) -> None:
        """A 'DOWN' or 'EXIT' that the process asked for by monitor or link: always taken."""

    def stop(self, reason: Term) -> None:
        """The process has ended; end what runs for it. It is out of the table already."""


class Watcher(NamedTuple):
    """Somebody who monitors a process, and what they called it (its pid, or a name)."""

    pid: Pid
    target: Pid | Atom


@dataclass(eq=False, slots=True, kw_only=True)
class Process:
    """One process. `owner` says who answers for it: a "relay" process gets no calls and monitors
    here. `changes` gives the words for a request of a peer that is for admin nodes.
    `urgent_links`: an EXIT from one of these pids goes before ordinary messages. The node that it
    was `spawned_by` may end it; `unwatched` is called when the last watcher has left.
    """

    pid: Pid
    inbox: Inbox
    links: Links
    owner: Literal["python", "relay"] = "python"
    trap_exit: bool = False
    parent: Pid | None = None
    group_leader: Pid | None = None
    initial_call: tuple[str, str, int] | None = None
    changes: Callable[[Request], str | None] | None = None
    spawned_by: str | None = None
    unwatched: Callable[[], None] | None = None
    names: set[Atom] = field(default_factory=set)
    watchers: dict[Reference, Watcher] = field(default_factory=dict)
    watching: set[Reference] = field(default_factory=set)
    aliases: set[Reference] = field(default_factory=set)
    urgent_links: set[Pid] = field(default_factory=set)


class ProcessTable:
    """Pids to processes and names to processes. Only living ones."""

    def __init__(self) -> None:
        self._by_pid: dict[Pid, Process] = {}
        self._by_name: dict[Atom, Process] = {}

    def __len__(self) -> int:
        return len(self._by_pid)

    def __iter__(self) -> Iterator[Process]:
        return iter(tuple(self._by_pid.values()))

    def add(self, process: Process, names: Iterable[Atom]) -> None:
        """Raises ValueError when a name is taken; nothing is added then."""
        names = set(names)
        if taken := sorted(name.name for name in names if name in self._by_name):
            raise ValueError(f"already registered: {', '.join(taken)}")
        self._by_pid[process.pid] = process
        for name in names:
            self.register(name, process)

    def register(self, name: Atom, process: Process) -> None:
        """Raises ValueError when the name is taken. `undefined` is not a name, as in OTP."""
        if name in self._by_name or name == Atom("undefined"):
            raise ValueError(f"already registered: {name.name}")
        self._by_name[name] = process
        process.names.add(name)

    def unregister(self, name: Atom) -> None:
        """Raises KeyError when nothing has the name. Monitors by that name stay with the
        process.
        """
        self._by_name.pop(name).names.discard(name)

    def remove(self, process: Process) -> bool:
        """Take a process and its names out; False if it was out already."""
        for name in process.names:
            self._by_name.pop(name, None)
        process.names.clear()
        return self._by_pid.pop(process.pid, None) is not None

    def find(self, target: Pid | Atom | None) -> Process | None:
        """The living process with that pid (creation included) or name."""
        if isinstance(target, Pid):
            return self._by_pid.get(target)
        return self._by_name.get(target) if isinstance(target, Atom) else None

    def registered(self) -> list[str]:
        return sorted(name.name for name in self._by_name)
