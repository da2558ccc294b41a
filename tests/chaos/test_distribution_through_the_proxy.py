"""A connection between our node and a real BEAM, with trouble on its wire."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import trio
from chaos_support import until

from bridge.chaos.lane import Shape
from bridge.chaos.proxy import Proxy, open_proxy
from bridge.dist.handshake_events import Identity
from bridge.etf import Atom
from bridge.fabric.relay import Relay, RelayLimits
from bridge.node import EpmdClient, EventCarrier, NoConnection, Node, NodeDown, ProcessDown
from bridge.testing import HOST, Beam, EpmdDaemon
from bridge.testing.plugin import OpenNode

pytestmark = [
    pytest.mark.beam,
    pytest.mark.skipif(shutil.which("elixir") is None, reason="no elixir on this machine"),
]

USUAL = RelayLimits()
QUICK = RelayLimits(tick_ms=500, silence_ms=2_500)  # a ticktime of 2 s

SERVER = """
defmodule Echoes do
  use GenServer
  def init(state), do: {:ok, state}
  def handle_call(:never, _from, state), do: {:noreply, state}
  def handle_call(term, _from, state), do: {:reply, term, state}
end
case GenServer.start(Echoes, 0, name: :echoes) do
  {:ok, _} -> :ok
  {:error, {:already_started, _}} -> :ok
end
"""


class Wire:
    """Our node, a BEAM with a server that echoes, and the proxy between the two."""

    def __init__(self, node: Node, proxy: Proxy, beam: Beam) -> None:
        self.node, self.proxy, self.beam = node, proxy, beam
        self.server = ("echoes", beam.name)


@asynccontextmanager
async def wire(
    beam: Beam,
    epmd: EpmdDaemon,
    open_node: OpenNode,
    shape: Shape | None = None,
    limits: RelayLimits = USUAL,
) -> AsyncIterator[Wire]:
    await beam.evaluate(SERVER)
    alive, _, host = beam.name.partition("@")
    port = await EpmdClient(port=epmd.port, if_absent="fail").lookup(alive, host)
    assert port is not None
    async with open_proxy(HOST, port, shape, seed=1) as proxy:
        peers = {beam.name: proxy.port}
        async with open_node(listen=False, peers=peers, carrier=relaying(limits)) as node:
            yield Wire(node, proxy, beam)


Carrying = Callable[[Identity], AbstractAsyncContextManager[EventCarrier]]


def relaying(limits: RelayLimits) -> Carrying:
    """The relay, with these limits."""

    @asynccontextmanager
    async def open_relay(identity: Identity) -> AsyncIterator[EventCarrier]:
        relay = Relay(node=identity.name, creation=identity.creation, limits=limits)
        try:
            yield relay
        finally:
            relay.close()

    return open_relay


@pytest.mark.parametrize(
    "shape",
    [
        Shape(piece_bytes=3),
        Shape(delay_ms=5, jitter_ms=20, piece_bytes=40),
        Shape(bytes_per_s=400_000, piece_bytes=1_000),
    ],
    ids=str,
)
async def test_handshake_and_calls_pass_a_bad_wire(
    shape: Shape, beam: Beam, epmd: EpmdDaemon, open_cluster_node: OpenNode
) -> None:
    async with wire(beam, epmd, open_cluster_node, shape) as w:
        payload = bytes(range(256)) * 64
        for n in range(5):
            assert await w.node.call(w.server, (n, payload), timeout=30) == (n, payload)
        assert w.proxy.statistics.passed > 10 * len(payload)


async def test_a_cut_ends_what_waits_and_the_next_call_dials_again(
    beam: Beam, epmd: EpmdDaemon, open_cluster_node: OpenNode
) -> None:
    async with wire(beam, epmd, open_cluster_node) as w:
        assert await w.node.call(w.server, 1) == 1

        async def waiting() -> None:
            with pytest.raises((ProcessDown, NoConnection)) as told:
                await w.node.call(w.server, Atom("never"), timeout=30)
            assert "noconnection" in str(told.value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiting)
            seen = w.proxy.statistics.passed
            await until(lambda: w.proxy.statistics.passed >= seen + 20)
            assert w.proxy.cut() == 1
        assert await w.node.call(w.server, 2, timeout=30) == 2
        assert w.proxy.statistics.accepted == 2
        assert w.node.statistics().pending_answers == 0


async def test_a_cut_at_any_byte_leaves_a_node_that_connects(
    beam: Beam, epmd: EpmdDaemon, open_cluster_node: OpenNode
) -> None:
    """The handshake is some 200 bytes in each direction; then come the first signals."""
    async with wire(beam, epmd, open_cluster_node) as w:
        failed = 0
        for cut in range(1, 260, 5):
            w.proxy.shape = Shape(cut_after_bytes=cut)
            try:
                assert await w.node.call(w.server, cut, timeout=20) == cut
            except (NoConnection, ProcessDown):
                failed += 1
        assert failed > 20
        w.proxy.shape = Shape()
        w.proxy.cut()
        with trio.fail_after(20):  # the BEAM may take us for connected until it has read the end
            while not await w.node.ping(w.beam.name):  # noqa: ASYNC110 - a BEAM tells nobody
                await trio.sleep(0.02)
        assert await w.node.call(w.server, 0, timeout=20) == 0
        assert w.node.statistics().pending_answers == 0


async def test_a_still_wire_is_a_node_that_is_down(
    beam: Beam, epmd: EpmdDaemon, open_cluster_node: OpenNode
) -> None:
    async with wire(beam, epmd, open_cluster_node, limits=QUICK) as w:
        await w.node.call(w.server, 1)
        with w.node.monitor_nodes() as events, trio.fail_after(30):
            w.proxy.shape = Shape(still=True)
            down = await anext(events)
            assert isinstance(down, NodeDown)
            assert down.node == w.beam.name
        assert w.proxy.statistics.cut == 0
