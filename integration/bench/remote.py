"""Workers that are Erlang processes: calls through the bridge to a BeamWorkerLoop, and without one.

remote     the role echo of a bridge whose only worker is a loop on another node
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

NAME = "remote"
CONFIG = """
[node]
name = "remote@127.0.0.1"
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
options = [bridge: :"BRIDGE", role: "echo", module: Echo, slots: 4, credit: 64]
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
    bridge = cluster.start_bridge(NAME, cluster.config(NAME, CONFIG))
    expression = WORKER.replace("BRIDGE", full(NAME))
    worker = cluster.spawn(elixir("loop", EBIN, expression), log="loop")
    made = []
    try:
        load.ask(f"bridge {NAME} {full(NAME)}")
        _until_served(cluster, load)
        for callers in CALLERS:
            rates: dict[str, list[float | None]] = {NAME: [], OURS: []}
            for number in range(rounds):
                for side in (NAME, OURS) if number % 2 == 0 else (OURS, NAME):
                    sample = Sample.parse(load.ask(f"run {side} 16 {callers} {window_ms}"))
                    rates[side].append(sample.rate if sample else None)
            row = {
                "work": f"call to a remote worker in Elixir, 16 B, {callers} callers, rate",
                "beside": "a native worker",
                "ours": middle(rates[NAME]),
                "peer": middle(rates[OURS]),
                "unit": "calls/s",
                "ratio": spread(ratios(rates[NAME], rates[OURS])),
            }
            say(f"{row['work']}: {row['ours']} beside {row['peer']}")
            made.append(row)
    finally:
        cluster.stop(worker)
        cluster.stop(bridge)
    return made + _alone(cluster, elixir, say, window_ms)


def _until_served(cluster: Cluster, load: Driver) -> None:
    """The loop registers by itself; until then each call is refused."""
    answer = ""
    for _ in range(100):
        answer = load.ask(f"run {NAME} 16 1 100")
        sample = Sample.parse(answer)
        if sample and sample.rate and answer.split()[2] == "0":
            return
        time.sleep(0.1)
    raise RuntimeError(f"the loop has not registered: {answer}{cluster.tail('loop')}")


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
