"""The proxy before a node, and the epmd that sends callers to it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio

from bridge.chaos.detour import open_detour
from bridge.chaos.lane import Shape
from bridge.dist.errors import EpmdError
from bridge.node import EpmdClient, GenServer, Sender
from bridge.testing import HOST, Beam, EpmdDaemon
from bridge.testing.plugin import OpenNode

pytestmark = [
    pytest.mark.beam,
    pytest.mark.skipif(shutil.which("elixir") is None, reason="no elixir on this machine"),
]


class Echoes(GenServer):
    async def handle_call(self, request: Any, sender: Sender) -> Any:
        return request


async def test_a_beam_that_asks_the_second_epmd_comes_through_the_proxy(
    epmd: EpmdDaemon, open_cluster_node: OpenNode
) -> None:
    first = EpmdClient(port=epmd.port, if_absent="fail")
    async with (
        open_cluster_node(services={"echoes": Echoes()}) as node,
        open_detour(node.name, first, Shape(piece_bytes=5)) as detour,
    ):
        with closing(Beam("detoured", detour.epmd_port)) as beam:
            await beam.ready()
            call = f"GenServer.call({{:echoes, :'{node.name}'}}, :hello)"
            assert await beam.evaluate(call) == ":hello"
            assert detour.proxy.statistics.open == 1
            await beam.evaluate(f"Node.monitor(:'{node.name}', true)")
            detour.proxy.cut()
            down = "receive do {:nodedown, _} -> :down after 20_000 -> :still_up end"
            assert await beam.evaluate(down) == ":down"
            assert await beam.evaluate(call) == ":hello"
            assert detour.proxy.statistics.accepted == 2


async def test_a_detour_to_nobody_says_so(epmd: EpmdDaemon) -> None:
    client = EpmdClient(port=epmd.port, if_absent="fail")
    with pytest.raises(EpmdError, match="no node nobody@"):
        async with open_detour(f"nobody@{HOST}", client):
            pass


async def test_the_command_stands_before_a_node_until_it_is_ended(
    epmd: EpmdDaemon, open_cluster_node: OpenNode
) -> None:
    async with open_cluster_node() as node:
        alive = node.name.partition("@")[0]
        main = "import sys; from bridge.cli import main; sys.exit(main())"
        command = [sys.executable, "-c", main, "chaos", "proxy", node.name, "--piece-bytes", "9"]
        root = str(Path(__file__).parents[2])
        with subprocess.Popen(  # noqa: ASYNC220 - it is ended by a signal
            command,
            env={**os.environ, "ERL_EPMD_PORT": str(epmd.port), "PYTHONPATH": root},
            stdout=subprocess.PIPE,
            text=True,
        ) as program:
            try:
                assert program.stdout is not None
                said = await trio.to_thread.run_sync(
                    program.stdout.readline, abandon_on_cancel=True
                )
                second = EpmdClient(port=int(said.rpartition("=")[2]), if_absent="fail")
                port = await second.lookup(alive, HOST)
                assert f"{node.name} by way of port {port}: " in said
                program.send_signal(signal.SIGINT)
                assert await trio.to_thread.run_sync(program.wait, abandon_on_cancel=True) == 0
            finally:
                program.kill()
