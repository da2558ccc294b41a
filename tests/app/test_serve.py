"""`ringbridge serve` end to end: a real Elixir node calls, real workers answer, nothing is left."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
from serve_support import (
    BIN,
    ROOT,
    SETTINGS,
    Serving,
    ask,
    descendants,
    holders,
    memfds,
    serving,
)
from shepherd_support import read_proc, witnessed

from bridge.dist.flags import DIST_HDR_ATOM_CACHE
from bridge.fabric import layout
from bridge.testing import COOKIE, HOST, Beam, EpmdDaemon
from bridge.workers import _landlock

# A worker that greets rightly but for its layout's digest: it was built from another layout.toml.
STRANGER = """
import mmap, os, time
from bridge.fabric import layout
side = mmap.mmap(layout.FD_WORKER_SIDE, layout.PAGE_BYTES)
theirs = mmap.mmap(layout.FD_RELAY_SIDE, layout.PAGE_BYTES, prot=mmap.PROT_READ)
at, header = layout.WORKER_HEADER.at, layout.RELAY_HEADER.at("nonce")
side[at("nonce") : at("nonce") + 8] = theirs[header : header + 8]
side[at("magic") : at("magic") + 8] = layout.WORKER_MAGIC.to_bytes(8, "little")
side[at("version") : at("version") + 4] = layout.LAYOUT_VERSION.to_bytes(4, "little")
side[at("digest") : at("digest") + 32] = bytes(range(32))
side[at("hello") : at("hello") + 4] = layout.HELLO_READY.to_bytes(4, "little")
os.eventfd_write(layout.FD_WAKE_RELAY, 1)
time.sleep(60)
"""

pytestmark = [
    pytest.mark.beam,
    pytest.mark.skipif(shutil.which("elixir") is None, reason="no Elixir here"),
    pytest.mark.skipif(not (BIN / "rb-echo").exists(), reason="the workers are not built"),
]


async def test_the_bridge_tells_of_itself_by_rpc(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    async with serving(epmd, tmp_path) as bridge:
        await bridge.wait_workers(3)
        await ask(beam, f"n = :'{bridge.name}'")
        assert await ask(beam, ":rpc.call(n, Ringbridge, :status, []).node") == (f'"{bridge.name}"')
        assert await ask(beam, ":rpc.call(n, Ringbridge, :workers, []) |> length()") == "3"
        version = await ask(beam, ":rpc.call(n, Ringbridge, :version, [])")
        assert await ask(beam, ":rpc.call(n, Ringbridge, :status, []).version") == version
        halted = await ask(beam, ":rpc.call(n, :init, :stop, [])")
        assert halted == "{:badrpc, {:EXIT, {:undef, [{:init, :stop, [], []}]}}}"


@pytest.mark.parametrize("atom_cache", [False, True])
async def test_a_plain_call_from_elixir_is_answered_by_a_worker(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path, atom_cache: bool
) -> None:
    settings = SETTINGS.replace("[node]", f"[node]\natom_cache = {str(atom_cache).lower()}")
    async with serving(epmd, tmp_path, settings=settings) as bridge:
        call = f"GenServer.call({bridge.target()}, {{:submit, :echo, %s}})"
        assert await ask(beam, call % '"hi"') == '{:ok, "hi"}'
        assert await ask(beam, call % "{:a, [1, 2.5], %{b: nil}}") == (
            "{:ok, {:a, [1, 2.5], %{b: nil}}}"
        )
        big = call % 'String.duplicate("x", 1_000_000)'
        assert await ask(beam, f"{{:ok, answer}} = {big}; byte_size(answer)") == "1000000"
        up = await bridge.wait_log("connection up")
        assert bool(int(up["flags"], 16) & DIST_HDR_ATOM_CACHE) == atom_cache
        erlang_name = bridge.target(":job_dispatcher")
        assert await ask(beam, f'GenServer.call({erlang_name}, {{:submit, "echo", "x"}})') == (
            '{:ok, "x"}'
        )
        assert await bridge.terminate() == 0


async def test_ready_is_told_by_one_log_line_and_on_the_ready_descriptor(
    epmd: EpmdDaemon, tmp_path: Path
) -> None:
    async with serving(epmd, tmp_path, alive="told") as bridge:
        (line,) = bridge.logs("ready")
        assert (line["node"], line["port"]) == ("told@127.0.0.1", bridge.ready["port"])
        assert bridge.ready == {"name": bridge.name, "port": line["port"], "os_pid": bridge.pid}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_signal_lets_running_jobs_finish_and_ends_with_status_0(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path, number: int
) -> None:
    async with serving(epmd, tmp_path) as bridge:
        await bridge.wait_workers(3)
        family = descendants(bridge.pid)
        await ask(
            beam,
            f"{_sleeping(bridge, 700)}; "
            f"ref = Process.monitor({bridge.target('Ringbridge.WorkerRegistry')}); :ok",
        )
        await _running(beam, bridge, 1)
        late = f'GenServer.call({bridge.target()}, {{:submit, :echo, "late"}})'
        with witnessed(family) as witness:
            bridge.process.send_signal(number)
            await bridge.wait_log("stopping: no new jobs, the workers finish what they have")
            assert await ask(beam, late) == "{:error, :draining}"
            assert await bridge.wait_end() == 0
            witness.wait_all_gone(1.0)
        assert (await ask(beam, "Task.await(task)")).startswith("{:ok, ")
        down = "receive do {:DOWN, ^ref, _, _, why} -> why after 5000 -> :none end"
        assert await ask(beam, down) == ":shutdown"


async def test_a_second_signal_does_not_wait_for_jobs(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    settings = SETTINGS.replace("drain_ms = 2_000", "drain_ms = 60_000")
    async with serving(epmd, tmp_path, settings=settings) as bridge:
        await bridge.wait_workers(3)
        await ask(beam, f"{_sleeping(bridge, 50_000)}; :ok")
        await _running(beam, bridge, 1)
        bridge.process.terminate()
        await bridge.wait_log("stop asked")
        bridge.process.terminate()
        assert await bridge.wait_end(8.0) == 0
        assert (await ask(beam, "Task.await(task)")).startswith(("{:error, ", "{:exit, "))


async def test_a_killed_bridge_leaves_no_process_and_no_shared_memory(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    async with serving(epmd, tmp_path) as bridge:
        await bridge.wait_workers(3)
        family = descendants(bridge.pid)
        memory = memfds(bridge.pid)
        assert len(family) == 9  # shepherd, init and worker, three times
        assert len(memory) == 9  # two to a link, one pool to a role, one that lanes read
        with witnessed(family) as witness:
            bridge.process.kill()
            witness.wait_all_gone(1.0)
        bridge.process.wait()
        assert holders(memory) == []


async def test_a_killed_worker_is_told_to_its_caller_and_started_again(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    async with serving(epmd, tmp_path) as bridge:
        await bridge.wait_workers(3)
        await ask(beam, f"{_sleeping(bridge, 5_000)}; :ok")
        worker = await _running(beam, bridge, 1)
        # In the ring is not yet started, and what was not started would go to the other worker.
        # Nothing outside tells the start, so it is given time.
        await trio.sleep(0.2)
        os.kill(int(worker["os_pid"]), signal.SIGKILL)
        answer = await ask(beam, "Task.await(task)")
        assert re.match(r"\{:error, \{:worker_crashed, %\{.*signal: 9", answer), answer
        again = await bridge.wait_log("worker ready", 4)
        assert again["role"] == "sleep"
        assert again["worker"] == 4
        call = f'GenServer.call({bridge.target()}, {{:submit, :sleep, "1"}})'
        assert (await ask(beam, call)).startswith("{:ok, ")
        listed = await _workers(beam, bridge)
        assert {w["id"] for w in listed} == {1, 2, 3, 4} - {worker["id"]}
        assert next(w for w in listed if w["id"] == 4)["restarts"] == 1


async def test_a_worker_that_cannot_greet_is_given_up_and_its_role_says_no_worker(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    settings = SETTINGS + (
        '[roles.broken]\ncommand = ["sh", "-c", "echo no such luck >&2; exit 3"]\n'
        "max_restarts = 2\nbackoff_min_ms = 1\n"
    )
    async with serving(epmd, tmp_path, settings=settings) as bridge:
        given_up = await bridge.wait_log("worker given up")
        assert given_up["last_error"] == "it ended before it greeted: exit status 3"
        output = [line["line"] for line in bridge.logs("worker output")]
        assert output == ["no such luck"] * 3
        call = f'GenServer.call({bridge.target()}, {{:submit, :broken, "x"}})'
        assert await ask(beam, call) == "{:error, :no_worker}"
        call = f'GenServer.call({bridge.target()}, {{:submit, :echo, "x"}})'
        assert await ask(beam, call) == '{:ok, "x"}'


async def test_a_worker_of_another_layout_is_refused_with_both_digests_and_given_up(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    (tmp_path / "stranger.py").write_text(STRANGER)
    settings = SETTINGS + (
        f'[roles.stranger]\ncommand = ["{sys.executable}", "stranger.py"]\n'
        f'env = {{ PYTHONPATH = "{ROOT}" }}\nmax_restarts = 1\nbackoff_min_ms = 1\n'
    )
    async with serving(epmd, tmp_path, settings=settings) as bridge:
        call = f'GenServer.call({bridge.target()}, {{:submit, :stranger, "x"}}, 30_000)'
        assert await ask(beam, call) == "{:error, :no_worker}"
        failures = [line["why"] for line in bridge.logs("worker failed")]
        assert len(failures) == 2
        for why in failures:
            assert layout.LAYOUT_DIGEST_HEX in why
            assert bytes(range(32)).hex() in why


async def test_the_services_answer_and_survive_what_they_do_not_know(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    async with serving(epmd, tmp_path) as bridge:
        await bridge.wait_workers(3)
        for service in ("WorkerRegistry", "LinkManager", "Diagnostics"):
            target = bridge.target(f"Ringbridge.{service}")
            before = await ask(beam, f":sys.get_state({target}) |> is_map()")
            assert before == "true"
            answer = await ask(beam, f"GenServer.call({target}, {{:nonsense, 1}})")
            assert answer.startswith("{:error, {:bad_request, "), answer
            assert await ask(beam, f"GenServer.cast({target}, :nonsense)") == ":ok"
            assert await ask(beam, f"elem(GenServer.call({target}, :x), 0)") == ":error"
        lookup = f"GenServer.call({bridge.target(':worker_registry')}, {{:lookup, :sleep}})"
        assert await ask(
            beam, f"{{:ok, role}} = {lookup}; {{role.state, length(role.workers)}}"
        ) == ("{:running, 2}")
        status = f"GenServer.call({bridge.target(':diagnostics')}, :status)"
        keys = await ask(beam, f"{{:ok, status}} = {status}; Map.keys(status) |> Enum.sort()")
        for key in (":connections", ":node", ":relay", ":roles", ":uptime_ms", ":workers"):
            assert key in keys
        assert bridge.process.poll() is None


async def test_the_dispatcher_shows_its_figures_and_holds_jobs_while_it_is_suspended(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    async with serving(epmd, tmp_path) as bridge:
        call = f'GenServer.call({bridge.target()}, {{:submit, :echo, "x"}})'
        assert await ask(beam, call) == '{:ok, "x"}'
        state = f":sys.get_state({bridge.target()})"
        assert await ask(beam, f"s = {state}; {{s.accepted, s.in_flight, s.answered.ok}}") == (
            "{1, 0, 1}"
        )
        assert await ask(beam, f":sys.suspend({bridge.target()})") == ":ok"
        patient = f"task = Task.async(fn -> {call} end); Task.yield(task, 100)"
        assert await ask(beam, patient) == "nil"
        assert await ask(beam, f":sys.resume({bridge.target()}); {call}") == '{:ok, "x"}'


@pytest.mark.parametrize("service", ["WorkerRegistry", "JobDispatcher", "Diagnostics"])
async def test_a_service_that_is_killed_tells_its_watchers_and_answers_again(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path, service: str
) -> None:
    async with serving(epmd, tmp_path) as bridge:
        target = bridge.target(f"Ringbridge.{service}")
        await ask(beam, f"ref = Process.monitor({target}); :ok")
        await ask(beam, f"{{_, _, _, [_, _, pid | _]}} = :sys.get_status({target}); :ok")
        await ask(beam, f"pid = elem(:sys.get_status({target}), 1); Process.exit(pid, :kill)")
        down = "receive do {:DOWN, ^ref, _, _, why} -> why after 5000 -> :none end"
        assert await ask(beam, down) == ":killed"
        await bridge.wait_log("process ended, starting it again")
        retry = (
            f"Enum.find_value(1..100, fn _ -> try do GenServer.call({target}, :stats) "
            "catch :exit, _ -> Process.sleep(20); nil end end) |> elem(0)"
        )
        assert await ask(beam, retry) in (":ok", ":error")


async def test_a_worker_has_a_pid_whose_watchers_hear_of_its_crash(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    async with serving(epmd, tmp_path) as bridge:
        await bridge.wait_workers(3)
        await ask(beam, f"{_pid_of_echo(bridge)}; ref = Process.monitor(pid); :ok")
        state = await ask(beam, "s = :sys.get_state(pid); {s.role, s.state, s.pid == pid}")
        assert state == "{:echo, :ready, true}"
        echo = next(w for w in await _workers(beam, bridge) if w["role"] == "echo")
        os.kill(int(echo["os_pid"]), signal.SIGSEGV)
        why = await ask(beam, "receive do {:DOWN, ^ref, _, ^pid, why} -> why after 5000 -> 0 end")
        assert why.startswith("{:worker_crashed, %{"), why
        assert "signal: 11" in why
        assert f"worker: {echo['id']}" in why


@pytest.mark.parametrize("reason", [":kill", ":shutdown"])
async def test_an_exit_signal_to_a_worker_s_pid_ends_it_and_it_starts_again(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path, reason: str
) -> None:
    async with serving(epmd, tmp_path) as bridge:
        await bridge.wait_workers(3)
        await ask(beam, f"{_pid_of_echo(bridge)}; ref = Process.monitor(pid); :ok")
        await ask(beam, f"Process.exit(pid, {reason})")
        why = await ask(beam, "receive do {:DOWN, ^ref, _, ^pid, why} -> why after 5000 -> 0 end")
        assert why == {":kill": ":killed", ":shutdown": ":shutdown"}[reason]
        await bridge.wait_workers(4)
        assert await ask(beam, f"{_pid_of_echo(bridge)}; is_pid(pid)") == "true"
        failed = await bridge.wait_log("worker failed")
        assert failed["why"].startswith("it was killed by an exit signal")


async def test_drain_and_restart_a_worker_from_elixir(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    async with serving(epmd, tmp_path) as bridge:
        await bridge.wait_workers(3)
        registry = bridge.target("Ringbridge.WorkerRegistry")
        echo = next(w for w in await _workers(beam, bridge) if w["role"] == "echo")
        assert await ask(beam, f"GenServer.call({registry}, {{:drain, {echo['id']}}})") == ":ok"
        call = f'GenServer.call({bridge.target()}, {{:submit, :echo, "x"}})'
        await _until_answer(beam, call, "{:error, :draining}")
        assert await ask(beam, f"GenServer.call({registry}, {{:restart, {echo['id']}}})") == ":ok"
        await _until_answer(beam, call, '{:ok, "x"}')


async def test_without_admin_nodes_nobody_stops_or_changes_anything(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    settings = SETTINGS.replace(f'admin_nodes = ["*@{HOST}"]', "")
    async with serving(epmd, tmp_path, alive="guarded", settings=settings) as bridge:
        await bridge.wait_workers(3)
        registry = bridge.target("Ringbridge.WorkerRegistry")
        for request in ("{:drain, 1}", "{:restart, 1}"):
            answer = await ask(beam, f"GenServer.call({registry}, {request})")
            assert answer.startswith("{:error, {:unauthorized, "), answer
            assert "[node] admin_nodes in ringbridge.toml" in answer
        for service in ("WorkerRegistry", "JobDispatcher"):
            target = bridge.target(f"Ringbridge.{service}")
            for change in (f"suspend({target})", f"terminate({target}, :normal)"):
                answer = await ask(beam, f":sys.{change}")
                assert answer.startswith("{:error, {:unauthorized, "), answer
            pid = f"elem(:sys.get_status({target}), 1)"
            for reason in (":kill", ":shutdown"):
                await ask(beam, f"for _ <- 1..20, do: Process.exit({pid}, {reason})")
            assert await ask(beam, f"elem(:sys.get_status({target}), 1) == {pid}") == "true"
        # A link is anybody's to make, and its end is no way round the rule.
        await ask(beam, f"{_pid_of_echo(bridge)}; Process.exit(pid, :kill)")
        await ask(
            beam,
            "{_, ref} = spawn_monitor(fn -> Process.link(pid); exit(:boom) end); "
            "receive do {:DOWN, ^ref, _, _, _} -> :ok end; :sys.get_state(pid)",
        )
        assert await ask(beam, f"old = pid; {_pid_of_echo(bridge)}; old == pid") == "true"
        assert await ask(beam, f'GenServer.call({bridge.target()}, {{:submit, :echo, "x"}})') == (
            '{:ok, "x"}'
        )
        refused = [line["why"] for line in bridge.logs("request refused")]
        assert sum("exit/2" in why for why in refused) == 1
        assert bridge.logs("worker failed") == []


async def test_without_admin_nodes_there_is_no_way_round_either(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    """What is no exit/2 and no `sys` request, and would do what they do."""
    settings = SETTINGS.replace(f'admin_nodes = ["*@{HOST}"]', "")
    async with serving(epmd, tmp_path, alive="sideways", settings=settings) as bridge:
        await bridge.wait_workers(3)
        node = f":'{bridge.name}'"
        services = ["WorkerRegistry", "JobDispatcher", "Diagnostics"]
        names = [f":'Elixir.Ringbridge.{name}'" for name in services] + [":net_kernel", ":rex"]
        await ask(beam, _pid_of_echo(bridge))
        await ask(
            beam,
            f"all = :rpc.call({node}, :erlang, :processes, []); "
            f"names = [{', '.join(names)}]; "
            f"pids = [pid | Enum.map(names, &:rpc.call({node}, :erlang, :whereis, [&1]))]; "
            "Enum.all?(pids, &is_pid/1) || raise inspect(pids)",
        )
        await ask(
            beam,
            "for p <- pids, as <- [p, self()], m <- ["
            "[:system, {self(), make_ref()}, {:terminate, :boom}], "
            "[:system, [self(), make_ref()], {:terminate, :boom}], "
            "[:system, [self(), make_ref()], :suspend], "
            "{:EXIT, as, :boom}, {:EXIT, as, :kill}], do: send(p, m)",
        )
        await ask(beam, "for p <- pids, do: Process.group_leader(p, self())")
        await ask(
            beam,
            f"for p <- pids do spawn(fn -> :rpc.call({node}, :appmon_info, :start_link2, "
            "[self(), p, []]); exit(:boom) end) end; Process.sleep(200)",
        )
        debug = await ask(
            beam, "for p <- pids, do: (try do :sys.trace(p, true) catch _, why -> why end)"
        )
        assert "unauthorized" in debug
        assert ":ok" not in debug
        await ask(beam, f"still = :rpc.call({node}, :erlang, :processes, [])")
        assert await ask(beam, "pids -- still") == "[]"
        assert (
            await ask(
                beam,
                f"Enum.any?(pids, &(:rpc.call({node}, Process, :info, [&1, "
                ":group_leader]) == {:group_leader, self()}))",
            )
            == "false"
        )
        assert await ask(beam, f'GenServer.call({bridge.target()}, {{:submit, :echo, "x"}})') == (
            '{:ok, "x"}'
        )


async def test_a_wrong_cookie_is_refused_with_one_clear_line(
    epmd: EpmdDaemon, tmp_path: Path
) -> None:
    stranger = Beam("stranger", epmd.port, cookie="another-cookie")
    try:
        await stranger.ready()
        async with serving(epmd, tmp_path) as bridge:
            answer = await stranger.evaluate(f"Node.connect(:'{bridge.name}')")
            assert answer == "false"
            line = await bridge.wait_log("peer refused")
            assert "cookie" in line["rule"]
            assert line["peer"] == "stranger@127.0.0.1"
            assert COOKIE not in bridge.log_file.read_text()
    finally:
        stranger.close()


async def test_a_node_outside_the_allow_list_is_refused(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    settings = SETTINGS.replace("[node]", '[node]\nallow = ["friend@127.0.0.1"]')
    async with serving(epmd, tmp_path, alive="choosy", settings=settings) as bridge:
        assert await ask(beam, f"Node.connect(:'{bridge.name}')") == "false"
        assert "allow list" in (await bridge.wait_log("peer refused"))["rule"]


async def test_a_name_that_is_taken_is_one_line_and_status_1(
    epmd: EpmdDaemon, tmp_path: Path
) -> None:
    async with serving(epmd, tmp_path) as bridge:
        done = _serve(tmp_path, epmd, "--name", bridge.name)
        assert done.returncode == 1
        assert "already taken" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_role_whose_program_is_missing_is_told_before_anything_starts(
    epmd: EpmdDaemon, tmp_path: Path
) -> None:
    (tmp_path / "ringbridge.toml").write_text('[roles.echo]\ncommand = ["./none"]\n')
    done = _serve(tmp_path, epmd)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "roles.echo.command" in done.stderr


async def test_no_process_below_the_bridge_has_the_cookie(epmd: EpmdDaemon, tmp_path: Path) -> None:
    async with serving(epmd, tmp_path) as bridge:
        await bridge.wait_workers(3)
        for pid in descendants(bridge.pid):
            for what in ("environ", "cmdline"):
                assert COOKIE.encode() not in read_proc(pid, what)


@pytest.mark.skipif(not _landlock.available(), reason="no Landlock in this kernel")
@pytest.mark.parametrize("place", ["option", "setting"])
async def test_no_worker_can_read_the_file_that_the_cookie_came_from(
    epmd: EpmdDaemon, tmp_path: Path, place: str
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    file = home / "cookie"
    file.write_text(COOKIE)
    file.chmod(0o400)
    settings = SETTINGS + (
        f'[roles.thief]\ncommand = ["sh", "-c", "cat {file}; exit 1"]\nmax_restarts = 0\n'
    )
    arguments: tuple[str, ...] = ("--cookie-file", str(file))
    if place == "setting":
        settings = settings.replace("[node]", f'[node]\ncookie_file = "{file}"')
        arguments = ()
    async with serving(
        epmd, tmp_path, settings=settings, arguments=arguments, cookie_in_environment=False
    ) as bridge:
        await bridge.wait_log("worker given up")
        (line,) = bridge.logs("worker output")
        assert "Permission denied" in line["line"]
        assert COOKIE not in bridge.log_file.read_text()


async def test_status_shows_roles_and_workers_as_tables_and_as_json(
    epmd: EpmdDaemon, tmp_path: Path
) -> None:
    async with serving(epmd, tmp_path) as bridge:
        await bridge.wait_workers(3)
        done = _ringbridge(tmp_path, epmd, "status", "--name", bridge.name, "--json")
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert report["node"] == bridge.name
        assert [role["name"] for role in report["roles"]] == ["echo", "sleep"]
        assert [worker["state"] for worker in report["workers"]] == ["ready"] * 3
        done = _ringbridge(tmp_path, epmd, "status", "--name", bridge.name)
        assert done.returncode == 0, done.stderr
        for word in ("echo", "sleep", "ready", "running", bridge.name):
            assert word in done.stdout


def _serve(folder: Path, epmd: EpmdDaemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    return _ringbridge(folder, epmd, "serve", "--log-format", "json", *arguments)


def _ringbridge(
    folder: Path, epmd: EpmdDaemon, *arguments: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from bridge.cli import main; main()", *arguments],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder),
            "RINGBRIDGE_COOKIE": COOKIE,
            "ERL_EPMD_PORT": str(epmd.port),
            "COLUMNS": "160",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def _pid_of_echo(bridge: Serving) -> str:
    registry = bridge.target("Ringbridge.WorkerRegistry")
    lookup = f"GenServer.call({registry}, {{:lookup, :echo}})"
    return f"{{:ok, %{{workers: [%{{pid: pid}}]}}}} = {lookup}"


def _sleeping(bridge: Serving, milliseconds: int) -> str:
    """The Elixir of a task that calls the role sleep; an exit of the call is its value too."""
    call = f'GenServer.call({bridge.target()}, {{:submit, :sleep, "{milliseconds}"}}, 60_000)'
    return f"task = Task.async(fn -> try do {call} catch :exit, why -> {{:exit, why}} end end)"


async def _workers(beam: Beam, bridge: Serving) -> list[dict[str, Any]]:
    """The registry's list, as Python records."""
    registry = bridge.target("Ringbridge.WorkerRegistry")
    text = await ask(
        beam,
        f"{{:ok, workers}} = GenServer.call({registry}, :list); Enum.map(workers, fn w -> "
        "{w.id, to_string(w.role), to_string(w.state), w.os_pid || 0, w.in_flight, w.restarts} "
        "end)",
    )
    keys = ("id", "role", "state", "os_pid", "in_flight", "restarts")
    rows = json.loads(text.replace("{", "[").replace("}", "]"))
    return [dict(zip(keys, row, strict=True)) for row in rows]


async def _running(beam: Beam, bridge: Serving, count: int) -> dict[str, Any]:
    """Wait until `count` jobs are with workers; returns the first worker that has one."""
    for _ in range(200):
        busy = [worker for worker in await _workers(beam, bridge) if worker["in_flight"]]
        if len(busy) >= count:
            return busy[0]
    raise AssertionError("no job came to a worker")


async def _until_answer(beam: Beam, call: str, wanted: str) -> None:
    for _ in range(200):
        if (answer := await ask(beam, call)) == wanted:
            return
        await ask(beam, "Process.sleep(20)")
    raise AssertionError(f"{call} gives {answer}, not {wanted}")
