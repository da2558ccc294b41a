"""Fixtures: a private epmd per run, BEAMs, and our node over each carrier that there is."""

from __future__ import annotations

import importlib.util
import itertools
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import trio
from beam_node import COOKIE, HOST, Beam, Epmd
from plain_carrier import plain_carrier

from bridge.dist.flags import DIST_HDR_ATOM_CACHE, OFFERED
from bridge.node import EpmdClient, Node, open_node, relay_carrier

needs_erlang = pytest.mark.skipif(
    shutil.which("elixir") is None or shutil.which("epmd") is None, reason="no Erlang here"
)
HAS_RELAY = importlib.util.find_spec("bridge.fabric._core") is not None
needs_relay = pytest.mark.skipif(not HAS_RELAY, reason="the relay is not built")
OpenNode = Callable[..., AbstractAsyncContextManager[Node]]
StartBeam = Callable[..., Beam]

_serial = itertools.count(1)


@pytest.fixture(scope="session")
def epmd() -> Iterator[Epmd]:
    server = Epmd()
    yield server
    server.close()


_shared: list[Beam] = []


@pytest.fixture(scope="session")
def shared_beams() -> Iterator[None]:
    yield
    for beam in _shared:
        beam.close()


@pytest.fixture
async def beam(epmd: Epmd, shared_beams: None) -> Beam:
    """A BEAM that tests share, until one loses it or leaves something in its mailbox."""
    if _shared:
        try:
            with trio.fail_after(5):
                clean = await _shared[-1].evaluate("Process.info(self(), :messages) |> elem(1)")
        except (AssertionError, OSError, trio.TooSlowError):
            clean = "no"
        if clean == "[]":
            await _shared[-1].evaluate("Process.flag(:trap_exit, false)")
            return _shared[-1]
        _shared.pop().close()
    _shared.append(await Beam(f"shared{next(_serial)}", epmd.port).ready())
    return _shared[-1]


@pytest.fixture
def start_beam(epmd: Epmd) -> Iterator[StartBeam]:
    """start_beam(alive=None, cookie=..., arguments=...): a BEAM of this test; `await .ready()`
    before use.
    """
    started: list[Beam] = []

    def start(alive: str | None = None, **options: Any) -> Beam:
        started.append(Beam(alive or f"beam{next(_serial)}", epmd.port, **options))
        return started[-1]

    yield start
    for beam in started:
        beam.close()


@pytest.fixture(
    params=[
        pytest.param(plain_carrier, id="plain"),
        pytest.param(
            relay_carrier,
            id="relay",
            marks=pytest.mark.skipif(not HAS_RELAY, reason="the relay is not built"),
        ),
    ]
)
def carrier(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def open_test_node(epmd: Epmd, carrier: Any) -> OpenNode:
    """open_test_node(alive=None, **options of open_node): our node in the tests' cluster."""

    @asynccontextmanager
    async def open_it(alive: str | None = None, **options: Any) -> AsyncIterator[Node]:
        options = {
            "cookie": COOKIE,
            "epmd": EpmdClient(port=epmd.port, if_absent="fail"),
            "carrier": carrier,
            # The double has no atom cache.
            "flags": OFFERED if carrier is relay_carrier else OFFERED & ~DIST_HDR_ATOM_CACHE,
            **options,
        }
        async with open_node(f"{alive or f'py{next(_serial)}'}@{HOST}", **options) as node:
            yield node

    return open_it


@pytest.fixture
def open_tls_node(epmd: Epmd) -> OpenNode:
    """As open_test_node, over the relay, which alone does TLS."""

    @asynccontextmanager
    async def open_it(alive: str | None = None, **options: Any) -> AsyncIterator[Node]:
        client = EpmdClient(port=epmd.port, if_absent="fail")
        options = {"cookie": COOKIE, "epmd": client, **options}
        async with open_node(f"{alive or f'tlspy{next(_serial)}'}@{HOST}", **options) as node:
            yield node

    return open_it
