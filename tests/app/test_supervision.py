"""Strategies and groups with real workers, killed by real signals and seen from a real BEAM."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from serve_support import BIN, Serving, ask, serving, wait_until

from bridge.testing import HOST, Beam, EpmdDaemon

pytestmark = [
    pytest.mark.beam,
    pytest.mark.skipif(shutil.which("elixir") is None, reason="no Elixir here"),
    pytest.mark.skipif(not (BIN / "rb-echo").exists(), reason="the workers are not built"),
]

SETTINGS = f"""
[node]
drain_ms = 20_000
admin_nodes = ["*@{HOST}"]

[roles.crew]
command = ["{BIN}/rb-sleep"]
workers = 3
strategy = "rest_for_one"
shutdown_ms = 20_000

[roles.base]
command = ["{BIN}/rb-echo"]
max_restarts = 0

[roles.top]
command = ["{BIN}/rb-echo"]

[groups.house]
roles = ["base", "top"]
strategy = "rest_for_one"
max_restarts = 1
"""


class Registry:
    """The workers as the BEAM sees them."""

    def __init__(self, beam: Beam, bridge: Serving) -> None:
        self.beam, self.bridge = beam, bridge
        self.target = bridge.target("Ringbridge.WorkerRegistry")

    async def workers(self, role: str) -> list[tuple[int, int | None, str]]:
        """Id, process and state of each worker of a role, in the order of their places."""
        text = await ask(
            self.beam,
            f"""{{:ok, found}} = GenServer.call({self.target}, {{:lookup, :{role}}})
            for w <- found.workers, do: [w.id, w.os_pid || 0, to_string(w.state)]""",
        )
        found: list[Any] = json.loads(text)
        return [(id_, os_pid or None, state) for id_, os_pid, state in found]

    async def settled(self, role: str) -> list[tuple[int, int]]:
        """Ids and processes, once all are ready."""
        workers = await self.workers(role)
        while {state for _, _, state in workers} != {"ready"}:
            workers = await self.workers(role)
        return [(id_, os_pid) for id_, os_pid, _ in workers if os_pid]


def is_alive(os_pid: int) -> bool:
    return Path(f"/proc/{os_pid}/stat").exists()


@pytest.mark.smoke
async def test_a_killed_worker_takes_those_behind_it_along_and_they_finish_their_jobs_first(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    async with serving(epmd, tmp_path, alive="sup_rest", settings=SETTINGS) as bridge:
        registry = Registry(beam, bridge)
        (first, second, third) = await registry.settled("crew")
        # Each has a job: nobody else could take it.
        await ask(
            beam,
            f"""me = self()
            for n <- 1..3, do: spawn(fn ->
              send(me, {{:slept, GenServer.call({bridge.target()}, {{:submit, :crew, "2000"}})}})
            end)
            {{:ok, found}} = GenServer.call({registry.target}, {{:lookup, :crew}})
            watched = for w <- found.workers, into: %{{}}, do: {{Process.monitor(w.pid), w.id}}""",
        )
        busy = f"""{{:ok, found}} = GenServer.call({registry.target}, {{:lookup, :crew}})
            Enum.map(found.workers, & &1.in_flight)"""
        while await ask(beam, busy) != "[1, 1, 1]":
            pass
        os.kill(second[1], signal.SIGKILL)
        answers = await ask(
            beam,
            """answers = for _ <- 1..3, do: (receive do {:slept, answer} -> answer end)
            for answer <- answers, answer != {:ok, "2000"}, do: elem(elem(answer, 1), 0)""",
        )
        # Of the killed one's job only; had it not begun (nothing tells), it ran once more.
        assert answers in ("[:worker_crashed]", "[]")
        now = await registry.settled("crew")
        assert now[0] == first
        assert [now[1][0] > third[0], now[2][0] > now[1][0]] == [True, True]
        assert not is_alive(third[1])
        downs = await ask(
            beam,
            """for _ <- 1..2, into: %{} do
              receive do
                {:DOWN, ref, :process, _, {:worker_crashed, %{signal: 9}}} -> {watched[ref], 9}
                {:DOWN, ref, :process, _, reason} -> {watched[ref], reason}
              end
            end""",
        )
        assert downs == f"%{{{second[0]} => 9, {third[0]} => :shutdown}}"
        line = await bridge.wait_log("worker takes its siblings along")
        assert (line["worker"], line["siblings"]) == (second[0], [third[0]])


async def test_a_role_that_is_given_up_is_begun_again_by_its_group_and_then_the_group_is_given_up(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    async with serving(epmd, tmp_path, alive="sup_group", settings=SETTINGS) as bridge:
        registry = Registry(beam, bridge)
        assert (await bridge.wait_log("role begins"))["role"] == "base"
        [(base_id, base)], [(top_id, top)] = [
            await registry.settled("base"),
            await registry.settled("top"),
        ]
        os.kill(base, signal.SIGSEGV)
        await bridge.wait_log("role given up")
        submit = f'GenServer.call({bridge.target()}, {{:submit, :base, "x"}})'
        assert await ask(beam, submit) == '{:ok, "x"}'  # it waited for the role that comes back
        await wait_until(lambda: not is_alive(top))
        [(new_base_id, new_base)] = await registry.settled("base")
        [(new_top_id, new_top)] = await registry.settled("top")
        assert base_id < new_base_id < new_top_id != top_id
        os.kill(new_base, signal.SIGABRT)
        await bridge.wait_log("group given up")
        await wait_until(lambda: not is_alive(new_top))
        while await ask(beam, submit) != "{:error, :no_worker}":
            pass
        assert [state for _, _, state in await registry.workers("base")] == ["given_up"]
        restart = f"GenServer.call({registry.target}, {{:restart, {new_base_id}}})"
        assert await ask(beam, restart) == ":ok"
        assert await ask(beam, submit) == '{:ok, "x"}'


async def test_upgrades_of_one_reload_take_turns(epmd: EpmdDaemon, tmp_path: Path) -> None:
    def settings(version: int) -> str:
        return "".join(
            f"""
[roles.{role}]
command = ["{BIN}/rb-echo"]
env = {{ VERSION = "{version}" }}
workers = 2
probation_ms = 50
"""
            for role in ("one", "two", "three")
        )

    async with serving(epmd, tmp_path, alive="sup_turns", settings=settings(1)) as bridge:
        await bridge.wait_workers(6)
        (tmp_path / "ringbridge.toml").write_text(settings(2))
        bridge.process.send_signal(signal.SIGHUP)
        await bridge.wait_log("upgrade done", 3)
        steps = [
            (line["event"].removeprefix("upgrade "), line["role"])
            for line in bridge.logs()
            if line["event"] in ("upgrade begins", "upgrade done")
        ]
        order = [role for what, role in steps if what == "begins"]
        assert sorted(order) == ["one", "three", "two"]
        assert steps == [(what, role) for role in order for what in ("begins", "done")]
        assert len(bridge.logs("upgrade waits for another one")) == 2
