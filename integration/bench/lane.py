"""The lane over shared memory beside a {packet, 4} Port with a C echo, in one VM.

lane    Ringbridge.Lane.Nif by itself: what a GenServer.call is to the distribution
client  Ringbridge.call over it: options, deadline, telemetry, choice of the bridge
dist    the same call over the distribution
port    each caller writes to the Port itself, its owner hands on the answers: as good as one gets

One caller is measured twice more, with everything pinned: the VM on one CPU and the other side on
another, and all on one. These are the two modes that a Port's round trip has (about 50 and 9 us).
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from integration.bench import programs
from integration.bench.figures import middle, ratios, single, spread
from integration.cluster import ROOT, Cluster, Driver, full

EBIN = ROOT / "build/mix/dev/lib/ringbridge/ebin"
SIDES = ("lane", "port", "client", "dist")
KIB, MIB = 1 << 10, 1 << 20
# Size and callers; those of one caller are told by their median.
CELLS = ((16, 128), (64 * KIB, 1), (64 * KIB, 16), (MIB, 1), (MIB, 4))

Say = Callable[[str], None]
Elixir = Callable[[str, Path, str], list[str]]


@dataclass(frozen=True)
class Result:
    rate: float
    p50_us: float
    p99_us: float
    errors: int
    long: int
    sent: int

    @classmethod
    def parse(cls, answer: str) -> Result:
        word, *numbers = answer.split()
        if word != "result":
            raise RuntimeError(f"the lane's load says {answer}")
        calls, errors, us, p50, p99, long, sent = map(int, numbers)
        return cls(calls * 1e6 / us, p50 / 1e3, p99 / 1e3, errors, long, sent)


def rows(
    cluster: Cluster, bridge_pid: int, elixir: Elixir, say: Say, *, rounds: int, window_ms: int
) -> list[dict[str, Any]]:
    script = json.dumps(str(Path(__file__).with_name("lane_rates.exs")))
    names = f":{json.dumps(full('bridge'))}, {json.dumps(str(programs.port_echo()))}"
    expression = f"Code.require_file({script}); LaneRates.main({names})"
    vm = cluster.spawn(elixir("lanes", EBIN, expression), log="lanes", pipes=True)
    load = Driver(vm, lambda: cluster.tail("lanes"))
    try:
        if (said := load.expect()) != "ready":
            say(f"the lane: {said}{cluster.tail('lanes')}")
            return []
        return list(_measured(load, vm.pid, bridge_pid, say, rounds, window_ms))
    finally:
        cluster.stop(vm)


def _measured(
    load: Driver, vm_pid: int, bridge_pid: int, say: Say, rounds: int, window_ms: int
) -> Iterator[dict[str, Any]]:
    for side in SIDES:
        load.ask(f"run {side} 16 16 300")
    held = 0
    for size, callers in CELLS:
        taken = _in_turn(load, size, callers, rounds, window_ms)
        held += sum(result.long for result in taken["lane"])
        what = f"NIF lane, {_size(size)}, {callers} caller{'' if callers == 1 else 's'}, rate"
        yield from _beside_port(what, taken, "calls/s", lambda result: result.rate, say)
    for name, pins in (("apart", (0, 1)), ("on one CPU", (0, 0))):
        _pin(vm_pid, pins[0])
        for pid in [bridge_pid, *_children(vm_pid)]:
            _pin(pid, pins[1])
        taken = _in_turn(load, 16, 1, rounds, window_ms)
        held += sum(result.long for result in taken["lane"])
        what = f"NIF lane, 16 B, 1 caller, pinned {name}, median"
        yield from _beside_port(what, taken, "us", lambda result: result.p50_us, say)
    _pin(bridge_pid, None)
    row = single("NIF lane, long_schedule (1 ms) in all of it", None, held, None, "times")
    say(f"{row['work']}: {held}")
    yield row


def _in_turn(
    load: Driver, size: int, callers: int, rounds: int, window_ms: int
) -> dict[str, list[Result]]:
    taken: dict[str, list[Result]] = {side: [] for side in SIDES}
    for number in range(rounds):
        for side in SIDES if number % 2 == 0 else SIDES[::-1]:
            answer = load.ask(f"run {side} {size} {callers} {window_ms}")
            taken[side].append(Result.parse(answer))
    return taken


def _beside_port(
    what: str,
    taken: dict[str, list[Result]],
    unit: str,
    figure: Callable[[Result], float],
    say: Say,
) -> Iterator[dict[str, Any]]:
    values = {side: [figure(result) for result in results] for side, results in taken.items()}
    row = {
        "work": what,
        "beside": "port",
        "ours": middle(values["lane"]),
        "peer": middle(values["port"]),
        "unit": unit,
        "ratio": spread(ratios(values["lane"], values["port"])),
        "errors": sum(result.errors for results in taken.values() for result in results),
        "client": middle(values["client"]),
        "dist": middle(values["dist"]),
    }
    say(
        f"{what}: {row['ours']} beside {row['peer']} {unit} (port); "
        f"Ringbridge.call {row['client']}, distribution {row['dist']}"
    )
    yield row


def _size(size: int) -> str:
    return (
        f"{size} B" if size < KIB else f"{size // KIB} KiB" if size < MIB else f"{size // MIB} MiB"
    )


def _pin(pid: int, cpu: int | None) -> None:
    """A process with all of its threads and descendants; None: on all CPUs again."""
    cpus = str(cpu) if cpu is not None else f"0-{(os.cpu_count() or 1) - 1}"
    for one in (pid, *_children(pid)):
        command = ["taskset", "-a", "-p", "-c", cpus, str(one)]
        subprocess.run(command, check=False, capture_output=True)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            direct = [int(word) for word in task.read_text().split()]
        except OSError:
            continue
        for child in direct:
            found += [child, *_children(child)]
    return found
