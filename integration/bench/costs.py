"""What calls cost in CPU time, by the kernel's own account, and the bound that follows.

A closed loop of callers on C CPUs cannot pass C divided by what its VM needs for one call, whoever
answers: a callee that costs nothing leaves that. So the ratio that any callee can reach beside a
peer is bound by (VM + peer) / VM where the peer's pair keeps all CPUs busy.
/proc/<pid>/task/<tid>/schedstat gives the time on a CPU in ns (Linux,
Documentation/scheduler/sched-stats.rst).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from integration.bench.figures import Cell, Sample, rounded
from integration.cluster import Driver

SETTLING = 0.2  # of a window, in which calls are made and not counted (load.ex)


def family(pid: int) -> Iterator[int]:
    """The process and all that descend from it. One that ends meanwhile is left out."""
    yield pid
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from family(int(child))
    except OSError:
        return


def cpu_us(pid: int, thread: str | None = None) -> float:
    """Time on a CPU of a process and its descendants, or only of the threads of that name."""
    spent = 0
    for process in family(pid):
        try:
            for task in Path(f"/proc/{process}/task").iterdir():
                if thread is None or (task / "comm").read_text().strip() == thread:
                    spent += int((task / "schedstat").read_text().split()[0])
        except OSError:
            continue
    return spent / 1e3


def cpus() -> int:
    return len(os.sched_getaffinity(0))


def measure(load: Driver, pids: Mapping[str, int], vm: int, cell: Cell) -> list[dict[str, Any]]:
    """Of each side: CPU time a call of the calling VM and of who answers."""
    rows = []
    for side, pid in pids.items():
        before = cpu_us(vm), cpu_us(pid)
        sample = Sample.parse(load.ask(f"run {side} {cell.size_bytes} {cell.callers} 1000"))
        after = cpu_us(vm), cpu_us(pid)
        if sample is None:
            continue
        calls = sample.rate * 1.0
        rows.append(
            {
                "side": side,
                "cell": str(cell),
                "rate": rounded(sample.rate),
                "caller_us": rounded((after[0] - before[0]) / calls),
                "callee_us": rounded((after[1] - before[1]) / calls),
            }
        )
    return rows


def bound_of(rows: list[dict[str, Any]], beside: str) -> dict[str, Any] | None:
    """The rate, and its ratio to the peer's, that a callee which costs nothing would reach."""
    known = {row["side"]: row for row in rows}
    if "ours" not in known or beside not in known:
        return None
    rate = cpus() * 1e6 / known["ours"]["caller_us"]
    return {
        "beside": beside,
        "cell": known["ours"]["cell"],
        "rate": rounded(rate),
        "ratio": rounded(rate / known[beside]["rate"]),
    }
