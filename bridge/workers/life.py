"""What is known of one life of a worker: what the relay has told, and what follows from its end.

A pure core: worker.py lives it, this remembers it. Time is an argument.
"""

from __future__ import annotations

import signal as signals
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol, TypeAlias

from bridge.etf import Atom
from bridge.fabric.relay import (
    JobLost,
    WorkerBroke,
    WorkerEnded,
    WorkerOutput,
    WorkerReady,
    WorkerRefused,
)
from bridge.ops.answers import atom_keys
from bridge.workers._shepherd_protocol import Usage
from bridge.workers.crash_reports import JOBS_TOLD_MAX, CrashReport
from bridge.workers.handshake_driver import RolePlan
from bridge.workers.output import Line, LineCutter, Tail

WorkerEvent: TypeAlias = (
    WorkerReady | WorkerRefused | WorkerBroke | WorkerEnded | WorkerOutput | JobLost
)


class Who(Protocol):
    """Whose life it is."""

    id: int
    index: int
    os_pid: int | None
    plan: RolePlan


@dataclass(slots=True)
class Life:
    """One life. `failure`: the first thing that went wrong; what follows from it is not told."""

    began_s: float = 0.0
    greeting: WorkerReady | None = None
    refused: str | None = None
    end: WorkerEnded | None = None
    killed: bool = False
    broke: bool = False  # the relay has killed it, and tells its end unless its init cannot
    failure: str | None = None
    usage: Usage | None = None  # told by its shepherd
    jobs: list[int] = field(default_factory=list)  # lost with it, the first ones
    jobs_lost: int = 0
    _cutters: dict[str, LineCutter] = field(default_factory=dict)
    _tail: Tail = field(default_factory=Tail)

    @property
    def over(self) -> bool:
        return self.end is not None or self.refused is not None or self.killed or self.broke

    @property
    def kit_version(self) -> str | None:
        return "{}.{}".format(*self.greeting.kit_version) if self.greeting else None

    def take(self, event: WorkerEvent) -> None:
        match event:
            case WorkerReady():
                self.greeting = event
            case WorkerRefused():
                self.refused = event.why
            case WorkerBroke():
                self.broke = True
            case WorkerEnded():
                self.end = event
            case JobLost():
                self.jobs_lost += 1
                if self.jobs_lost <= JOBS_TOLD_MAX:
                    self.jobs.append(event.job)

    def take_output(self, event: WorkerOutput, now_s: float) -> list[Line]:
        """The lines for the log that it completes."""
        self._tail.add(event.data)
        cutter = self._cutters.setdefault(event.stream, LineCutter())
        return cutter.feed(event.data, now_s, event.job)

    def keep(self, said: bytes) -> None:
        """It said this in another way."""
        self._tail.add(said)

    def last_lines(self, now_s: float) -> Iterator[tuple[str, list[Line]]]:
        """Of each stream, once nothing more comes."""
        for stream, cutter in self._cutters.items():
            yield stream, cutter.finish(now_s)

    def down_reason(self, worker_id: int, *, asked: bool) -> object:
        """What the watchers of the worker's pid hear. `asked`: its end was wanted."""
        if asked:
            return Atom("shutdown")
        if self.failure is None and self.end is not None and self.end.status == 0:
            return Atom("normal")
        details = {
            "worker": worker_id,
            "status": self.end.status if self.end else None,
            "signal": self.end.signal if self.end else None,
            "oom": bool(self.end and self.end.oom),
            "why": self.failure,
        }
        return (Atom("worker_crashed"), atom_keys(details))

    def report(self, who: Who, now_s: float) -> CrashReport | None:
        """What is kept of a life that went wrong; None if it did not."""
        if self.failure is None:
            return None
        end = self.end
        return CrashReport(
            worker=who.id,
            role=who.plan.name,
            index=who.index,
            at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            why=self.failure,
            status=end.status if end else None,
            signal=end.signal if end else None,
            core=bool(end and end.core),
            oom=bool(end and end.oom),
            os_pid=who.os_pid,
            kit=self.greeting.kit if self.greeting else None,
            kit_version=self.kit_version,
            lived_ms=round((now_s - self.began_s) * 1000),
            jobs_lost=self.jobs_lost,
            jobs=tuple(self.jobs),
            usage=self.usage,
            output=self._tail.read(),
            output_forgotten=self._tail.forgotten,
        )


def describe_end(end: WorkerEnded) -> str:
    """How a worker ended, in words: "exit status 3", "signal 11 (SIGSEGV), core dumped"."""
    if end.signal:
        try:
            name = signals.Signals(end.signal).name
        except ValueError:
            name = "real-time"
        words = f"signal {end.signal} ({name})"
    elif end.status is not None:
        words = f"exit status {end.status}"
    else:
        words = "an unknown status"
    return words + (", core dumped" if end.core else "") + (", out of memory" if end.oom else "")
