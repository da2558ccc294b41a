"""`ringbridge serve` where there is no epmd: it is one itself, or does without."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from serve_support import BIN, SETTINGS, ask, serving

from bridge.node import EpmdClient
from bridge.testing import COOKIE, HOST, Beam

pytestmark = [
    pytest.mark.beam,
    pytest.mark.skipif(shutil.which("elixir") is None, reason="no Elixir here"),
    pytest.mark.skipif(not (BIN / "rb-echo").exists(), reason="make workers has not run"),
]


def nobody() -> Any:
    """Where an epmd could be, and none is."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return SimpleNamespace(port=probe.getsockname()[1])


async def status(folder: Path, epmd_port: int) -> str:
    """What `ringbridge status` prints for the settings in `folder`."""
    done = await trio.run_process(
        [sys.executable, "-c", "from bridge.cli import main; main()", "status"],
        cwd=folder,
        env={
            **os.environ,
            "RINGBRIDGE_COOKIE": COOKIE,
            "ERL_EPMD_PORT": str(epmd_port),
            "PYTHONPATH": str(Path(__file__).parents[2]),
        },
        capture_stdout=True,
    )
    return done.stdout.decode()


async def test_a_bridge_is_epmd_where_there_is_none(tmp_path: Path) -> None:
    epmd = nobody()
    settings = SETTINGS.replace("[node]", '[node]\nepmd = "own"')
    async with serving(epmd, tmp_path, alive="ownbridge", settings=settings) as bridge:
        beam = Beam("atbridge", epmd.port)
        try:
            call = f'GenServer.call({bridge.target()}, {{:submit, :echo, "x"}})'
            assert await ask(beam, call) == '{:ok, "x"}'
            names = await EpmdClient(port=epmd.port).names()
            assert set(names) == {"ownbridge", "atbridge"}
        finally:
            beam.close()
        assert await bridge.terminate() == 0


async def test_a_bridge_without_epmd_is_found_by_its_port_and_finds_by_its_table(
    tmp_path: Path,
) -> None:
    epmd, port = nobody(), nobody().port
    beam = Beam(
        "tablebeam",
        epmd.port,
        arguments=f"-erl_epmd_port {port} -start_epmd false",
        host="127.0.0.2",
        interface="{127,0,0,2}",
    )
    name = f"tablebridge@{HOST}"
    settings = SETTINGS.replace(
        "[node]",
        f'[node]\nname = "{name}"\nepmd = "none"\nport = {port}\npeers = {{"*@*" = {port}}}\n'
        f'keep_connected = ["{beam.name}"]',
    )
    try:
        await beam.ready()
        async with serving(epmd, tmp_path, alive="tablebridge", settings=settings) as bridge:
            await bridge.wait_log("connection up")  # the bridge's own doing
            assert name in await beam.evaluate("Node.list(:hidden)")
            call = f'GenServer.call({bridge.target()}, {{:submit, :echo, "x"}})'
            assert await beam.evaluate(call) == '{:ok, "x"}'
            assert "tablebridge" in await status(tmp_path, epmd.port)
    finally:
        beam.close()
