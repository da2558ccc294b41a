"""docs/processes.md: its first program does what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from node_support import HAS_RELAY, needs_erlang

from bridge.node import EpmdClient
from bridge.testing import COOKIE, HOST, Beam, EpmdDaemon

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "processes.md").read_text()


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
    command = [sys.executable, "-c", program[1]]
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) as process:
        yield process
        process.kill()


async def test_the_first_program(
    epmd: EpmdDaemon, beam: Beam, first_program: subprocess.Popen[bytes]
) -> None:
    session = re.search(r"iex> (.*)\n    (.*)\n", PAGE)
    assert session is not None
    while await EpmdClient(port=epmd.port).lookup("shop", HOST) is None:
        assert first_program.poll() is None, "the program ended"
    assert await beam.evaluate(session[1]) == session[2]
    stock = re.search(r"\{:stock, [^}]*\}", session[1])
    assert stock is not None
    assert await beam.evaluate(
        f'GenServer.cast({stock[0]}, {{:put, "pen", 10}}); '
        f'GenServer.call({stock[0]}, {{:take, "pen"}})'
    ) == ("9")
