"""make bench: our calls beside BEAM, ei and Port, in turn in one run.

    python -m integration.bench [--quick] [--sides ours,beam,ei] [--sizes 16,1024] [--callers 1]

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from integration.bench import codec, hops, memory, programs, python_calls, table
from integration.bench.figures import OURS, PEERS, Cell, Sample, rows_of
from integration.cluster import ROOT, Cluster, ClusterError, Driver, exit_on_signals, full

REPORT = Path(__file__).parent / "report" / "latest.json"
SIZES = (16, 1 << 10, 64 << 10, 1 << 20)
CALLERS = (1, 16, 128)


@dataclass(frozen=True)
class Plan:
    sides: tuple[str, ...]
    cells: tuple[Cell, ...]
    rounds: int
    window_ms: int

    @property
    def seconds(self) -> float:
        return len(self.sides) * len(self.cells) * self.rounds * self.window_ms / 1e3


def main() -> int:
    exit_on_signals()
    plan = parse_arguments(sys.argv[1:])
    size = f"{len(plan.cells)} cells, {len(plan.sides)} sides, {plan.rounds} rounds"
    say(f"about {plan.seconds:.0f} s: {size}")
    started = time.monotonic()
    try:
        with Cluster() as cluster:
            load, missing = start(cluster, plan.sides)
            sides = tuple(side for side in plan.sides if side not in missing)
            results, lines_ns = run(load, Plan(sides, plan.cells, plan.rounds, plan.window_ms))
            hop_rows = hops.measure(load) if OURS in sides else []
            python_rows = python_answers(cluster, load, plan)
    except ClusterError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    rows = [row for cell, samples in results.items() for row in rows_of(cell, samples)]
    others = python_rows + codec_rows() + ring_rows() + memory_rows()
    report = {
        "machine": machine(),
        "plan": {"rounds": plan.rounds, "window_ms": plan.window_ms, "sides": sides},
        "beside": PEERS,
        "cache_line_round_trip_ns": lines_ns,
        "rows": rows + others,
        "hops": hop_rows,
    }
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=1) + "\n")
    print_report(report, results, sides, others)
    for note in missing.values():
        print(f"\nNot measured: {note}")
    say(
        f"wrote {REPORT.relative_to(Path.cwd()) if REPORT.is_relative_to(Path.cwd()) else REPORT}"
        f" after {time.monotonic() - started:.0f} s"
    )
    return 1 if OURS in missing else 0


def parse_arguments(arguments: list[str]) -> Plan:
    parser = argparse.ArgumentParser(
        prog="python -m integration.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="3 short rounds, about 40 s")
    parser.add_argument("--sides", default=",".join((OURS, *PEERS)))
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="bytes")
    parser.add_argument("--callers", default=",".join(map(str, CALLERS)))
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--window-ms", type=int)
    given = parser.parse_args(arguments)
    sides = tuple(given.sides.split(","))
    if unknown := set(sides) - {OURS, *PEERS}:
        parser.error(f"no side named {unknown.pop()} ({', '.join((OURS, *PEERS))})")
    cells = tuple(
        Cell(int(size), int(callers))
        for size in given.sizes.split(",")
        for callers in given.callers.split(",")
    )
    return Plan(
        sides=sides,
        cells=cells,
        rounds=given.rounds or (3 if given.quick else 5),
        window_ms=given.window_ms or (200 if given.quick else 800),
    )


def start(cluster: Cluster, sides: tuple[str, ...]) -> tuple[Driver, dict[str, str]]:
    """Start the sides and the load generator; which sides could not be started, and why."""
    say("compiling the peers")
    ebin, port_echo = programs.load_generator(), programs.port_echo()
    missing = {}
    if "beam" in sides:
        start_elixir(cluster, "beam", ebin, "Ringbridge.Bench.Echo.start()")
    if "ei" in sides:
        ei = cluster.spawn([str(programs.ei_echo()), "ei"], log="ei")
        cluster.wait_for_node("ei", ei)
    if OURS in sides:
        try:
            cluster.start_bridge("bridge")
        except ClusterError as error:
            missing[OURS] = f"ours, because {error}"
    nodes = [full("bridge"), full("beam"), full("ei"), full("python"), str(port_echo)]
    process = cluster.spawn(
        elixir("load", ebin, f"Ringbridge.Bench.Load.main({json.dumps(nodes)})"),
        log="load",
        pipes=True,
    )
    load = Driver(process, lambda: cluster.tail("load"))
    if load.expect() != "ready":
        raise ClusterError(f"the load generator is not ready{cluster.tail('load')}")
    return load, missing


def start_elixir(cluster: Cluster, name: str, ebin: Path, expression: str) -> None:
    process = cluster.spawn(elixir(name, ebin, expression), log=name)
    cluster.wait_for_node(name, process)


def elixir(name: str, ebin: Path, expression: str) -> list[str]:
    listen = "-kernel inet_dist_use_interface {127,0,0,1}"
    return [
        "elixir",
        "--name",
        full(name),
        "--erl",
        listen,
        "-pa",
        str(ebin),
        "--no-halt",
        "-e",
        expression,
    ]


def run(load: Driver, plan: Plan) -> tuple[dict[Cell, dict[str, list[Sample | None]]], list[Any]]:
    """All samples, and the cache-line round trip at the start of each round."""
    results: dict[Cell, dict[str, list[Sample | None]]] = {
        cell: {side: [] for side in plan.sides} for cell in plan.cells
    }
    lines_ns = []
    for side in plan.sides:  # connections are made and code is loaded before anything counts
        load.ask(f"run {side} 16 16 200")
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


def cache_line_ns() -> Any:
    done = subprocess.run([programs.cache_line()], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def ring_rows() -> list[dict[str, Any]]:
    """The link's rings, there and back, beside the machine's cache-line round trip (csrc/bench)."""
    say("the ring")
    run = ["make", "-s", "-C", "csrc", "../build/bench/ring"]
    subprocess.run(run, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    told = subprocess.run(
        [ROOT / "build/bench/ring", "--json"], check=True, capture_output=True, text=True
    )
    return [json.loads(line) for line in told.stdout.splitlines()]


def python_answers(cluster: Cluster, load: Driver, plan: Plan) -> list[dict[str, Any]]:
    """Started late, so that it takes no core from the sides that ran before."""
    if "beam" not in plan.sides:
        return []
    say("a node in Python")
    program = [sys.executable, "-m", "integration.bench.peers.python_echo", full("python")]
    process = cluster.spawn(program, log="python", env={"RINGBRIDGE_COOKIE": cluster.cookie})
    cluster.wait_for_node("python", process)
    for side in python_calls.SIDES:
        load.ask(f"run {side} 16 16 200")
    rows = python_calls.rows(load, say, rounds=plan.rounds, window_ms=plan.window_ms)
    cluster.stop(process)
    return rows


def memory_rows() -> list[dict[str, Any]]:
    say("memory")
    return memory.rows()


def codec_rows() -> list[dict[str, Any]]:
    say("the term codec")
    return list(codec.rows())


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


def print_report(
    report: dict[str, Any],
    results: dict[Cell, dict[str, list[Sample | None]]],
    sides: tuple[str, ...],
    others: list[dict[str, Any]],
) -> None:
    here = report["machine"]
    print(
        f"\n{here['cpus']} x {here['model']}, Linux {here['kernel']}, OTP {here['otp']}, "
        f"Python {here['python']}, load average {here['load_average_1min']}"
    )
    known = [line["median_ns"] for line in report["cache_line_round_trip_ns"] if line]
    if known:
        spread = f"{min(known):.0f} to {max(known):.0f} ns over the rounds"
        print(f"cache line from core to core and back: {spread}")
    for side in sides:
        if side in PEERS:
            print(f"  {table.SHORT[side]:<5} {PEERS[side]}")
    print()
    print(*table.lines_of(results, sides), sep="\n")
    if others:
        print("\nOther work (ours beside the peer, ratio)")
        print(*map(table.row_line, others), sep="\n")
    if report["hops"]:
        print("\nWhere the time of one 16 B call goes")
        for hop in report["hops"]:
            print(f"  {hop['hop']:<40} {hop['us']:>8.1f} us   {hop['how']}")


def say(line: str) -> None:
    print(f"bench: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
