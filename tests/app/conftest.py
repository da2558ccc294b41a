"""Fixtures of the end-to-end tests: a private epmd and a real BEAM."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
# The drivers of a BEAM and of epmd are the node's, the witnesses of processes the shepherd's.
sys.path[:0] = [str(TESTS / "node"), str(TESTS / "workers")]

from beam_node import Beam, Epmd  # noqa: E402


@pytest.fixture(scope="session")
def epmd() -> Iterator[Epmd]:
    server = Epmd()
    yield server
    server.close()


@pytest.fixture(scope="session")
def beam(epmd: Epmd) -> Iterator[Beam]:
    """One real Elixir node for all tests; `await ask(beam, ...)` of serve_support drives it."""
    node = Beam("caller", epmd.port)
    yield node
    node.close()
