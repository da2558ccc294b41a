"""The commands that change a running bridge, run as a user would."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import trio
from serve_support import BIN, ROOT, SETTINGS, Serving, serving, wait_until

from bridge.testing import COOKIE, HOST, EpmdDaemon

pytestmark = pytest.mark.skipif(not (BIN / "rb-echo").exists(), reason="the workers are not built")


async def ringbridge(epmd: EpmdDaemon, bridge: Serving, *arguments: str) -> tuple[int, str]:
    """Exit status, and all that was said."""
    done = await trio.run_process(
        [
            *(sys.executable, "-c", "from bridge.cli import main; main()"),
            *(arguments[0], "--name", bridge.name, *arguments[1:]),
        ],
        cwd=bridge.log_file.parent,
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "200",
            "TERM": "dumb",
            "ERL_EPMD_PORT": str(epmd.port),
            "RINGBRIDGE_COOKIE": COOKIE,
        },
        stdin=subprocess.DEVNULL,
        capture_stdout=True,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return done.returncode, done.stdout.decode()


async def test_settings_are_changed_and_read_again(epmd: EpmdDaemon, tmp_path: Path) -> None:
    async with serving(epmd, tmp_path, alive="cli_settings") as bridge:
        assert await ringbridge(epmd, bridge, "configure", "roles.echo.depth_max", "7") == (
            0,
            "roles.echo.depth_max: 4096 -> 7\n",
        )
        assert await ringbridge(epmd, bridge, "configure", "roles.echo.restart", "temporary") == (
            0,
            "roles.echo.restart: permanent -> temporary\n",
        )
        assert await ringbridge(epmd, bridge, "configure", "roles.echo.restart", "default") == (
            0,
            "roles.echo.restart: temporary -> permanent\n",
        )
        status, said = await ringbridge(epmd, bridge, "configure", "roles.echo.depth_max", "0")
        assert status == 1
        assert said.startswith("ringbridge: roles.echo.depth_max = 0: expected a whole number")
        assert await ringbridge(epmd, bridge, "reload") == (
            0,
            "roles.echo.depth_max: 7 -> 4096\n",
        )
        (tmp_path / "ringbridge.toml").write_text("[node]\nnaem = 1\n")
        # The command reads the file too, for the cookie and the peers.
        status, said = await ringbridge(epmd, bridge, "reload")
        assert (status, "Did you mean name?" in said) == (1, True)


async def test_a_role_is_drained_and_resumed_a_worker_restarted(
    epmd: EpmdDaemon, tmp_path: Path
) -> None:
    async with serving(epmd, tmp_path, alive="cli_drain") as bridge:
        await bridge.wait_workers(3)
        status, said = await ringbridge(epmd, bridge, "drain", "echo")
        assert (status, "echo is drained" in said) == (0, True), said
        status, said = await ringbridge(epmd, bridge, "status")
        assert "draining" in said
        assert (await ringbridge(epmd, bridge, "resume", "echo"))[0] == 0
        assert (await ringbridge(epmd, bridge, "drain"))[0] == 0
        assert (await ringbridge(epmd, bridge, "resume"))[0] == 0
        assert (await ringbridge(epmd, bridge, "restart", "1"))[0] == 0
        await bridge.wait_workers(4)
        assert (await ringbridge(epmd, bridge, "drain", "--worker", "2"))[0] == 0
        await wait_until(lambda: len(bridge.logs("worker ended as asked")) == 2)
        status, said = await ringbridge(epmd, bridge, "drain", "--worker", "99")
        assert (status, "no worker has the id 99" in said) == (1, True)
        assert (await ringbridge(epmd, bridge, "breaker", "echo", "open"))[0] == 0
        assert (
            "echo: its circuit breaker is held_open"
            in (await ringbridge(epmd, bridge, "status"))[1]
        )
        assert (await ringbridge(epmd, bridge, "breaker", "echo", "auto"))[0] == 0
        assert (await ringbridge(epmd, bridge, "breaker", "3", "open"))[0] == 0
        status, said = await ringbridge(epmd, bridge, "status")
        assert "worker 3 (sleep): its circuit breaker is held_open" in said
        status, said = await ringbridge(epmd, bridge, "breaker", "sleep", "close")
        assert "worker 3 has one of its own, held_open: `ringbridge breaker 3 close`" in said
        status, said = await ringbridge(epmd, bridge, "breaker", "nobody", "open")
        assert (status, "there is no such role" in said) == (1, True)


async def test_an_upgrade_shows_its_end_and_a_failed_one_its_reason(
    epmd: EpmdDaemon, tmp_path: Path
) -> None:
    settings = SETTINGS.replace("[roles.echo]", "[roles.echo]\nprobation_ms = 10")
    async with serving(epmd, tmp_path, alive="cli_upgrade", settings=settings) as bridge:
        await bridge.wait_workers(3)
        status, said = await ringbridge(epmd, bridge, "upgrade", "echo")
        assert (status, "echo: 1 of 1 workers replaced" in said) == (0, True), said
        status, said = await ringbridge(epmd, bridge, "upgrade", "echo", "--", "/bin/false", "-x")
        assert status == 1
        assert "echo is as it was before: worker" in said
        assert "exit status 1" in said
        status, said = await ringbridge(epmd, bridge, "status")
        assert "echo: upgrade rolled_back, 0 of 1 workers replaced: worker" in said


async def test_who_is_no_admin_hears_what_to_write(epmd: EpmdDaemon, tmp_path: Path) -> None:
    settings = SETTINGS.replace(f'admin_nodes = ["*@{HOST}"]', "")
    async with serving(epmd, tmp_path, alive="cli_admin", settings=settings) as bridge:
        status, said = await ringbridge(epmd, bridge, "reload")
        assert status == 1
        assert ":reload is for admin nodes" in said
        assert f'admin_nodes = ["ringbridge_*@{HOST}"], then SIGHUP' in said
