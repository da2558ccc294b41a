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
    ended: list[tuple[Any, float]] = []

    async def call() -> None:
        answer = await bridge.submit(b"60000")
        ended.append((answer, time.monotonic()))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        worker = await bridge.until(lambda worker: worker["in_flight"] > 0)
        await trio.sleep(BEGUN_S)
        killed = time.monotonic()
        os.kill(worker["os_pid"], signal.SIGKILL)
        while not ended:
            answer = await bridge.submit(b"0")
            next_answered = time.monotonic()
            assert answer == (Atom("ok"), b"0"), answer
            await trio.lowlevel.checkpoint()
            if not ended:  # it is run again: end it, so that the next round is clean
                os.kill((await bridge.ready())["os_pid"], signal.SIGKILL)
                nursery.cancel_scope.cancel()
                return None
    match ended:
        case [((Atom("error"), (Atom("worker_crashed"), _)), at)]:
            return at - killed, next_answered - killed
    return None


async def _come_back(bridge: _Bridge) -> float:
    worker = await bridge.ready()
    await bridge.registry((Atom("drain"), worker["id"]))
    await bridge.until(lambda worker: worker["state"] == Atom("drained"))
    asked = time.monotonic()
    await bridge.registry((Atom("restart"), worker["id"]))
    answer = await bridge.submit(b"0")
    assert answer == (Atom("ok"), b"0"), answer
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
