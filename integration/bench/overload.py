"""An open loop of 1 ms jobs at 80 % of what the role can do, and at twice of it.

Open: calls come when they come (a Poisson process), whether others were answered or not. The role
has one worker and a short queue, so that who is accepted waits for a bounded time and everyone
else is told at once when to come again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from integration.bench.figures import single
from integration.cluster import Cluster, Driver, full

DEPTH = 8
CONFIG = """
[node]
name = "overload@127.0.0.1"
[roles.sleep]
command = ["build/bin/rb-sleep"]
workers = 1
depth_max = {depth}
"""


def rows(
    cluster: Cluster, load: Driver, say: Callable[[str], None], *, seconds: float
) -> list[dict[str, Any]]:
    bridge = cluster.start_bridge(
        "overload", cluster.config("overload", CONFIG.format(depth=DEPTH))
    )
    try:
        load.ask(f"bridge overload {full('overload')}")
        capacity = _capacity(load, seconds)
        calm = _open(load, 0.8 * capacity, seconds)
        flood = _open(load, 2.0 * capacity, seconds)
    finally:
        cluster.stop(bridge)
    say(f"overload: {capacity:,.0f} jobs/s of 1 ms at most; at 80 % {calm}; at 2 x {flood}")
    return [
        single("2 x overload, p99 of accepted", "80 % load", flood["p99"], calm["p99"], "us"),
        single("2 x overload, median of accepted", "80 % load", flood["p50"], calm["p50"], "us"),
        single("2 x overload, p99 of refusals", None, flood["refused_p99"], None, "us"),
        single("2 x overload, accepted", "capacity", flood["ok"] / seconds, capacity, "jobs/s"),
        single("2 x overload, neither answered nor refused", None, flood["other"], None, "jobs"),
    ]


def _capacity(load: Driver, seconds: float) -> float:
    """What four callers in a closed loop get: there is always a job waiting."""
    word, *numbers = load.ask(f"closed overload sleep 1 4 {seconds * 1000:.0f}").split()
    if word != "result":
        raise RuntimeError(" ".join(numbers))
    calls, us = map(int, numbers)
    return calls * 1e6 / us


def _open(load: Driver, rate: float, seconds: float) -> dict[str, float]:
    word, *numbers = load.ask(f"open overload sleep 1 {rate:.0f} {seconds * 1000:.0f}").split()
    if word != "result":
        raise RuntimeError(" ".join(numbers))
    ok, p50, p99, refused, _refused_p50, refused_p99, other = map(int, numbers)
    return {
        "ok": ok,
        "p50": p50 / 1e3,
        "p99": p99 / 1e3,
        "refused": refused,
        "refused_p99": refused_p99 / 1e3,
        "other": other,
    }
