"""What 1 to 1,000 workers and 1 to 100 connections cost a job; what memory a worker takes.

The cost is CPU time of the relay's thread a job: it is what all workers and connections share, and
it does not depend on how many CPUs are left for workers. Rates are shown beside it, but with a
thousand processes on two CPUs they are the scheduler's figures as much as ours.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from integration.bench import programs
from integration.bench.costs import cpu_us, family
from integration.bench.figures import Sample, rounded, single
from integration.cluster import Cluster, Driver, full, wait_until

WORKERS = (1, 10, 100, 1000)
CONNECTIONS = (1, 10, 100)
UNDER_WAY = 128
START_S = 90.0
RELAY = "rb-relay"
CONFIG = """
[node]
name = "{name}@127.0.0.1"
[roles.echo]
command = ["build/bin/rb-echo"]
workers = {workers}
"""

Say = Callable[[str], None]


def worker_rows(
    cluster: Cluster, load: Driver, say: Say, *, counts: Sequence[int], window_ms: int
) -> list[dict[str, Any]]:
    points, memory = [], {}
    for count in counts:
        name = f"workers{count}"
        config = cluster.config(name, CONFIG.format(name=name, workers=count))
        bridge = cluster.start_bridge(name, config)
        log = cluster.log_path(name)
        wait_until(
            lambda log=log, count=count: log.read_text().count('"worker ready"') >= count,  # type: ignore[misc]
            f"{count} workers are not ready",
            START_S,
        )
        load.ask(f"bridge {name} {full(name)}")
        load.ask(f"run {name} 16 {UNDER_WAY} 200")
        before = cpu_us(bridge.pid, RELAY), cpu_us(bridge.pid)
        answer = load.ask(f"run {name} 16 {UNDER_WAY} {window_ms}")
        after = cpu_us(bridge.pid, RELAY), cpu_us(bridge.pid)
        sample = Sample.parse(answer)
        if sample is None or sample.errors:
            raise RuntimeError(f"{count} workers: {answer}")
        jobs = sample.rate * window_ms / 1e3
        memory[count] = proportional_kib(bridge.pid)
        points.append(
            {
                "count": count,
                "rate": rounded(sample.rate),
                "relay_us": rounded((after[0] - before[0]) / jobs),
                "all_us": rounded((after[1] - before[1]) / jobs),
            }
        )
        say(f"{count} workers: {points[-1]}, {memory[count] / 1024:,.0f} MiB")
        cluster.stop(bridge, grace_s=30.0)
    rows = _curve("workers", "1 worker", points)
    if len(counts) > 1:
        least, most = min(counts), max(c for c in counts if c <= 100)
        each = (memory[most] - memory[least]) / (most - least)
        rows.append(single("memory of a worker", None, each, None, "KiB"))
    return rows


def connection_rows(
    cluster: Cluster, say: Say, *, counts: Sequence[int], window_ms: int
) -> list[dict[str, Any]]:
    points = []
    program = programs.callers()
    name = "connections"
    config = cluster.config(name, CONFIG.format(name=name, workers=1))
    bridge = cluster.start_bridge(name, config)
    for count in counts:
        # Half a window is for shaking hands and settling: the relay's time is taken over all of
        # it, as the calls are.
        arguments = [str(program), full(name), str(count), str(UNDER_WAY), str(window_ms)]
        process = subprocess.Popen(
            arguments, env=cluster.environment, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        try:
            ready = process.stdout.readline()
            before, began = cpu_us(bridge.pid, RELAY), ready.strip() == "ready"
            answer = process.stdout.readline().split()
            after = cpu_us(bridge.pid, RELAY)
        finally:
            process.wait(30)
        if not began or answer[:1] != ["result"]:
            raise RuntimeError(f"{count} connections: {answer}")
        calls, us = int(answer[1]), int(answer[2])
        rate = calls * 1e6 / us
        relay_us = (after - before) / (rate * window_ms / 1e3)
        points.append({"count": count, "rate": rounded(rate), "relay_us": rounded(relay_us)})
        say(f"{count} connections: {points[-1]}")
    cluster.stop(bridge)
    return _curve("connections", "1 connection", points)


def proportional_kib(pid: int) -> float:
    """Resident memory of a process and its descendants, of a shared page its share (proc(5))."""
    total = 0
    for process in family(pid):
        try:
            text = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:
            continue
        found = re.search(r"^Pss: +(\d+) kB", text, re.MULTILINE)
        total += int(found[1]) if found else 0
    return float(total)


def _curve(what: str, first: str, points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    base = points[0]["relay_us"]
    for point in points[1:]:
        work = f"CPU of the relay a job, {point['count']:,} {what}"
        rows.append(single(work, first, point["relay_us"], base, "us"))
    if rows:
        rows[-1]["curve"] = points
    return rows
