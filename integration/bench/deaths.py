"""How soon a worker's death is over: for its caller, and for those who come after him.

    crash to answered caller        SIGKILL in a job, until its caller is told worker_crashed
    crash to a working replacement  the same, until a job that came right after it is answered
    spawn to first job              a drained worker is asked back, until it has done a job

The caller is a node of its own, in Python: what it adds is in the figures. The role has one worker
of the C kit and the default backoff of a first crash (25 to 50 ms); it does not grow here, as it
would for a worker that is killed again and again.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import trio

from bridge.etf import Atom
from bridge.node import Node, open_node
from integration.bench.figures import single
from integration.cluster import ROOT, Cluster, full

NAME = "deaths"
CONFIG = """
[node]
name = "deaths@127.0.0.1"
admin_nodes = ["*@127.0.0.1"]
[roles.sleep]
command = ["build/bin/rb-sleep"]
workers = 1
max_restarts = 10_000
backoff_max_ms = 50
"""
# Nothing outside tells that a job has begun; it has by then, or its answer is not counted.
BEGUN_S = 0.02
LOOK_S = 0.002
LONG, SHORT = b"60000", b"0"  # jobs of the role sleep, in ms
# A caller is told within milliseconds; past this his job is the next worker's.
AGAIN_S = 1.0

Say = Callable[[str], None]


def rows(cluster: Cluster, say: Say, *, count: int) -> list[dict[str, Any]]:
    bridge = cluster.start_bridge(NAME, cluster.config(NAME, CONFIG))
    try:
        told = subprocess.run(
            [sys.executable, "-m", __spec__.name, str(count)],
            cwd=ROOT,
            env={**cluster.environment, "RINGBRIDGE_COOKIE": cluster.cookie},
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        cluster.stop(bridge)
    made = []
    for work, times_ms in json.loads(told.stdout).items():
        ordered = sorted(times_ms)
        p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
        say(f"{work}: {median(ordered):.1f} ms, p99 {p99:.1f} ms ({len(ordered)} times)")
        made.append(single(f"{work}, p99", None, p99, None, "ms"))
        made.append(single(f"{work}, median", None, median(ordered), None, "ms"))
    return made


class _Bridge:
    def __init__(self, node: Node) -> None:
        self._node = node

    async def submit(self, payload: bytes) -> Any:
        request = (Atom("submit"), Atom("sleep"), payload)
        return await self._node.call(("job_dispatcher", full(NAME)), request, timeout=60.0)

    async def registry(self, request: Any) -> Any:
        return await self._node.call(("worker_registry", full(NAME)), request, timeout=60.0)

    async def worker(self) -> Any:
        _, [worker] = await self.registry(Atom("list"))
        return {key.name: value for key, value in worker.items()}

    async def until(self, condition: Callable[[Any], bool]) -> Any:
        """The worker, once `condition` holds of it; it is asked every 2 ms."""
        while not condition(worker := await self.worker()):  # noqa: ASYNC110 - another process
            await trio.sleep(LOOK_S)
        return worker

    async def ready(self) -> Any:
        return await self.until(lambda worker: worker["state"] == Atom("ready"))


async def _die_once(bridge: _Bridge) -> tuple[float, float] | None:
    """Seconds until the caller was answered, and until the next one was; None: it had not begun."""
    await bridge.ready()
    told: dict[bytes, tuple[Any, float]] = {}
    answered = trio.Event()

    async def call(payload: bytes) -> None:
        answer = await bridge.submit(payload)
        told[payload] = answer, time.monotonic()
        if payload == LONG:
            answered.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, LONG)
        worker = await bridge.until(lambda worker: worker["in_flight"] > 0)
        await trio.sleep(BEGUN_S)
        killed = time.monotonic()
        os.kill(worker["os_pid"], signal.SIGKILL)
        nursery.start_soon(call, SHORT)
        with trio.move_on_after(AGAIN_S):
            await answered.wait()
        if not answered.is_set():  # it runs again, for a minute: leave it, which ends it
            nursery.cancel_scope.cancel()
            return None
    crashed, next_ = told[LONG], told[SHORT]
    assert next_[0] == (Atom("ok"), SHORT), next_
    match crashed[0]:
        case (Atom("error"), (Atom("worker_crashed"), _)):
            return crashed[1] - killed, next_[1] - killed
    return None


async def _come_back(bridge: _Bridge) -> float:
    worker = await bridge.ready()
    await bridge.registry((Atom("drain"), worker["id"]))
    await bridge.until(lambda worker: worker["state"] == Atom("drained"))
    asked = time.monotonic()
    await bridge.registry((Atom("restart"), worker["id"]))
    answer = await bridge.submit(SHORT)
    assert answer == (Atom("ok"), SHORT), answer
    return time.monotonic() - asked


async def _measure(count: int) -> dict[str, list[float]]:
    cookie = os.environ["RINGBRIDGE_COOKIE"]
    async with open_node(full("deaths_caller"), cookie=cookie, listen=False) as node:
        bridge = _Bridge(node)
        answered, replaced = list[float](), list[float]()
        while len(answered) < count:
            if (once := await _die_once(bridge)) is not None:
                answered.append(once[0] * 1e3)
                replaced.append(once[1] * 1e3)
        spawned = [await _come_back(bridge) * 1e3 for _ in range(max(count // 4, 5))]
    return {
        "crash to answered caller": answered,
        "crash to a working replacement": replaced,
        "spawn to first job": spawned,
    }


if __name__ == "__main__":
    print(json.dumps(trio.run(_measure, int(sys.argv[1]))))
