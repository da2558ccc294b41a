"""A running bridge takes other settings: by SIGHUP and from a BEAM, whole or not at all."""

from __future__ import annotations

import errno
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from serve_support import BIN, SETTINGS, Serving, ask, descendants, serving, wait_until

from bridge.config import ConfigError, parse
from bridge.dist.finding import Places
from bridge.fabric.relay import RoleLimits
from bridge.reloading import Current, Reloading
from bridge.testing import HOST, Beam, EpmdDaemon

pytestmark = [
    pytest.mark.beam,
    pytest.mark.skipif(shutil.which("elixir") is None, reason="no Elixir here"),
    pytest.mark.skipif(not (BIN / "rb-echo").exists(), reason="the workers are not built"),
]


async def registry(beam: Beam, bridge: Serving, request: str) -> str:
    return await ask(
        beam, f"GenServer.call({bridge.target('Ringbridge.WorkerRegistry')}, {request})"
    )


async def submit(beam: Beam, bridge: Serving, role: str, payload: str = '"x"') -> str:
    return await ask(beam, f"GenServer.call({bridge.target()}, {{:submit, :{role}, {payload}}})")


def rewrite(folder: Path, settings: str) -> None:
    (folder / "ringbridge.toml").write_text(settings)


@pytest.mark.smoke
async def test_a_number_is_changed_from_a_beam_and_the_file_wins_again_at_a_reload(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    async with serving(epmd, tmp_path, alive="ctl_number") as bridge:
        await bridge.wait_workers(3)
        assert await submit(beam, bridge, "echo", '"1234567"') == '{:ok, "1234567"}'
        key = '"roles.echo.payload_bytes_max"'
        assert await registry(beam, bridge, f"{{:configure, {key}, 64}}") == (
            '{:ok, [%{key: "roles.echo.payload_bytes_max", now: 64, was: 1048576}]}'
        )
        big = "String.duplicate(<<0>>, 65)"
        assert await submit(beam, bridge, "echo", big) == "{:error, {:too_large, 64}}"
        assert await registry(beam, bridge, ":reload") == (
            '{:ok, [%{key: "roles.echo.payload_bytes_max", now: 1048576, was: 64}]}'
        )
        assert (await submit(beam, bridge, "echo", big)).startswith("{:ok,")
        assert await registry(beam, bridge, ":reload") == "{:ok, []}"


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (
            '{:configure, "roles.echo.depth_max", 0}',
            "roles.echo.depth_max = 0: expected a whole number of at least 1. The default is 4096;",
        ),
        (
            '{:configure, "roles.echo.pool_bytes", 134217728}',
            "roles.echo.pool_bytes = 134217728: it cannot change while the bridge runs",
        ),
        ('{:configure, "roles.ecco.workers", 2}', "there is no role ecco. The roles are: echo"),
        (
            '{:configure, "roles.echo.command", ["./none"]}',
            "none does not exist. Correct the path",
        ),
        ("{:drain_role, :ecco}", "there is no such role. The roles are: echo, sleep"),
        ("{:upgrade, :ecco}", "there is no such role"),
    ],
)
async def test_a_refused_change_says_rule_value_and_way_out_and_changes_nothing(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path, request_: str, why: str
) -> None:
    async with serving(epmd, tmp_path, alive="ctl_refused") as bridge:
        answer = await registry(beam, bridge, request_)
        assert answer.startswith("{:error, {:bad_request,")
        assert why in answer
        assert await submit(beam, bridge, "echo") == '{:ok, "x"}'
        assert await registry(beam, bridge, ":reload") == "{:ok, []}"


async def test_sighup_takes_a_file_whole_or_not_at_all(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    async with serving(epmd, tmp_path, alive="ctl_hup") as bridge:
        await bridge.wait_workers(3)
        # Two that cannot be, one that could: none is taken, both are told.
        rewrite(
            tmp_path,
            SETTINGS.replace("[node]", '[node]\nname = "other@127.0.0.1"\nport = 9').replace(
                "payload_bytes_max = 1_048_576", "payload_bytes_max = 64"
            ),
        )
        bridge.process.send_signal(signal.SIGHUP)
        line = await bridge.wait_log("settings not reloaded, nothing has changed")
        assert "node.name" in line["why"]
        assert "node.port = 9" in line["why"]
        assert "Restart the bridge" in line["why"]
        assert (await submit(beam, bridge, "echo", "String.duplicate(<<0>>, 65)"))[:5] == "{:ok,"
        # One role more, one gone, workers more and fewer.
        rewrite(
            tmp_path,
            f"""
[node]
admin_nodes = ["*@{HOST}"]
[roles.echo]
command = ["{BIN}/rb-echo"]
payload_bytes_max = 1_048_576
workers = 3
[roles.more]
command = ["{BIN}/rb-echo"]
pool_bytes = 1_048_576
payload_bytes_max = 1_048_576
""",
        )
        bridge.process.send_signal(signal.SIGHUP)
        line = await bridge.wait_log("settings reloaded")
        assert line["changes"] == [
            "node.drain_ms",
            "roles.echo.workers",
            "roles.sleep",
            "roles.more",
        ]
        await bridge.wait_workers(6)
        await bridge.wait_log("role removed")
        assert await submit(beam, bridge, "more") == '{:ok, "x"}'
        assert "unknown role sleep; this node has: echo more" in await submit(beam, bridge, "sleep")
        await wait_until(lambda: not any(_is(p, "rb-sleep") for p in descendants(bridge.pid)))
        # And back: the number of the role that went is used again.
        rewrite(tmp_path, SETTINGS)
        bridge.process.send_signal(signal.SIGHUP)
        await bridge.wait_log("role removed", 2)
        await bridge.wait_workers(8)
        assert await submit(beam, bridge, "sleep", '"1"') == '{:ok, "1"}'
        assert await bridge.terminate() == 0


async def test_a_role_cannot_come_back_while_it_still_goes(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    async with serving(epmd, tmp_path, alive="ctl_back") as bridge:
        await bridge.wait_workers(3)
        await ask(
            beam,
            f"""me = self()
            spawn(fn ->
              send(me, {{:slept, GenServer.call({bridge.target()}, {{:submit, :sleep, "1500"}})}})
            end)""",
        )
        running = f"GenServer.call({bridge.target()}, :stats) |> elem(1) |> Map.get(:in_flight)"
        while await ask(beam, running) != "1":
            pass
        without = SETTINGS.partition("[roles.sleep]")[0]
        rewrite(tmp_path, without)
        assert '"roles.sleep"' in await registry(beam, bridge, ":reload")
        rewrite(tmp_path, SETTINGS)
        refused = await registry(beam, bridge, ":reload")
        assert "its workers of before still finish what they have. Try again" in refused
        assert await submit(beam, bridge, "sleep", '"1"') == "{:error, :draining}"
        assert await ask(beam, "receive do {:slept, answer} -> answer end") == '{:ok, "1500"}'
        await bridge.wait_log("role removed")
        assert '"roles.sleep"' in await registry(beam, bridge, ":reload")
        assert await submit(beam, bridge, "sleep", '"1"') == '{:ok, "1"}'


def test_no_memory_for_a_new_role_leaves_everything_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "ringbridge.toml"
    settings = '[roles.a]\ncommand = ["sh"]\n'
    more = '[roles.b]\ncommand = ["sh"]\n[roles.c]\ncommand = ["sh"]\n'
    current = Current(parse(settings, file))
    told: list[tuple[object, ...]] = []

    class OneMore:
        """A relay with memory for one more role, that notes all else."""

        def add_role(self, limits: RoleLimits) -> int:
            if limits.name == "c":
                raise OSError(errno.ENOMEM, "Cannot allocate memory")
            told.append(("add", limits.name))
            return 1

        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *arguments: told.append((name, *arguments))

    reloading = Reloading(
        current,
        relay=OneMore(),  # type: ignore[arg-type]
        node=None,  # type: ignore[arg-type]
        supervisor=SimpleNamespace(  # type: ignore[arg-type]
            is_leaving=lambda name: False, role=lambda name: None
        ),
        places=Places({}),
        tls=None,
    )
    file.write_text(settings + more)
    with pytest.raises(ConfigError, match=r"roles.c: it cannot be made: Cannot allocate memory"):
        reloading.reload()
    assert told == [("add", "b"), ("remove_role", 1)]
    assert list(current.config.roles) == ["a"]


def test_numbers_that_only_the_relay_refuses_leave_everything_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "ringbridge.toml"
    settings = '[roles.a]\ncommand = ["sh"]\n[roles.b]\ncommand = ["sh"]\n'
    current = Current(parse(settings, file))
    told: list[tuple[object, ...]] = []

    class Choosy:
        """A relay that wants a depth of 8 at most, and notes all that it is told."""

        def configure_role(self, role: int, limits: RoleLimits) -> None:
            depth = limits.admission.depth_max
            if limits.name == "b" and depth == 9:
                raise OSError(errno.EINVAL, "Invalid argument")
            told.append((limits.name, depth))

        def __getattr__(self, name: str) -> Callable[..., int]:
            def note(*arguments: Any) -> int:
                told.append((name,))
                return 2

            return note

    plans = {name: SimpleNamespace(id=number) for number, name in enumerate("ab")}
    reloading = Reloading(
        current,
        relay=Choosy(),  # type: ignore[arg-type]
        node=None,  # type: ignore[arg-type]
        supervisor=SimpleNamespace(is_leaving=lambda name: False, role=plans.get),  # type: ignore[arg-type]
        places=Places({}),
        tls=None,
    )
    file.write_text(settings.replace("]\n[", "]\ndepth_max = 9\n[") + "depth_max = 9\n" + MORE)
    with pytest.raises(ConfigError, match=r"roles.b: the relay refuses these numbers"):
        reloading.reload()
    assert told == [("add_role",), ("a", 9), ("a", 4096), ("remove_role",)]
    assert list(current.config.roles) == ["a", "b"]


MORE = '[roles.c]\ncommand = ["sh"]\n'


def _is(pid: int, program: str) -> bool:
    try:
        return program in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False


async def test_a_drained_role_refuses_and_is_resumed(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    async with serving(epmd, tmp_path, alive="ctl_drain") as bridge:
        await bridge.wait_workers(3)
        assert await registry(beam, bridge, "{:drain_role, :echo}") == ":ok"
        assert await submit(beam, bridge, "echo") == "{:error, :draining}"
        assert await submit(beam, bridge, "sleep", '"1"') == '{:ok, "1"}'
        assert await registry(beam, bridge, "{:resume_role, :echo}") == ":ok"
        assert await submit(beam, bridge, "echo") == '{:ok, "x"}'
        assert await registry(beam, bridge, ":drain_node") == ":ok"
        assert await submit(beam, bridge, "sleep", '"1"') == "{:error, :draining}"
        assert await registry(beam, bridge, ":resume_node") == ":ok"
        assert await submit(beam, bridge, "sleep", '"1"') == '{:ok, "1"}'


async def test_who_may_change_things_follows_the_settings(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    settings = SETTINGS.replace(f'["*@{HOST}"]', '["nobody@127.0.0.1"]')
    async with serving(epmd, tmp_path, alive="ctl_admin", settings=settings) as bridge:
        refused = await registry(beam, bridge, ":reload")
        assert refused.startswith("{:error, {:unauthorized,")
        assert "add it to [node] admin_nodes in ringbridge.toml" in refused
        rewrite(tmp_path, SETTINGS)
        bridge.process.send_signal(signal.SIGHUP)
        await bridge.wait_log("settings reloaded")
        assert await registry(beam, bridge, ":reload") == "{:ok, []}"
