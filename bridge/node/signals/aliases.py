"""Aliases: references that messages can be sent to, until they are closed.

Each call out has one for its answer, so that a late answer reaches nobody. A process may make more:
`once` for one answer, `priority` for one over which priority messages are received as such (OTP 28:
a priority message to anything else is an ordinary one).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bridge.etf import Reference
from bridge.node.signals.table import Process

Term = Any


@dataclass(frozen=True, slots=True)
class ProcessAlias:
    process: Process
    priority: bool
    once: bool


class Aliases:
    def __init__(self) -> None:
        self._of_calls: dict[Reference, Callable[[Term], None]] = {}
        self._of_processes: dict[Reference, ProcessAlias] = {}

    def __len__(self) -> int:
        return len(self._of_calls)

    # -- of calls ----------------------------------------------------------------------------------

    def open(self, ref: Reference, receive: Callable[[Term], None]) -> None:
        self._of_calls[ref] = receive

    def close(self, ref: Reference) -> None:
        self._of_calls.pop(ref, None)

    def receiver(self, ref: Reference) -> Callable[[Term], None] | None:
        return self._of_calls.get(ref)

    # -- of processes ------------------------------------------------------------------------------

    def add(self, ref: Reference, alias: ProcessAlias) -> None:
        self._of_processes[ref] = alias
        alias.process.aliases.add(ref)

    def get(self, ref: Reference) -> ProcessAlias | None:
        return self._of_processes.get(ref)

    def remove(self, ref: Reference) -> bool:
        """Whether there was one."""
        alias = self._of_processes.pop(ref, None)
        if alias is not None:
            alias.process.aliases.discard(ref)
        return alias is not None

    def forget_process(self, process: Process) -> None:
        for ref in tuple(process.aliases):
            self.remove(ref)
