"""The node's figures in the forms that `erlang:memory`, `erlang:statistics` and
`erlang:system_info(allocator_sizes)` give them: all measured, none made up.

Memory, in bytes:

    total       resident memory of this OS process, and of those that its processes stand for
    processes   the sum of every process' own `memory`
    binary      memory shared by memfd: rings and payload pools, counted once
    code        resident programs and libraries of this OS process
    atom, ets   0: atoms are objects like any other here, and there are no tables
    system      total - processes

A scheduler is a thread that does the node's work: 1 the interpreter's, 2 the relay's. Reductions
are what each process counts as its work, messages unless its owner knows better.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bridge.etf import Atom
from bridge.node.inspection import facts
from bridge.node.inspection.seen import Processes

_KEEP = 20  # times what a survey took
_QUICK_NS = 2_000_000  # as long as others do not notice

Term = Any
Traffic = Callable[[], tuple[int, int]]
_MEMORY_KEYS = (
    "total",
    "processes",
    "processes_used",
    "system",
    "atom",
    "atom_used",
    "binary",
    "code",
    "ets",
)


@dataclass(frozen=True, slots=True)
class Allocator:
    """Bytes in use (blocks) of bytes taken from the system (carriers), by who hands them out."""

    name: str
    blocks: int
    carriers: int


@dataclass(frozen=True, slots=True)
class Survey:
    """Sums over all processes at one moment."""

    memory: int
    elsewhere: int
    reductions: int
    waited_for: int
    keep_until_ns: int


class Figures:
    """`traffic` gives the bytes received and sent by all connections so far."""

    def __init__(self, processes: Processes, traffic: Traffic = lambda: (0, 0)) -> None:
        self._processes = processes
        self._traffic = traffic
        self._started_ns = time.monotonic_ns()
        self._last: dict[str, int] = {}
        self._survey: Survey | None = None

    # -- memory ------------------------------------------------------------------------------------

    def memory(self) -> dict[str, int]:
        here = facts.resident()
        survey = self.survey()
        processes = survey.memory
        total = here.total + survey.elsewhere
        values = (
            total,
            processes,
            processes,
            total - processes,
            0,
            0,
            here.shared,
            here.files,
            0,
        )
        return dict(zip(_MEMORY_KEYS, values, strict=True))

    def allocators(self) -> list[Allocator]:
        """What hands out this OS process' memory: the C library, the interpreter's own mappings
        (all of which count as in use), and the memfds.
        """
        here = facts.resident()
        used, taken = facts.malloc()
        mapped = max(0, here.anonymous - taken)
        return [
            Allocator("libc_alloc", used, taken),
            Allocator("interpreter_alloc", mapped, mapped),
            Allocator("memfd_alloc", here.shared, here.shared),
        ]

    # -- time and load -----------------------------------------------------------------------------

    def uptime_ms(self) -> int:
        return (time.monotonic_ns() - self._started_ns) // 1_000_000

    def scheduler_wall_time(self) -> list[Term]:
        """[{Id, Active, Total}] in nanoseconds; Active is time on a processor."""
        total = time.monotonic_ns() - self._started_ns
        return [
            (number, thread.on_cpu_ns, total)
            for number, thread in enumerate(facts.threads(), start=1)
        ]

    def schedulers(self) -> int:
        return max(1, len(facts.threads()))

    def run_queue(self) -> int:
        """How many processes have a message waiting."""
        return self.survey().waited_for

    def io(self) -> tuple[Term, Term]:
        received, sent = self._traffic()
        return ((Atom("input"), received), (Atom("output"), sent))

    def statistics(self, item: Term) -> Term:
        """The value of `erlang:statistics(Item)`. Raises KeyError."""
        match item:
            case Atom("wall_clock"):
                return self._with_delta("wall_clock", self.uptime_ms())
            case Atom("runtime"):
                return self._with_delta("runtime", facts.cpu_time_ms())
            case Atom("reductions" | "exact_reductions"):
                return self._with_delta("reductions", self.survey().reductions)
            case Atom("io"):
                return self.io()
            case Atom("scheduler_wall_time" | "scheduler_wall_time_all"):
                return self.scheduler_wall_time()
            case Atom(
                "run_queue"
                | "total_run_queue_lengths"
                | "total_run_queue_lengths_all"
                | "total_active_tasks"
                | "total_active_tasks_all"
            ):
                return self.run_queue()
            case Atom(
                "run_queue_lengths" | "run_queue_lengths_all" | "active_tasks" | "active_tasks_all"
            ):
                return [self.run_queue()]
            case Atom("context_switches"):
                usage = resource.getrusage(resource.RUSAGE_SELF)
                return (usage.ru_nvcsw + usage.ru_nivcsw, 0)
            case _:
                raise KeyError(item)

    def survey(self) -> Survey:
        """The sums over all processes, which a window may ask for several times a second.

        What took long is kept for a while, so that no more than a twentieth of the interpreter's
        time goes into it however many processes there are: with 10,000 of them some seconds.
        """
        began_ns = time.monotonic_ns()
        if self._survey is not None and began_ns < self._survey.keep_until_ns:
            return self._survey
        memory = elsewhere = reductions = waited_for = 0
        for seen in self._processes.all():
            memory += seen.memory
            elsewhere += seen.details.memory_bytes
            reductions += seen.reductions
            waited_for += seen.message_queue_len > 0
        took_ns = time.monotonic_ns() - began_ns
        keep_until_ns = began_ns + (_KEEP * took_ns if took_ns > _QUICK_NS else 0)
        self._survey = Survey(memory, elsewhere, reductions, waited_for, keep_until_ns)
        return self._survey

    def _with_delta(self, name: str, now: int) -> tuple[int, int]:
        """{Total, Since the last such question}, as on a BEAM whoever asked that."""
        last = self._last.get(name, 0)
        self._last[name] = now
        return (now, max(0, now - last))
