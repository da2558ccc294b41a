"""Hooks that make trouble in workers on purpose: what their callers see, by docs/errors.md."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from serve_support import BIN, LIBRARY, ROOT, Serving, ask, serving

from bridge.testing import HOST, Beam, EpmdDaemon

pytestmark = [
    pytest.mark.beam,
    pytest.mark.skipif(shutil.which("elixir") is None, reason="no Elixir here"),
    pytest.mark.skipif(not LIBRARY.exists(), reason="the kit is not built"),
]

SETTINGS = f"""
[node]
admin_nodes = ["*@{HOST}"]
[roles.troubled]
command = ["{ROOT}/build/bin/rb-echo"]
chaos = true
hang_ms = 1_000
backoff_min_ms = 1
max_restarts = 1000
[roles.calm]
command = ["{ROOT}/build/bin/rb-echo"]
"""

PRELUDE = """
call = fn text -> GenServer.call(dispatcher, {:submit, :troubled, text}, 20_000) end
registry = put_elem(dispatcher, 0, Ringbridge.WorkerRegistry)
workers = fn role -> {:ok, %{workers: found}} = GenServer.call(registry, {:lookup, role}); found end
id = fn role -> Enum.find_value(1..500, fn _ ->
  Enum.find_value(workers.(role), &(&1.state == :ready && &1.id)) || (Process.sleep(20); nil)
end) end
hook = fn name, value, jobs ->
  GenServer.call(registry, {:chaos, id.(:troubled), name, value, jobs}, 20_000)
end
on = fn name, value, jobs -> {:ok, %{hook: _, worker: _}} = hook.(name, value, jobs) end
why = fn {:error, reason} when is_atom(reason) -> reason
         {:error, reason} -> elem(reason, 0)
         {:ok, _} = ok -> ok end
"""


class Troubled:
    def __init__(self, bridge: Serving, beam: Beam) -> None:
        self._bridge, self._beam = bridge, beam

    async def __call__(self, code: str) -> str:
        return await ask(self._beam, f"dispatcher = {self._bridge.target()}\n{PRELUDE}\n{code}")


@asynccontextmanager
async def troubled(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path, worker: str = "rb-echo"
) -> AsyncIterator[Troubled]:
    settings = SETTINGS.replace("rb-echo", worker, 1)
    async with serving(epmd, tmp_path, alive="hooks", settings=settings) as bridge:
        yield Troubled(bridge, beam)


SEEN = {
    ("stall", 50): '{:ok, "a"}',
    ("crash", 9): ":worker_crashed",
    ("crash", 11): ":worker_crashed",
    ("oversize", 1): ":job_failed",
    ("corrupt", 1): ":worker_broke",
    ("overrun", 1): ":worker_broke",
    ("lost_wake", 0): '{:ok, "a"}',
    ("no_files", 0): '{:ok, "a"}',
}


@pytest.mark.parametrize("worker", ["rb-echo", "rb-echo-rust", "rb-echo-zig"])
async def test_a_hook_is_for_one_job_and_the_next_is_answered(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path, worker: str
) -> None:
    if not (BIN / worker).exists():
        pytest.skip(f"{worker} is not built")
    async with troubled(epmd, beam, tmp_path, worker) as ask_it:
        for (hook, value), seen in SEEN.items():
            code = f'on.(:{hook}, {value}, 1); {{why.(call.("a")), call.("b")}}'
            assert (hook, await ask_it(code)) == (hook, f'{{{seen}, {{:ok, "b"}}}}')


async def test_a_worker_that_holds_keeps_its_callers_waiting_and_no_longer(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    async with troubled(epmd, beam, tmp_path) as ask_it:
        code = (
            'on.(:hold, 300, 0); {us, got} = :timer.tc(fn -> call.("a") end); {us > 200_000, got}'
        )
        assert await ask_it(code) == '{true, {:ok, "a"}}'


async def test_a_silent_worker_is_replaced(epmd: EpmdDaemon, beam: Beam, tmp_path: Path) -> None:
    async with troubled(epmd, beam, tmp_path) as ask_it:
        code = """
        first = id.(:troubled)
        on.(:silence, 60_000, 0)
        Enum.find_value(1..500, fn _ ->
          Process.sleep(20)
          id.(:troubled) != first
        end)
        call.("a")
        """
        assert await ask_it(code) == '{:ok, "a"}'


async def test_what_is_refused_says_why(epmd: EpmdDaemon, beam: Beam, tmp_path: Path) -> None:
    async with troubled(epmd, beam, tmp_path) as ask_it:
        calm = "GenServer.call(registry, {:chaos, id.(:calm), :crash, 9, 1})"
        assert "[roles.calm] chaos = true" in await ask_it(calm)
        assert "no such hook" in await ask_it("hook.(:earthquake, 9, 1)")
        assert "small letters" in await ask_it('hook.(:"crash 9 1", 9, 1)')
        assert "numbers are" in await ask_it("hook.(:crash, -1, 1)")
        assert "numbers are" in await ask_it("hook.(:crash, 1, 10_000_000_000)")
        assert await ask_it('call.("a")') == '{:ok, "a"}'
