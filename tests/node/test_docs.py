"""docs/node.md and docs/rpc.md: their first programs do what the pages say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from node_support import HAS_RELAY, OpenNode, needs_erlang

from bridge.node import EpmdClient
from bridge.testing import COOKIE, HOST, Beam, BeamError, EpmdDaemon

ROOT = Path(__file__).parents[2]
ASKED = re.compile(r"iex> (.*)")
PAGE = (ROOT / "docs" / "node.md").read_text()

pytestmark = [
    needs_erlang,
    pytest.mark.beam,
    pytest.mark.skipif(not HAS_RELAY, reason="the relay is not built"),
]


@pytest.fixture
def first_program(epmd: EpmdDaemon) -> Iterator[subprocess.Popen[bytes]]:
    program = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert program is not None
    env = {
        **os.environ,
        "RINGBRIDGE_COOKIE": COOKIE,
        "ERL_EPMD_PORT": str(epmd.port),
        "PYTHONPATH": str(ROOT),
    }
    with subprocess.Popen(
        [sys.executable, "-c", program[1]], env=env, stdout=subprocess.DEVNULL
    ) as process:
        yield process
        process.kill()


async def test_the_first_program(
    epmd: EpmdDaemon, beam: Beam, first_program: subprocess.Popen[bytes]
) -> None:
    session = re.search(r"iex> (.*)\n    (.*)\n", PAGE)
    assert session is not None
    while await EpmdClient(port=epmd.port).lookup("py", HOST) is None:
        assert first_program.poll() is None, "the program ended"
        await trio.lowlevel.checkpoint()
    assert await beam.evaluate(session[1]) == session[2]


async def test_the_functions_of_the_page_on_rpc(beam: Beam, open_test_node: OpenNode) -> None:
    page = (ROOT / "docs" / "rpc.md").read_text()
    program = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert program is not None
    names: dict[str, Any] = {}
    exec(program[1], names)  # noqa: S102  # our own page
    async with open_test_node(exports=names["exports"]) as node:
        add, fetch = (line.replace("py@127.0.0.1", node.name) for line in ASKED.findall(page))
        assert await beam.evaluate(add) == "3"
        with pytest.raises(BeamError, match=r"\{:exception, \{:not_found, :x\}"):
            await beam.evaluate(fetch)
        assert "looking for :x\n" in beam.output
        ticker = f"Node.spawn_link(:'{node.name}', MyApp.Ticker, :tick, [self(), 0.01])"
        tick = "receive do m -> m after 3000 -> :none end"
        assert await beam.evaluate(f"p = {ticker}; m = {tick}; Process.unlink(p); m") == ":tick"
        await beam.evaluate("Process.exit(p, :kill)")
        await node.executions.wait_none()
        await beam.evaluate("Process.sleep(20)")
        flush = "flush = fn f -> receive do _ -> f.(f) after 0 -> :ok end end; flush.(flush)"
        assert await beam.evaluate(flush) == ":ok"
