"""Workers that are Erlang processes: calls through the bridge to a BeamWorkerLoop, and without one.

remote     the role echo of a bridge whose only worker is a loop on another node: jobs are messages
linked     the same, with the jobs in memory that the loop shares with the relay
local      the same loop at a LocalBridge in one VM: no distribution, no native part
ring       an InMemoryRing between two processes
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from integration.bench.figures import OURS, Sample, middle, ratios, single, spread
from integration.cluster import ROOT, Cluster, Driver, full

SIDES = {"remote": ":dist", "linked": ":nif"}
CONFIG = """
[node]
name = "NAME@127.0.0.1"
[roles.echo]
workers = 0
[roles.echo.remote]
nodes = ["*@127.0.0.1"]
"""
EBIN = ROOT / "build/mix/dev/lib/ringbridge/ebin"
WORKER = """
defmodule Echo do
  def handle_job(job, _state), do: {:ok, job.payload}
end
options = [bridge: :"BRIDGE", role: "echo", module: Echo, slots: 4, credit: 64, lane: LANE]
{:ok, loop} = Ringbridge.BeamWorkerLoop.start_link(options)
Process.unlink(loop)
Process.sleep(:infinity)
"""
CALLERS = (1, 128)

Say = Callable[[str], None]
Elixir = Callable[[str, Path, str], list[str]]


def rows(
    cluster: Cluster, load: Driver, elixir: Elixir, say: Say, *, rounds: int, window_ms: int
) -> list[dict[str, Any]]:
    """Rates beside those of a native worker, taken in turn; then what a VM does by itself."""
    started: list[Any] = []
    made = []
    try:
        for name, lane in SIDES.items():
            config = CONFIG.replace("NAME", name)
            started.append(cluster.start_bridge(name, cluster.config(name, config)))
            expression = WORKER.replace("BRIDGE", full(name)).replace("LANE", lane)
            started.append(
                cluster.spawn(elixir(f"loop-{name}", EBIN, expression), log=f"loop-{name}")
            )
            load.ask(f"bridge {name} {full(name)}")
            _until_served(cluster, load, name)
        for callers in CALLERS:
            made += _beside_a_native_worker(load, say, callers, rounds, window_ms)
    finally:
        for process in reversed(started):
            cluster.stop(process)
    return made + _alone(cluster, elixir, say, window_ms)


def _beside_a_native_worker(
    load: Driver, say: Say, callers: int, rounds: int, window_ms: int
) -> list[dict[str, Any]]:
    """A row for each side; the sides take turns."""
    sides = (*SIDES, OURS)
    rates: dict[str, list[float | None]] = {side: [] for side in sides}
    for number in range(rounds):
        for side in sides[number % 3 :] + sides[: number % 3]:
            sample = Sample.parse(load.ask(f"run {side} 16 {callers} {window_ms}"))
            rates[side].append(sample.rate if sample else None)
    made = []
    for side in SIDES:
        how = "by messages" if side == "remote" else "by shared memory"
        row = {
            "work": f"call to a worker in Elixir, {how}, 16 B, {callers} callers, rate",
            "beside": "a native worker",
            "ours": middle(rates[side]),
            "peer": middle(rates[OURS]),
            "unit": "calls/s",
            "ratio": spread(ratios(rates[side], rates[OURS])),
        }
        say(f"{row['work']}: {row['ours']} beside {row['peer']}")
        made.append(row)
    return made


def _until_served(cluster: Cluster, load: Driver, name: str) -> None:
    """The loop registers by itself; until then each call is refused."""
    answer = ""
    for _ in range(100):
        answer = load.ask(f"run {name} 16 1 100")
        sample = Sample.parse(answer)
        if sample and sample.rate and answer.split()[2] == "0":
            return
        time.sleep(0.1)
    raise RuntimeError(f"the loop has not registered: {answer}{cluster.tail(f'loop-{name}')}")


def _alone(cluster: Cluster, elixir: Elixir, say: Say, window_ms: int) -> list[dict[str, Any]]:
    script = json.dumps(str(Path(__file__).with_name("local_rates.exs")))
    expression = f"window_ms = {window_ms}; Code.eval_file({script}); System.halt(0)"
    vm = cluster.spawn(elixir("alone", EBIN, expression), log="alone", pipes=True)
    assert vm.stdout is not None
    told = vm.stdout.read()
    made = []
    for line in told.splitlines():
        work, rate, unit = line.split("\t")
        say(f"{work}: {float(rate):,.0f} {unit}")
        made.append(single(work, None, float(rate), None, unit))
    return made
