"""make bench: every row of DESIGN.md's table of speed in one run, each beside its peer, in turn.

    make bench [ROWS=calls,overload] [QUICK=1]
    python -m integration.bench [--rows ...] [--quick] [--sides ours,beam,ei] [--cells 16x1]

    calls        plain calls of several sizes and numbers of callers; their CPU time, and a bound
    hops         where the time of one call goes
    many         submit_many beside a Port
    lane         the lane over shared memory beside a Port
    overload     twice as much as a role can do, as an open loop
    connections  1, 10 and 100 connections: cost of a job
    large        a large payload, and small calls beside it (--large BYTES: 64 MiB, up to 1 GiB)
    workers      1, 10, 100 and 1,000 workers: cost of a job; memory of a worker
    deaths       from a worker's crash to its caller's answer, and to a working replacement
    remote       calls to a worker that is an Erlang process, and what a VM does by itself
    python       a node in Python beside a BEAM's GenServer
    codec        the term codec beside msgspec's MessagePack
    ring         a link's rings beside the machine's cache-line round trip
    memory       of an idle connection, an idle Python process, and a worker's two guards

Sides take turns within each cell and cells within each round; ratios are taken within a round.
What a side does while the machine is slow is so compared with what the others do just then.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from integration.bench import (
    codec,
    costs,
    curves,
    deaths,
    hops,
    lane,
    large,
    many,
    memory,
    overload,
    programs,
    python_calls,
    remote,
    report,
    table,
)
from integration.bench.figures import OURS, PEERS, Cell, Sample, rows_of
from integration.cluster import ROOT, Cluster, ClusterError, Driver, exit_on_signals, full

CELLS = (
    *(Cell(size, callers) for size in (16, 1 << 10, 64 << 10, 1 << 20) for callers in (1, 16, 128)),
    Cell(1 << 20, 4),
)
QUICK_CELLS = (Cell(16, 1), Cell(16, 128), Cell(1 << 20, 1), Cell(1 << 20, 4))
IN_CLUSTER = (
    "calls",
    "hops",
    "many",
    "lane",
    "overload",
    "connections",
    "large",
    "workers",
    "deaths",
    "remote",
    "python",
)
ROWS = (*IN_CLUSTER, "codec", "ring", "memory")
Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    rows: tuple[str, ...]
    sides: tuple[str, ...]
    cells: tuple[Cell, ...]
    rounds: int
    window_ms: int
    quick: bool
    large_bytes: int

    @property
    def seconds(self) -> float:
        """Of the calls alone; what else is chosen takes some seconds each."""
        if "calls" not in self.rows:
            return 0.0
        return len(self.sides) * len(self.cells) * self.rounds * self.window_ms / 1e3


@dataclass
class Sides:
    """What was started, and what can be asked of it."""

    cluster: Cluster
    load: Driver
    vm_pid: int
    pids: dict[str, int]
    missing: dict[str, str]


Samples = dict[Cell, dict[str, list[Sample | None]]]


def main() -> int:
    exit_on_signals()
    plan = parse_arguments(sys.argv[1:])
    say(f"rows {', '.join(plan.rows)}; about {plan.seconds:.0f} s for calls, and others")
    started = time.monotonic()
    samples: Samples = {}
    parts: dict[str, Any] = {}
    rows: list[Row] = []
    missing: dict[str, str] = {}
    try:
        if set(plan.rows) & set(IN_CLUSTER):
            with Cluster() as cluster:
                sides = start(cluster, plan.sides)
                missing = sides.missing
                plan = replace(plan, sides=tuple(s for s in plan.sides if s not in missing))
                samples, rows, parts = in_cluster(sides, plan)
    except (ClusterError, RuntimeError, TimeoutError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    rows += alone(plan)
    described = {
        "rows": plan.rows,
        "sides": plan.sides,
        "rounds": plan.rounds,
        "window_ms": plan.window_ms,
    }
    made = report.made_of(machine(), described, rows, **parts)
    text = [*report.lines(made, samples, plan.sides)]
    text += [f"\nNot measured: {note}" for note in missing.values()]
    print(*text, sep="\n")
    folder = report.write(made, text)
    shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    say(f"wrote {shown} after {time.monotonic() - started:.0f} s")
    return 1 if OURS in missing else 0


def parse_arguments(arguments: list[str]) -> Plan:
    parser = argparse.ArgumentParser(
        prog="python -m integration.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--quick", action="store_true", help="3 short rounds, few cells and points")
    parser.add_argument("--sides", default=",".join((OURS, *PEERS)))
    parser.add_argument("--cells", help="BYTESxCALLERS, with commas between")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--window-ms", type=int)
    parser.add_argument("--large", type=int, default=64 << 20, metavar="BYTES")
    given = parser.parse_args(arguments)
    sides, rows = tuple(given.sides.split(",")), tuple(given.rows.split(","))
    if unknown := set(sides) - {OURS, *PEERS}:
        parser.error(f"no side named {unknown.pop()} ({', '.join((OURS, *PEERS))})")
    if unknown := set(rows) - set(ROWS):
        parser.error(f"no row named {unknown.pop()} ({', '.join(ROWS)})")
    cells = QUICK_CELLS if given.quick else CELLS
    if given.cells:
        pairs = (pair.split("x") for pair in given.cells.split(","))
        cells = tuple(Cell(int(size), int(callers)) for size, callers in pairs)
    return Plan(
        rows=rows,
        sides=sides,
        cells=cells,
        rounds=given.rounds or (3 if given.quick else 5),
        window_ms=given.window_ms or (300 if given.quick else 800),
        quick=given.quick,
        large_bytes=given.large,
    )


def start(cluster: Cluster, wanted: tuple[str, ...]) -> Sides:
    """Start the sides and the load generator; which sides could not be started, and why."""
    say("compiling the peers")
    ebin, port_echo = programs.load_generator(), programs.port_echo()
    pids, missing = {}, {}
    if "beam" in wanted:
        beam = cluster.spawn(elixir("beam", ebin, "Ringbridge.Bench.Echo.start()"), log="beam")
        cluster.wait_for_node("beam", beam)
        pids["beam"] = beam.pid
    if "ei" in wanted:
        ei = cluster.spawn([str(programs.ei_echo()), "ei"], log="ei")
        cluster.wait_for_node("ei", ei)
        pids["ei"] = ei.pid
    if OURS in wanted:
        try:
            pids[OURS] = cluster.start_bridge("bridge").pid
        except ClusterError as error:
            missing[OURS] = f"ours, because {error}"
    load, vm_pid = load_generator(cluster, "load", ebin, port_echo)
    return Sides(cluster, load, vm_pid, pids, missing)


def load_generator(cluster: Cluster, name: str, ebin: Path, port_echo: Path) -> tuple[Driver, int]:
    nodes = [full("bridge"), full("beam"), full("ei"), full("python"), str(port_echo)]
    expression = f"Ringbridge.Bench.Load.main({json.dumps(nodes)})"
    process = cluster.spawn(elixir(name, ebin, expression), log=name, pipes=True)
    driver = Driver(process, lambda: cluster.tail(name))
    if driver.expect() != "ready":
        raise ClusterError(f"the load generator is not ready{cluster.tail(name)}")
    return driver, process.pid


def elixir(name: str, ebin: Path, expression: str) -> list[str]:
    listen = "-kernel inet_dist_use_interface {127,0,0,1}"
    arguments = ["--name", full(name), "--erl", listen, "-pa", str(ebin)]
    return ["elixir", *arguments, "--no-halt", "-e", expression]


def in_cluster(sides: Sides, plan: Plan) -> tuple[Samples, list[Row], dict[str, Any]]:
    """Whatever needs nodes: samples of the calls, rows, and parts of the report."""
    load, cluster = sides.load, sides.cluster
    samples: Samples = {}
    rows: list[Row] = []
    parts: dict[str, Any] = {}
    ours = OURS in plan.sides
    for side in plan.sides:  # connections are made and code is loaded before anything counts
        load.ask(f"run {side} 16 16 200")
    if "calls" in plan.rows:
        samples, parts["cache_line_round_trip_ns"] = run(load, plan)
        rows += [row for cell, taken in samples.items() for row in rows_of(cell, taken)]
        parts.update(cpu_of_calls(sides, plan))
    if "hops" in plan.rows and ours:
        parts["hops"] = hops.measure(load)
    if "many" in plan.rows and ours:
        rows += many.rows(load, say, rounds=plan.rounds, window_ms=plan.window_ms)
    if "lane" in plan.rows and ours:
        pid, ms = sides.pids[OURS], plan.window_ms
        rows += lane.rows(cluster, pid, elixir, say, rounds=plan.rounds, window_ms=ms)
    if "overload" in plan.rows:
        rows += overload.rows(cluster, load, say, seconds=2.0 if plan.quick else 5.0)
    if "connections" in plan.rows:
        points = curves.CONNECTIONS[:2] if plan.quick else curves.CONNECTIONS
        rows += curves.connection_rows(cluster, say, counts=points, window_ms=2 * plan.window_ms)
    if "large" in plan.rows:
        ebin, port_echo = programs.load_generator(), programs.port_echo()
        other, _pid = load_generator(cluster, "other", ebin, port_echo)
        window_ms = 1000 if plan.quick else 3000
        size = plan.large_bytes
        rows += large.rows(cluster, load, other, say, size=size, window_ms=window_ms)
    if "workers" in plan.rows:
        counts = curves.WORKERS[:3] if plan.quick else curves.WORKERS
        rows += curves.worker_rows(cluster, load, say, counts=counts, window_ms=plan.window_ms)
    if "deaths" in plan.rows:
        rows += deaths.rows(cluster, say, count=100 if plan.quick else 300)
    if "remote" in plan.rows and ours:
        window_ms = plan.window_ms
        rows += remote.rows(cluster, load, elixir, say, rounds=plan.rounds, window_ms=window_ms)
    if "python" in plan.rows and "beam" in plan.sides:
        rows += python_answers(cluster, load, plan)
    return samples, rows, parts


def run(load: Driver, plan: Plan) -> tuple[Samples, list[Any]]:
    """All samples, and the cache-line round trip at the start of each round."""
    results: Samples = {cell: {side: [] for side in plan.sides} for cell in plan.cells}
    lines_ns = []
    for number in range(plan.rounds):
        lines_ns.append(cache_line_ns())
        for index, cell in enumerate(plan.cells):
            said = []
            for side in turn(plan.sides, number + index):
                answer = load.ask(f"run {side} {cell.size_bytes} {cell.callers} {plan.window_ms}")
                sample = Sample.parse(answer)
                results[cell][side].append(sample)
                said.append(
                    f"{table.SHORT[side]} {sample.rate:,.0f}" if sample else f"{side}: {answer}"
                )
            say(f"round {number + 1} of {plan.rounds}, {cell}: {', '.join(said)}")
    return results, lines_ns


def turn(sides: tuple[str, ...], by: int) -> tuple[str, ...]:
    """Another side goes first each time: none always runs in the wake of the same neighbour."""
    by %= len(sides)
    return sides[by:] + sides[:by]


def cpu_of_calls(sides: Sides, plan: Plan) -> dict[str, Any]:
    found, bounds = [], []
    for cell in (Cell(16, 128), Cell(1 << 20, 4)):
        if cell not in plan.cells:
            continue
        pids = {side: sides.pids[side] for side in plan.sides if side in sides.pids}
        measured = costs.measure(sides.load, pids, sides.vm_pid, cell)
        found += measured
        bounds += [b for peer in ("beam", "ei") if (b := costs.bound_of(measured, peer))]
    return {"costs": found, "bounds": bounds}


def cache_line_ns() -> Any:
    done = subprocess.run([programs.cache_line()], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def python_answers(cluster: Cluster, load: Driver, plan: Plan) -> list[Row]:
    """Started late, so that it takes no core from the sides that ran before."""
    say("a node in Python")
    program = [sys.executable, "-m", "integration.bench.peers.python_echo", full("python")]
    process = cluster.spawn(program, log="python", env={"RINGBRIDGE_COOKIE": cluster.cookie})
    cluster.wait_for_node("python", process)
    for side in python_calls.SIDES:
        load.ask(f"run {side} 16 16 200")
    rows = python_calls.rows(load, say, rounds=plan.rounds, window_ms=plan.window_ms)
    cluster.stop(process)
    return rows


def alone(plan: Plan) -> list[Row]:
    """What needs no other node."""
    rows: list[Row] = []
    if "codec" in plan.rows:
        say("the term codec")
        rows += codec.rows()
    if "ring" in plan.rows:
        rows += ring_rows()
    if "memory" in plan.rows:
        say("memory")
        rows += memory.rows()
    return rows


def ring_rows() -> list[Row]:
    """The link's rings, there and back, beside the machine's cache-line round trip (csrc/bench)."""
    say("the ring")
    run = ["make", "-s", "-C", "csrc", "../build/bench/ring"]
    subprocess.run(run, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    told = subprocess.run(
        [ROOT / "build/bench/ring", "--json"], check=True, capture_output=True, text=True
    )
    return [json.loads(line) for line in told.stdout.splitlines()]


def machine() -> dict[str, Any]:
    with open("/proc/cpuinfo") as cpuinfo, open("/proc/loadavg") as loadavg:
        models = [
            line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")
        ]
        load = loadavg.read().split()[0]
    return {
        "cpus": len(models),
        "model": models[0] if models else platform.machine(),
        "kernel": platform.release(),
        "otp": programs.otp()["release"],
        "elixir": programs.elixir_version(),
        "python": platform.python_version(),
        "load_average_1min": float(load),
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def say(line: str) -> None:
    print(f"bench: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
