"""Who is hung, stuck or not ready, in a bridge with real workers and real signals (docs/health.md).

The rules one by one are csrc/tests/test_relay_vitals.c.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from serve_support import BIN, LIBRARY, ROOT, Serving, ask, built_worker, serving

from bridge.testing import Beam, EpmdDaemon

SHARED = ROOT / "build" / "libringbridge_worker.so.1"
LONG_MS = 2_500  # more than twice the hang_ms below

pytestmark = [
    pytest.mark.beam,
    pytest.mark.skipif(shutil.which("elixir") is None, reason="no Elixir here"),
    pytest.mark.skipif(not LIBRARY.exists(), reason="the C kit is not built"),
]


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the worker `paced` and the C kit as a library."""
    folder = tmp_path_factory.mktemp("health")
    built_worker(ROOT / "tests" / "app" / "paced.c", folder)
    return folder


@asynccontextmanager
async def bridge_with(
    epmd: EpmdDaemon, folder: Path, alive: str, command: list[Any], settings: str = ""
) -> AsyncIterator[Serving]:
    """One role `work`; it is ready when this is."""
    words = ", ".join(f'"{word}"' for word in command)
    text = f"[roles.work]\ncommand = [{words}]\nbackoff_min_ms = 1\nbackoff_max_ms = 5\n{settings}"
    async with serving(epmd, folder, alive=alive, settings=text) as bridge:
        await bridge.wait_workers(1)
        yield bridge


async def submit(bridge: Serving, beam: Beam, payload: str, opcode: int = 0) -> str:
    call = f'{{:submit, :work, "{payload}", %{{opcode: {opcode}, timeout: 60_000}}}}'
    return await ask(beam, f"GenServer.call({bridge.target()}, {call}, 60_000)")


async def workers(bridge: Serving, beam: Beam, what: str) -> str:
    target = bridge.target("Ringbridge.WorkerRegistry")
    return await ask(beam, f"elem(GenServer.call({target}, :list), 1) |> Enum.map({what})")


def os_pid(bridge: Serving, count: int = 1) -> int:
    """Of the `count`-th worker that got ready."""
    return int(bridge.logs("worker ready")[count - 1]["os_pid"])


def failures(bridge: Serving) -> list[str]:
    return [line["why"] for line in bridge.logs("worker failed")]


async def test_an_idle_worker_that_is_stopped_is_replaced(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    command = [BIN / "rb-sleep"]
    async with bridge_with(epmd, tmp_path, "hung_idle", command, "hang_ms = 1_000") as bridge:
        stopped = os_pid(bridge)
        os.kill(stopped, signal.SIGSTOP)
        await bridge.wait_workers(2)
        assert failures(bridge) == ["it broke a rule and was fenced: no_heartbeat"]
        assert os_pid(bridge, 2) != stopped
        assert await submit(bridge, beam, "0") == '{:ok, "0"}'


async def test_the_job_of_a_worker_that_is_stopped_is_answered_and_the_next_one_waits(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    command = [BIN / "rb-sleep"]
    async with bridge_with(epmd, tmp_path, "hung_busy", command, "hang_ms = 1_000") as bridge:
        jobs, registry = bridge.target(), bridge.target("Ringbridge.WorkerRegistry")
        answers = await ask(
            beam,
            f"""
            submit = fn payload ->
              Task.async(fn ->
                GenServer.call({jobs}, {{:submit, :work, payload, %{{timeout: 60_000}}}}, 60_000)
              end)
            end
            first = submit.("50000")
            wait = fn wait ->
              case GenServer.call({registry}, :list) do
                {{:ok, [%{{in_flight: 1}}]}} -> :ok
                _ -> Process.sleep(10); wait.(wait)
              end
            end
            wait.(wait)
            second = submit.("0")
            Process.sleep(100)
            System.cmd("kill", ["-STOP", "{os_pid(bridge)}"])
            {{Task.await(first, 60_000), Task.await(second, 60_000)}}
            """,
        )
        assert answers == '{{:error, {:worker_broke, :no_heartbeat}}, {:ok, "0"}}'


async def test_a_bridge_that_was_stopped_ends_no_worker(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    command = [BIN / "rb-sleep"]
    settings = "hang_ms = 1_000\nworkers = 3"
    async with bridge_with(epmd, tmp_path, "hung_bridge", command, settings) as bridge:
        await bridge.wait_workers(3)
        bridge.process.send_signal(signal.SIGSTOP)
        await trio.sleep(LONG_MS / 1000)
        bridge.process.send_signal(signal.SIGCONT)
        await trio.sleep(1.5)
        assert failures(bridge) == []
        assert len(bridge.logs("worker ready")) == 3
        assert await submit(bridge, beam, "0") == '{:ok, "0"}'


async def test_a_machine_that_stood_still_ends_no_worker(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    """Bridge and workers stopped together, and the workers awake last: what a suspend looks like,
    but for a clock that stands still, too.
    """
    command = [BIN / "rb-sleep"]
    async with bridge_with(epmd, tmp_path, "hung_machine", command, "hang_ms = 1_500") as bridge:
        worker = os_pid(bridge)
        bridge.process.send_signal(signal.SIGSTOP)
        os.kill(worker, signal.SIGSTOP)
        await trio.sleep(LONG_MS / 1000)
        bridge.process.send_signal(signal.SIGCONT)
        await trio.sleep(0.2)
        os.kill(worker, signal.SIGCONT)
        await trio.sleep(1.5)
        assert failures(bridge) == []
        assert await submit(bridge, beam, "0") == '{:ok, "0"}'


async def test_an_honest_job_that_holds_the_interpreters_lock_is_left_alone(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path, programs: Path
) -> None:
    command = [sys.executable, ROOT / "tests" / "app" / "gil_holder.py", SHARED]
    async with bridge_with(epmd, tmp_path, "gil", command, "hang_ms = 1_000") as bridge:
        assert await submit(bridge, beam, str(LONG_MS)) == '{:ok, "held"}'
        assert failures(bridge) == []


async def test_a_job_without_a_sign_is_ended_and_one_that_pulses_is_not(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path, programs: Path
) -> None:
    command = [programs / "paced"]
    settings = "progress_timeout_ms = 600"
    async with bridge_with(epmd, tmp_path, "stuck", command, settings) as bridge:
        assert re.match(r'\{:ok, "\d+"\}', await submit(bridge, beam, str(LONG_MS)))
        assert failures(bridge) == []
        answer = await submit(bridge, beam, "60000", opcode=1)
        assert answer == "{:error, {:worker_broke, :no_progress}}"
        await bridge.wait_workers(2)
        assert failures(bridge) == ["it broke a rule and was fenced: no_progress"]
        await trio.sleep(1)  # without a job nobody is stuck
        assert re.match(r'\{:ok, "\d+"\}', await submit(bridge, beam, "0"))
        assert len(failures(bridge)) == 1


async def test_a_worker_that_is_not_ready_gets_nothing_new_and_its_figures_say_so(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path, programs: Path
) -> None:
    command = [programs / "paced"]
    async with bridge_with(epmd, tmp_path, "unready", command, "workers = 2") as bridge:
        await bridge.wait_workers(2)
        shy = (await submit(bridge, beam, "1500", opcode=2)).split('"')[1]
        # It is told at once, but by another way than its answer.
        while "false" not in await workers(bridge, beam, "& &1.health.ready"):  # noqa: ASYNC110
            await trio.sleep(0.02)
        ran = {(await submit(bridge, beam, "0", opcode=3)).split('"')[1] for _ in range(9)}
        if "false" in await workers(bridge, beam, "& &1.health.ready"):  # it was, all the time
            assert len(ran) == 1
            assert shy not in ran
        while "false" in await workers(bridge, beam, "& &1.health.ready"):  # noqa: ASYNC110
            await trio.sleep(0.05)
        assert failures(bridge) == []
