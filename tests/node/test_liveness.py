"""Who lives and who does not: ticks both ways, a death by SIGKILL, claims that stall."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from node_support import HAS_RELAY, OpenNode, StartBeam, needs_erlang
from test_oracle import Wire

from bridge.dist.flags import OFFERED
from bridge.dist.handshake_events import Identity
from bridge.dist.handshake_messages import Name
from bridge.node import EpmdClient, EventCarrier, NodeDown, NodeUp, open_node
from bridge.testing import COOKIE, HOST, Beam, EpmdDaemon

pytestmark = [needs_erlang, pytest.mark.beam]
needs_relay = pytest.mark.skipif(not HAS_RELAY, reason="the relay is not built")
TICKTIME_S = 4  # the least that a BEAM of OTP 25 takes with its four ticks in it
MONITOR_NODES = ":ok = :net_kernel.monitor_nodes({on}, [:nodedown_reason, {{:node_type, :all}}])"
QUICK_TICKS = f"-kernel net_ticktime {TICKTIME_S}"


@asynccontextmanager
async def quick_relay(identity: Identity) -> AsyncIterator[EventCarrier]:
    """The relay with TICKTIME_S, as [node] net_ticktime_s sets it."""
    from bridge.fabric.relay import Relay, RelayLimits

    quarter_ms = TICKTIME_S * 250
    limits = RelayLimits(tick_ms=quarter_ms, silence_ms=5 * quarter_ms)
    relay = Relay(node=identity.name, creation=identity.creation, limits=limits)
    try:
        yield relay
    finally:
        relay.close()


@needs_relay
async def test_ticks_hold_an_idle_connection_and_silence_ends_it_on_either_side(
    epmd: EpmdDaemon, start_beam: StartBeam
) -> None:
    """Idle for longer than any ticktime the connection stays; a BEAM that is stopped is gone after
    it; a node of ours that is stopped is gone for the BEAM.
    """
    beam = await start_beam(arguments=QUICK_TICKS).ready()
    client = EpmdClient(port=epmd.port, if_absent="fail")
    async with open_node(
        f"pyticks@{HOST}", cookie=COOKIE, epmd=client, carrier=quick_relay
    ) as node:
        await node.connect(beam.name)
        await beam.evaluate(f"Node.monitor(:'{node.name}', true)")
        with node.monitor_nodes() as events:
            with trio.move_on_after(1.5 * TICKTIME_S + 1):
                pytest.fail(f"the idle connection went: {await anext(events)}")
            assert await beam.evaluate("receive do m -> m after 0 -> :quiet end") == ":quiet"
            os.kill(beam.pid, signal.SIGSTOP)
            started = trio.current_time()
            try:
                with trio.fail_after(60):
                    down = await anext(events)
            finally:
                os.kill(beam.pid, signal.SIGCONT)
            assert isinstance(down, NodeDown)
            assert trio.current_time() - started >= 0.75 * TICKTIME_S


PROGRAM = f"""
import sys, trio
from bridge.node import open_node
async def main():
    async with open_node("{{name}}", cookie="{COOKIE}"):
        print("up", flush=True)
        await trio.sleep_forever()
trio.run(main)
"""


@asynccontextmanager
async def our_program(name: str, epmd: EpmdDaemon) -> AsyncIterator[subprocess.Popen[bytes]]:
    """A node of ours in a process of its own, over the relay."""
    root = str(Path(__file__).parents[2])
    env = {**os.environ, "ERL_EPMD_PORT": str(epmd.port), "PYTHONPATH": root}
    program = subprocess.Popen(  # noqa: ASYNC220 - it is killed by the tests
        [sys.executable, "-c", PROGRAM.format(name=name)], env=env, stdout=subprocess.PIPE
    )
    try:
        assert program.stdout is not None
        assert await trio.to_thread.run_sync(program.stdout.readline) == b"up\n"
        yield program
    finally:
        program.kill()
        program.wait()
        assert program.stdout is not None
        program.stdout.close()


@needs_relay
async def test_a_beam_hears_nodedown_when_we_are_killed(epmd: EpmdDaemon, beam: Beam) -> None:
    name = f"pykilled@{HOST}"
    async with our_program(name, epmd) as program:
        await beam.evaluate(MONITOR_NODES.format(on="true"))
        assert await beam.evaluate(f"Node.connect(:'{name}')") == "true"
        await beam.evaluate(f"Node.monitor(:'{name}', true)")
        up = "receive do {:nodeup, _, info} -> info[:node_type] after 5000 -> :nothing end"
        assert await beam.evaluate(up) == ":hidden"
        program.send_signal(signal.SIGKILL)
        down = "receive do {:nodedown, n} -> n after 5000 -> :nothing end"
        assert await beam.evaluate(down) == f':"{name}"'
        why = "receive do {:nodedown, _, info} -> info[:nodedown_reason] after 5000 -> :nothing end"
        assert await beam.evaluate(why) == ":connection_closed"
        await beam.evaluate(MONITOR_NODES.format(on="false"))
        while "pykilled" in await EpmdClient(port=epmd.port).names():
            await trio.lowlevel.checkpoint()


@needs_relay
async def test_a_beam_gives_us_up_when_we_are_stopped(
    epmd: EpmdDaemon, start_beam: StartBeam
) -> None:
    beam = await start_beam(arguments=QUICK_TICKS).ready()
    name = f"pystopped@{HOST}"
    async with our_program(name, epmd) as program:
        assert await beam.evaluate(f"Node.connect(:'{name}')") == "true"
        await beam.evaluate(f"Node.monitor(:'{name}', true)")
        program.send_signal(signal.SIGSTOP)
        heard = "receive do {:nodedown, n} -> n after 60_000 -> :nothing end"
        assert await beam.evaluate(heard) == f':"{name}"'


async def test_a_stranger_who_claims_a_name_keeps_nobody_from_its_owner(
    epmd: EpmdDaemon, open_test_node: OpenNode
) -> None:
    """Claims are free; neither do they end an attempt of ours, nor hold one up for long."""
    async with open_test_node("claimed_a") as node, open_test_node("claimed_z") as peer:
        port = (await EpmdClient(port=epmd.port).names())["claimed_a"]
        streams = [await trio.open_tcp_stream(HOST, port) for _ in range(3)]
        for stream in streams:
            await Wire(stream).send(Name(OFFERED, 1, peer.name).encode())
        while node.connections.peers.claims_of(peer.name) < 3:
            await trio.lowlevel.checkpoint()
        with node.monitor_nodes() as events, trio.fail_after(60):
            await node.connect(peer.name)
            assert await anext(events) == NodeUp(peer.name)
        assert await peer.ping(node.name)
        for stream in streams:
            await stream.aclose()
