"""Crash reports: how a worker's life ended that went wrong, and what it wrote last. A pure core."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bridge.etf import Atom
from bridge.workers._shepherd_protocol import Usage

REPORTS_MAX = 64  # in the bridge: 4 MiB of output at most
JOBS_TOLD_MAX = 100


@dataclass(frozen=True, slots=True)
class CrashReport:
    """One life. `jobs`: those that were lost with it. `usage`: what it and those that it waited for
    have used, None where nobody has counted. `output`: the end of what it wrote to stdout and
    stderr and said over its channel, as it came.
    """

    worker: int
    role: str
    index: int
    at: str  # UTC, ISO 8601
    why: str
    status: int | None
    signal: int | None
    core: bool
    oom: bool
    os_pid: int | None
    kit: str | None
    kit_version: str | None
    lived_ms: int
    jobs_lost: int
    jobs: tuple[int, ...]
    usage: Usage | None
    output: bytes
    output_forgotten: int  # bytes before these

    def head(self) -> Mapping[str, Any]:
        """All but the output, as an operator is told."""
        told = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "output"}
        usage = asdict(self.usage) if self.usage else None
        return {**told, "role": Atom(self.role), "jobs": list(self.jobs), "usage": usage}

    def whole(self) -> Mapping[str, Any]:
        return {**self.head(), "output": self.output}


class CrashReports:
    """The last REPORTS_MAX of them, by the id of the worker."""

    def __init__(self, reports_max: int = REPORTS_MAX) -> None:
        self._max = reports_max
        self._kept: OrderedDict[int, CrashReport] = OrderedDict()

    def add(self, report: CrashReport) -> None:
        self._kept[report.worker] = report
        while len(self._kept) > self._max:
            self._kept.popitem(last=False)

    def find(self, worker_id: int) -> CrashReport | None:
        return self._kept.get(worker_id)

    def newest_first(self) -> list[CrashReport]:
        return list(reversed(self._kept.values()))
