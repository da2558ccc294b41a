"""Roles with a sandbox and limits in a real bridge: they work, and what they break is told."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from serve_support import BIN, Serving, ask, serving

from bridge.testing import HOST, Beam, EpmdDaemon
from bridge.workers import _landlock

pytestmark = [
    pytest.mark.beam,
    pytest.mark.skipif(shutil.which("elixir") is None, reason="no Elixir here"),
    pytest.mark.skipif(not (BIN / "rb-conformance").exists(), reason="the workers are not built"),
]
# Of every kit in a language without an interpreter, which would want its own files.
KITS = [name for name in ("", "-rust", "-zig") if (BIN / f"rb-conformance{name}").exists()]
TIGHT = """
sandbox = { syscalls = "strict", network = false, write = [], read = [] }
limits = { memory_bytes = 268_435_456, open_files = 32, core_bytes = 0, nice = 1 }
"""


def role(name: str, program: Path, *more: str) -> str:
    return f'[roles."{name}"]\ncommand = ["{program}"]\n' + "\n".join(more) + "\n"


async def submit(beam: Beam, bridge: Serving, name: str, payload: str, options: str = "%{}") -> str:
    return await ask(
        beam,
        f'GenServer.call({bridge.target()}, {{:submit, "{name}", {payload}, {options}}}, 10_000)',
    )


@pytest.mark.skipif(not _landlock.available(), reason="no Landlock here")
async def test_workers_of_each_kit_work_behind_every_wall(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    """Small and large jobs, both ways, under the strict filter, without network or files."""
    roles = [role(f"tight{kit}", BIN / f"rb-conformance{kit}", TIGHT) for kit in KITS]
    settings = f'[node]\nadmin_nodes = ["*@{HOST}"]\n' + "\n".join(roles)
    async with serving(epmd, tmp_path, alive="sandbox_kits", settings=settings) as bridge:
        await bridge.wait_workers(len(KITS))
        for kit in KITS:
            name = f"tight{kit}"
            assert await submit(beam, bridge, name, '"small"') == '{:ok, "small"}', kit
            large = await ask(
                beam,
                f"""payload = String.duplicate("x", 1_000_000)
                {{:ok, answer}} =
                  GenServer.call({bridge.target()}, {{:submit, "{name}", payload}}, 10_000)
                answer == payload""",
            )
            assert large == "true", kit
            late = await submit(
                beam, bridge, name, "<<5000::little-32>>", "%{opcode: 2, timeout: 50}"
            )
            assert late == "{:error, :deadline_exceeded}", kit
            assert await submit(beam, bridge, name, '"again"') == '{:ok, "again"}', kit


@pytest.mark.skipif(os.getuid() != 0, reason="only root can run workers as another user")
async def test_a_role_runs_as_its_user_and_a_change_of_it_is_an_upgrade(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    if not _anybody_can_reach(BIN):
        pytest.skip("the tree lies where only its owner can read")
    program = BIN / "rb-echo"
    settings = f'[node]\nadmin_nodes = ["*@{HOST}"]\n' + role("echo", program, 'cwd = "/"')
    async with serving(epmd, tmp_path, alive="sandbox_user", settings=settings) as bridge:
        first = (await bridge.wait_log("worker ready"))["os_pid"]
        assert _uid(first) == 0
        file = tmp_path / "ringbridge.toml"
        file.write_text(settings + '[roles.echo.sandbox]\nuser = "nobody"\n')
        answer = await ask(
            beam, f"GenServer.call({bridge.target('Ringbridge.WorkerRegistry')}, :reload)"
        )
        assert "roles.echo.sandbox.user" in answer
        second = (await bridge.wait_log("worker ready", 2))["os_pid"]
        assert _uid(second) == 65534
        await bridge.wait_log("upgrade done")
        assert await submit(beam, bridge, "echo", '"x"') == '{:ok, "x"}'


async def test_a_job_that_takes_too_much_memory_is_answered_with_oom(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    """An answer of 48 MiB lies in the worker's own memory; its cap is 24 MiB."""
    limits = "limits = { memory_bytes = 25_165_824 }"
    settings = role("hog", BIN / "rb-conformance", limits)
    async with serving(epmd, tmp_path, alive="sandbox_oom", settings=settings) as bridge:
        await bridge.wait_workers(1)
        payload = "<<50_331_648::little-64, 0>>"
        answer = await submit(beam, bridge, "hog", payload, "%{opcode: 5}")
        if "memory_cap" in answer or answer.startswith("{:ok"):
            pytest.skip("no memory control group of our own to be had here")
        assert "worker_crashed" in answer
        assert "oom: true" in answer
        assert "signal: 9" in answer
        ended = await bridge.wait_log("worker failed")
        assert "out of memory" in ended["why"]
        await bridge.wait_workers(2)  # started again
        assert await submit(beam, bridge, "hog", '"x"') == '{:ok, "x"}'


async def test_what_a_worker_writes_to_its_terminal_is_logged_line_by_line(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    """Its C library would keep a line back in a pipe."""
    program = tmp_path / "talks"
    program.write_text(f'#!/bin/sh\ntest -t 1 && echo "a terminal"\nexec {BIN}/rb-echo\n')
    program.chmod(0o755)
    settings = role("echo", program, "terminal = true")
    async with serving(epmd, tmp_path, alive="sandbox_tty", settings=settings) as bridge:
        await bridge.wait_workers(1)
        line = await bridge.wait_log("worker output")
        assert (line["stream"], line["line"]) == ("stdout", "a terminal")
        assert await submit(beam, bridge, "echo", '"x"') == '{:ok, "x"}'
        assert await bridge.terminate() == 0


async def test_a_role_whose_limits_cannot_be_had_says_which_step_failed(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    settings = role("echo", BIN / "rb-echo", "limits = { open_files = 1_073_741_824 }")
    async with serving(epmd, tmp_path, alive="sandbox_step", settings=settings) as bridge:
        failed = await bridge.wait_log("worker failed")
        assert "(limits)" in failed["why"]
        assert "Operation not permitted" in failed["why"]


def _uid(pid: int) -> int:
    return os.stat(f"/proc/{pid}").st_uid


def _anybody_can_reach(place: Path) -> bool:
    return all(folder.stat().st_mode & 0o001 for folder in (place, *place.parents))
