"""Fixtures of the end-to-end tests: a real BEAM for all of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.testing import Beam, EpmdDaemon

TESTS = Path(__file__).parents[1]
# What drives a node is the node's, the witnesses of processes are the shepherd's.
sys.path[:0] = [str(TESTS / "node"), str(TESTS / "workers")]


@pytest.fixture(scope="session")
def _caller(epmd: EpmdDaemon) -> Iterator[Beam]:
    node = Beam("caller", epmd.port)
    yield node
    node.close()


@pytest.fixture
async def beam(_caller: Beam) -> Beam:
    """One real Elixir node for all tests, in which each has a process of its own; `await ask(beam,
    ...)` of serve_support drives it.
    """
    return await _caller.anew()
