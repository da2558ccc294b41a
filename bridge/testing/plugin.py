"""pytest fixtures for programs that are nodes: a cluster of their own, BEAMs in it, and our node.

Tests that use them are skipped, with the reason, on a machine that has no Erlang. The asynchronous
ones need pytest-trio.

    async def test_my_service(beam, open_cluster_node):
        async with open_cluster_node(services={"counter": Counter()}) as node:
            call = f'GenServer.call({{:counter, :"{node.name}"}}, {{:add, 5}})'
            assert await beam.evaluate(call) == "5"
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import trio

from bridge.node import EpmdClient, Node, open_node
from bridge.testing.beam import COOKIE, Beam, Language, missing_programs
from bridge.testing.epmd_daemon import HOST, EpmdDaemon

StartBeam = Callable[..., Beam]
OpenNode = Callable[..., AbstractAsyncContextManager[Node]]

_serial = itertools.count(1)
_shared: list[Beam] = []  # the one that tests share is the last


def _skip_without(language: Language) -> None:
    if missing := missing_programs(language):
        pytest.skip(f"no {' and no '.join(missing)} on this machine")


@pytest.fixture(scope="session")
def epmd() -> Iterator[EpmdDaemon]:
    """A private epmd for the whole run."""
    _skip_without("erlang")
    daemon = EpmdDaemon()
    yield daemon
    daemon.close()


@pytest.fixture
def start_beam(epmd: EpmdDaemon) -> Iterator[StartBeam]:
    """start_beam(alive=None, **options of Beam): a BEAM of this test; `await .ready()` before
    use.
    """
    started: list[Beam] = []

    def start(alive: str | None = None, **options: Any) -> Beam:
        _skip_without(options.get("language", "elixir"))
        started.append(Beam(alive or f"beam{next(_serial)}", epmd.port, **options))
        return started[-1]

    yield start
    for beam in started:
        beam.close()


@pytest.fixture(scope="session")
def _shared_beams() -> Iterator[None]:
    yield
    while _shared:
        _shared.pop().close()


@pytest.fixture
async def beam(epmd: EpmdDaemon, _shared_beams: None) -> Beam:
    """A BEAM that tests share until one loses it. Each has a process of its own in it, so that no
    message, monitor or binding of one is another's.
    """
    _skip_without("elixir")
    if _shared:
        try:
            with trio.fail_after(5):
                return await _shared[-1].anew()
        except (trio.BrokenResourceError, trio.TooSlowError):
            _shared.pop().close()
    _shared.append(await Beam(f"shared{next(_serial)}", epmd.port).ready())
    return _shared[-1]


@pytest.fixture
def open_cluster_node(epmd: EpmdDaemon) -> OpenNode:
    """open_cluster_node(alive=None, **options of open_node): our node beside the BEAMs."""

    @asynccontextmanager
    async def open_it(alive: str | None = None, **options: Any) -> AsyncIterator[Node]:
        options = {
            "cookie": COOKIE,
            "epmd": EpmdClient(port=epmd.port, if_absent="fail"),
            **options,
        }
        async with open_node(f"{alive or f'py{next(_serial)}'}@{HOST}", **options) as node:
            yield node

    return open_it
