"""Large signals beside small ones, and traffic that is too much, with a real BEAM: what is small
flows on, in order, and callers come back in time.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import trio
from node_support import HAS_RELAY, OpenNode, StartBeam, needs_erlang
from services import Counter
from structlog.testing import capture_logs

from bridge.dist.flags import ABLE, OFFERED
from bridge.etf import Atom
from bridge.node import GenServer, NoConnection, relay_carrier
from bridge.testing import Beam

pytestmark = [
    needs_erlang,
    pytest.mark.beam,
    pytest.mark.skipif(not HAS_RELAY, reason="the relay is not built"),
    pytest.mark.parametrize("carrier", [relay_carrier], ids=["relay"]),
]

MIB = 1 << 20
LARGE = 200_000_000


def with_limits(**limits: Any) -> Any:
    from bridge.fabric.relay import RelayLimits

    return partial(relay_carrier, limits=RelayLimits(**limits))


class Sink(GenServer):
    """Notes the size of each binary, and how many calls were answered before it."""

    def __init__(self) -> None:
        self.calls = 0
        self.large: list[tuple[int, int]] = []
        self.arrived = trio.Event()

    async def handle_call(self, request: Any, sender: Any) -> Any:
        if request == Atom("stall"):
            time.sleep(3)  # noqa: ASYNC251  # the interpreter stands still
        self.calls += 1
        return self.calls

    async def handle_cast(self, request: Any) -> None:
        pass

    async def handle_info(self, message: Any) -> None:
        if isinstance(message, bytes):
            self.large.append((len(message), self.calls))
            self.arrived.set()


# Calls `sink` in a loop.
CALLER = """
spawn(fn ->
  loop = fn loop ->
    GenServer.call({:sink, :'NODE'}, :count, 60_000)
    loop.(loop)
  end
  loop.(loop)
end)
"""


async def until(true: Callable[[], bool], within_s: float = 60) -> None:
    """Look until it is so: nothing tells of it."""
    with trio.fail_after(within_s):
        while not true():  # noqa: ASYNC110
            await trio.sleep(0.005)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("flags", [ABLE, OFFERED])
async def test_small_calls_flow_while_200_mb_come_in(
    start_beam: StartBeam, open_test_node: OpenNode, flags: int
) -> None:
    sink = Sink()
    carrier = with_limits(signal_bytes_max=256 * MIB)
    beam = await start_beam().ready()
    async with open_test_node(carrier=carrier, services={"sink": sink}, flags=flags) as node:
        await beam.evaluate(f"GenServer.call({{:sink, :'{node.name}'}}, :count)")
        await beam.evaluate(f"big = :binary.copy(<<7>>, {LARGE}); :made")
        await beam.evaluate(CALLER.replace("NODE", node.name))
        before = sink.calls
        await beam.evaluate(f"spawn(fn -> send({{:sink, :'{node.name}'}}, big) end)")
        with trio.fail_after(60):
            await sink.arrived.wait()
        [(size, calls)] = sink.large
        assert size == LARGE
        assert calls - before >= 5, "small calls pass while the large message comes"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("flags", [ABLE, OFFERED])
async def test_small_calls_flow_while_200_mb_go_out(
    start_beam: StartBeam, open_test_node: OpenNode, flags: int
) -> None:
    sink = Sink()
    carrier = with_limits(outgoing_bytes_max=512 * MIB)
    beam = await start_beam().ready()
    async with open_test_node(carrier=carrier, services={"sink": sink}, flags=flags) as node:
        await beam.evaluate(f"GenServer.call({{:sink, :'{node.name}'}}, :count)")
        await beam.evaluate("Process.register(self(), :driver)")
        await beam.evaluate(
            "spawn(fn -> Process.register(self(), :taker); receive do "
            "big -> send(:driver, {:taken, byte_size(big), :erlang.crc32(big)}) end; "
            "receive do then -> send(:driver, {:then, then}) end end)"
        )
        await beam.evaluate(CALLER.replace("NODE", node.name))
        before = sink.calls
        taker = ("taker", beam.name)
        await node.send(taker, bytes(LARGE))
        node.send_nowait(taker, Atom("behind"))  # the same sender: it stays behind
        got = await beam.evaluate("receive do {:taken, n, crc} -> {n, crc} end")
        assert sink.calls - before >= 5, "small answers pass while the large message goes"
        assert got.startswith(f"{{{LARGE}, ")
        assert await beam.evaluate("receive do {:then, t} -> t end") == ":behind"


@pytest.mark.timeout(60)
async def test_senders_wait_above_the_high_mark_until_the_peer_reads(
    start_beam: StartBeam, open_test_node: OpenNode
) -> None:
    size, count = 100_000, 400
    async with open_test_node(services={"counter": Counter()}) as node:
        beam = await start_beam().ready()
        await beam.evaluate(f"Node.connect(:'{node.name}')")
        pid = int((await beam.evaluate("System.pid()")).strip('"'))
        await beam.evaluate(
            "spawn(fn -> Process.register(self(), :taker); "
            f"order = for n <- 0..{count - 1}, do: (receive do {{^n, b}} -> byte_size(b) end); "
            "receive do {:done, to} -> send(to, {:all, Enum.sum(order)}) end end)"
        )
        sent = 0

        async def send_all() -> None:
            nonlocal sent
            for number in range(count):
                await node.send(("taker", beam.name), (number, bytes(size)))
                sent = number + 1

        conn = node.connections.peers.connection_of(beam.name)
        assert conn is not None
        relay: Any = node._carrier
        os.kill(pid, signal.SIGSTOP)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send_all)
                await until(lambda: bool(relay._rooms))  # the sender waits
                stuck = sent
                assert stuck < count, "it waits before all is sent"
                assert relay.backlog(conn.id) < MIB + 2 * size, "no more than the mark is queued"
                await trio.sleep(0.2)
                assert sent == stuck
                os.kill(pid, signal.SIGCONT)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert sent == count
        await beam.evaluate("send(:taker, {:done, self()})")
        got = await beam.evaluate("receive do {:all, n} -> n after 20_000 -> :missing end")
        assert got == str(size * count)


@pytest.mark.timeout(60)
async def test_senders_that_wait_go_on_when_the_connection_is_lost(
    start_beam: StartBeam, open_test_node: OpenNode
) -> None:
    async with open_test_node() as node:
        beam = await start_beam().ready()
        await beam.evaluate(f"Node.connect(:'{node.name}')")
        pid = int((await beam.evaluate("System.pid()")).strip('"'))
        relay: Any = node._carrier
        returned = trio.Event()

        async def send_much() -> None:
            with suppress(NoConnection):
                while node.connected():
                    await node.send(("nobody", beam.name), bytes(100_000))
                    await trio.lowlevel.checkpoint()
            returned.set()

        os.kill(pid, signal.SIGSTOP)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_much)
            await until(lambda: bool(relay._rooms))
            os.kill(pid, signal.SIGKILL)
            await until(lambda: not node.connected())
            await until(lambda: not relay._rooms)
            with trio.fail_after(60):
                await returned.wait()


@pytest.mark.timeout(60)
async def test_past_the_hard_limit_the_connection_ends_and_the_log_names_it(
    start_beam: StartBeam, open_test_node: OpenNode
) -> None:
    async with open_test_node(carrier=with_limits(outgoing_bytes_max=4 * MIB)) as node:
        beam = await start_beam().ready()
        await beam.evaluate(f"Node.connect(:'{node.name}')")
        pid = int((await beam.evaluate("System.pid()")).strip('"'))
        os.kill(pid, signal.SIGSTOP)
        with capture_logs() as logs, trio.fail_after(20):
            while node.connected():
                node.send_nowait(("nobody", beam.name), bytes(200_000))
                await trio.sleep(0.001)
        lost = [line for line in logs if line["event"] == "connection lost"]
        assert [line["reason"] for line in lost] == [
            "outgoing_limit_reached: the peer does not read"
        ]


@pytest.mark.timeout(90)
async def test_a_call_of_500_ms_returns_in_time_while_the_node_is_overloaded(
    start_beam: StartBeam, open_test_node: OpenNode
) -> None:
    """20 MB for a stalled interpreter: what a BEAM calls meanwhile leaves it, since it is read."""
    sink = Sink()
    beam = await start_beam().ready()
    async with open_test_node(services={"sink": sink}) as node:
        await beam.evaluate(f"sink = {{:sink, :'{node.name}'}}")
        await beam.evaluate("GenServer.call(sink, :count)")
        took_ms = []
        for _ in range(3):
            took = await beam.evaluate(
                "spawn(fn -> GenServer.call(sink, :stall, 20_000) end)\n"
                "Process.sleep(100)\n"
                "for _ <- 1..8, do: spawn(fn -> for _ <- 1..40, do: "
                "GenServer.cast(sink, :binary.copy(<<1>>, 64_000)) end)\n"
                "Process.sleep(100)\n"
                "from = System.monotonic_time(:millisecond)\n"
                "{:timeout, _} = catch_exit = try do GenServer.call(sink, :count, 500) "
                "catch :exit, reason -> reason end\n"
                "_ = catch_exit\n"
                "took = System.monotonic_time(:millisecond) - from\n"
                "GenServer.call(sink, :count, 20_000)\n"
                "took"
            )
            took_ms.append(int(took))
        assert node.connected() == [beam.name]
        # The best of three: the machine that runs this has other things to do as well.
        assert min(took_ms) <= 600, took_ms
        assert max(took_ms) < 3_000, took_ms


async def test_a_message_cut_off_by_a_dying_beam_is_forgotten(
    start_beam: StartBeam, open_test_node: OpenNode
) -> None:
    sink = Sink()
    carrier = with_limits(signal_bytes_max=256 * MIB)
    beam = await start_beam().ready()
    async with open_test_node(carrier=carrier, services={"sink": sink}) as node:
        await beam.evaluate(f"GenServer.call({{:sink, :'{node.name}'}}, :count)")
        pid = int((await beam.evaluate("System.pid()")).strip('"'))
        relay: Any = node._carrier
        before = relay.stats().bytes_in
        big = f":binary.copy(<<7>>, {LARGE})"
        await beam.evaluate(f"spawn(fn -> send({{:sink, :'{node.name}'}}, {big}) end)")
        await until(lambda: relay.stats().bytes_in - before > 100_000)
        os.kill(pid, signal.SIGSTOP)  # in the midst of it
        assert sink.large == []
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not node.connected())
        assert sink.large == []
        other = await start_beam().ready()
        await other.evaluate(f"send({{:sink, :'{node.name}'}}, <<0::size(80000)>>)")
        with trio.fail_after(20):
            await sink.arrived.wait()
        assert sink.large == [(10_000, 1)]


@pytest.mark.parametrize("flags", [ABLE, OFFERED])
async def test_large_terms_come_back_as_they_went(
    beam: Beam, open_test_node: OpenNode, flags: int
) -> None:
    """Fragments of terms whose atoms are references, both ways; answers to aliases as well."""
    async with open_test_node(services={"counter": Counter()}, flags=flags) as node:
        for term in (
            "for n <- 1..40_000, do: {:'an atom', :other, n, self(), make_ref(), nil}",
            "Map.new(1..20_000, fn n -> {n, [:a, :b, :'Elixir.Some.Module', 1.5, \"text\"]} end)",
            ":binary.copy(<<1, 2, 3>>, 1_000_000)",
            'for n <- 1..2_000, do: :"atom number #{n}"',
        ):
            same = await beam.evaluate(
                f"term = {term}; "
                f"term == GenServer.call({{:counter, :'{node.name}'}}, {{:echo, term}}, 20_000)"
            )
            assert same == "true", term
