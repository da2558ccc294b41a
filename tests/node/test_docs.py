"""docs/node.md, processes.md and rpc.md: their first programs do what the pages say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from node_support import HAS_RELAY, OpenNode, needs_erlang

from bridge.node import EpmdClient
from bridge.testing import COOKIE, HOST, Beam, BeamError, EpmdDaemon

ROOT = Path(__file__).parents[2]
ASKED = re.compile(r"iex> (.*)")
PAGES = {name: (ROOT / "docs" / f"{name}.md").read_text() for name in ("node", "processes", "rpc")}

pytestmark = [
    needs_erlang,
    pytest.mark.beam,
    pytest.mark.skipif(not HAS_RELAY, reason="the relay is not built"),
]


@contextmanager
def first_program(page: str, epmd: EpmdDaemon) -> Iterator[subprocess.Popen[bytes]]:
    program = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert program is not None
    env = {
        **os.environ,
        "RINGBRIDGE_COOKIE": COOKIE,
        "ERL_EPMD_PORT": str(epmd.port),
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-c", program[1]]
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


STOCK = '{:stock, :"shop@127.0.0.1"}'


@pytest.mark.parametrize(
    ("name", "alive", "more"),
    [
        ("node", "py", {}),
        (
            "processes",
            "shop",
            {
                f'GenServer.cast({STOCK}, {{:put, "pen", 10}}); '
                f'GenServer.call({STOCK}, {{:take, "pen"}})': "9"
            },
        ),
    ],
)
async def test_the_first_program_of_a_page(
    epmd: EpmdDaemon, beam: Beam, name: str, alive: str, more: dict[str, str]
) -> None:
    page = PAGES[name]
    session = re.search(r"iex> (.*)\n    (.*)\n", page)
    assert session is not None
    with first_program(page, epmd) as process:
        while await EpmdClient(port=epmd.port).lookup(alive, HOST) is None:
            assert process.poll() is None, "the program ended"
        assert await beam.evaluate(session[1]) == session[2]
        for typed, printed in more.items():
            assert await beam.evaluate(typed) == printed


async def test_the_functions_of_the_page_on_rpc(beam: Beam, open_test_node: OpenNode) -> None:
    page = PAGES["rpc"]
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
