"""What an operator sees of workers: what they write in which job, their ends, their changes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
import trio
from serve_support import LIBRARY, ROOT, Serving, ask, built_worker, serving, wait_until
from test_cli_operations import ringbridge

from bridge.testing import HOST, Beam, EpmdDaemon

pytestmark = [
    pytest.mark.beam,
    pytest.mark.skipif(shutil.which("elixir") is None, reason="no Elixir here"),
    pytest.mark.skipif(not LIBRARY.exists(), reason="the workers are not built"),
]


@pytest.fixture(scope="session")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_worker(ROOT / "tests" / "app" / "talker.c", tmp_path_factory.mktemp("talker"))


def settings(talker: Path) -> str:
    return f"""
[node]
admin_nodes = ["*@{HOST}"]

[roles.talk]
command = ["{talker}"]
"""


def registry(bridge: Serving, request: str) -> str:
    return f"GenServer.call({bridge.target('Ringbridge.WorkerRegistry')}, {request})"


async def say(beam: Beam, bridge: Serving, text: str) -> str:
    """Submit it with detail; the answer."""
    return await ask(
        beam, f'GenServer.call({bridge.target()}, {{:submit, :talk, "{text}", %{{detail: true}}}})'
    )


@pytest.mark.smoke
async def test_a_line_of_a_worker_is_logged_with_the_job_in_which_it_was_written(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path, talker: Path
) -> None:
    async with serving(epmd, tmp_path, alive="seen_lines", settings=settings(talker)) as bridge:
        await bridge.wait_workers(1)
        named = 0
        for n in range(20):
            answer = await say(beam, bridge, f"line {n}")
            found = re.search(r"job: (\d+)", answer)
            assert found, answer
            line = await bridge.wait_log("worker output", n + 1)
            assert line["line"] == f"line {n}"
            assert line.get("job") in (int(found[1]), None)
            named += "job" in line
            assert (line["worker"], line["role"], line["stream"]) == (1, "talk", "stderr")
        # One that the relay came to read more than 20 ms after the job's end is of no job.
        assert named >= 10


async def test_a_crash_leaves_a_report_for_iex_and_for_the_command_line(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path, talker: Path
) -> None:
    async with serving(epmd, tmp_path, alive="seen_crash", settings=settings(talker)) as bridge:
        await bridge.wait_workers(1)
        said = await say(beam, bridge, "say by channel")
        line = await bridge.wait_log("worker says")
        assert (line["line"], f"job: {line['job']}" in said) == ("by channel", True)
        await bridge.wait_log("worker output")
        crashed = await say(beam, bridge, "crash")
        job = re.search(r"job: (\d+)", crashed)
        assert job, crashed
        await bridge.wait_log("worker starts again")
        answer = await ask(
            beam,
            f"""{{:ok, r}} = {registry(bridge, "{:crash_report, 1}")}
            lines = Enum.sort(String.split(r.output, "\\n", trim: true))
            {{r.worker, r.role, r.signal, r.jobs_lost, r.jobs, lines, r.kit,
              r.usage.rss_max_kib > 500, r.usage.user_us + r.usage.system_us > 0}}""",
        )
        lines = '["by channel", "crash", "say by channel"]'
        assert answer == f'{{1, :talk, 11, 1, [{job[1]}], {lines}, "c", true, true}}'
        await say(beam, bridge, "exit 7")
        await bridge.wait_log("worker starts again", 2)
        listed = await ask(
            beam,
            f"""{{:ok, all}} = {registry(bridge, ":crash_reports")}
            for r <- all, do: {{r.worker, r.status, r.signal, Map.has_key?(r, :output)}}""",
        )
        assert listed == "[{2, 7, nil, false}, {1, nil, 11, false}]"
        status, said = await ringbridge(epmd, bridge, "crash-report")
        assert status == 0
        assert [line.split("  ")[1] for line in said.splitlines()] == [
            "worker 2 (talk): it ended: exit status 7",
            "worker 1 (talk): it ended: signal 11 (SIGSEGV)",
        ]
        status, said = await ringbridge(epmd, bridge, "crash-report", "2")
        assert status == 0
        assert "status           7\n" in said
        assert re.search(r"^usage +\d+\.\d{3} s user, \d+\.\d{3} s system, ", said, re.MULTILINE)
        assert said.endswith(("\nexit 7\n\n", "\nexit 7\n"))
        status, said = await ringbridge(epmd, bridge, "crash-report", "99")
        assert (status, "there is no crash report of worker 99" in said) == (1, True)


async def test_of_a_flood_the_log_has_some_and_the_report_the_end(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path, talker: Path
) -> None:
    async with serving(epmd, tmp_path, alive="seen_flood", settings=settings(talker)) as bridge:
        await bridge.wait_workers(1)
        await say(beam, bridge, "flood")
        await bridge.wait_log("worker starts again")
        answer = await ask(
            beam,
            f"""{{:ok, r}} = {registry(bridge, "{:crash_report, 1}")}
            {{byte_size(r.output), String.ends_with?(r.output, "999\\nthe end\\n"),
              r.output_forgotten == 5 + 6 + 8 + 100_000 - 65_536 - 5}}""",
        )
        assert answer.startswith("{65536, true,")
        lines = bridge.logs("worker output")
        assert len(lines) <= 2 * 201 + 1
        assert any("lines were dropped" in line["line"] for line in lines)


async def test_changes_come_as_messages_until_unwatched_or_dead(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    async with serving(epmd, tmp_path, alive="seen_watch") as bridge:
        await bridge.wait_workers(3)
        assert (
            await ask(
                beam,
                f"""{{:ok, ref, workers}} = {registry(bridge, ":watch")}
                {{:ok, again, _}} = {registry(bridge, ":watch")}
                {{is_reference(ref), ref == again, Enum.map(workers, &{{&1.id, &1.state}})}}""",
            )
            == "{true, true, [{1, :ready}, {2, :ready}, {3, :ready}]}"
        )
        watchers = f"{registry(bridge, ':stats')} |> elem(1) |> Map.get(:watchers)"
        assert await ask(beam, watchers) == "1"
        os_pid = await ask(beam, "hd(workers).os_pid")
        os.kill(int(os_pid), signal.SIGKILL)
        seen = await ask(
            beam,
            """listen = fn listen, seen ->
              receive do
                {:ringbridge_workers, ^ref, changed} ->
                  seen = seen ++ Enum.map(changed, &{&1.id, &1.state, &1.last_error})
                  if match?({4, :ready, _}, List.last(seen)), do: seen, else: listen.(listen, seen)
              end
            end
            seen = listen.(listen, [])
            {Enum.uniq(Enum.map(seen, &elem(&1, 0))), List.last(seen)}""",
        )
        assert seen == '{[1, 4], {4, :ready, "it ended: signal 9 (SIGKILL)"}}'
        assert await ask(beam, registry(bridge, ":unwatch")) == ":ok"
        assert await ask(beam, watchers) == "0"
        # One that dies watches no longer; nor can anybody have others' processes told.
        await ask(
            beam,
            f"""pid = spawn(fn -> {registry(bridge, ":watch")}; receive do :die -> :ok end end)
            wait = fn wait -> if {watchers} == 1, do: :ok, else: wait.(wait) end
            wait.(wait)
            send(pid, :die)""",
        )
        while await ask(beam, watchers) != "0":
            pass
        other = f"{{:watch, Process.whereis(:init)}} |> then(&{registry(bridge, '&1')})"
        assert (await ask(beam, f"match?({{:ok, _, _}}, {other})")) == "true"
        foreign = (
            f"elem({registry(bridge, '{:lookup, :echo}')}, 1).workers |> hd() |> Map.get(:pid)"
        )
        why = await ask(beam, f"{registry(bridge, '{:watch, ' + foreign + '}')}")
        assert "is not of the caller's node" in why


async def test_the_commands_workers_scale_and_watch(epmd: EpmdDaemon, tmp_path: Path) -> None:
    async with serving(epmd, tmp_path, alive="seen_cli") as bridge:
        await bridge.wait_workers(3)
        status, said = await ringbridge(epmd, bridge, "scale", "echo", "3")
        assert (status, said) == (
            0,
            "echo has 3 workers; the next reload goes by the file again\n",
        )
        status, said = await ringbridge(epmd, bridge, "workers", "echo", "--json")
        assert status == 0
        found = json.loads(said)
        assert [w["state"] for w in found] == ["ready"] * 3
        assert found[0]["layout_version"] == "3.1"
        assert found[0]["link"]["slots"] == 1024
        status, said = await ringbridge(epmd, bridge, "workers")
        assert "1024 x 64 MiB" in said
        assert said.count("ready") == 5
        status, said = await ringbridge(epmd, bridge, "scale", "ecco", "3")
        assert (status, "there is no such role" in said) == (1, True)
        async with trio.open_nursery() as nursery:
            watching: list[tuple[int, str]] = []

            async def watch() -> None:
                watching.append(await ringbridge(epmd, bridge, "watch", "echo"))

            nursery.start_soon(watch)
            await wait_until(lambda: len(bridge.logs("connection up")) >= 5)
            os.kill(found[0]["os_pid"], signal.SIGKILL)
            await bridge.wait_workers(6)
            await ringbridge(epmd, bridge, "scale", "echo", "1")
            assert await bridge.terminate() == 0
        [(status, said)] = watching
        assert status == 1
        assert "has gone: shutdown" in said or "has gone: noconnection" in said
        assert re.search(r"worker +6  echo 0  ready", said), said
        assert re.search(r"worker +4  echo 1  stopped", said), said
