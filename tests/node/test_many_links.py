"""Ten thousand links and monitors, held and broken at once: what hangs on a node or a process costs
what it is, and what hangs on others costs nothing.
"""

from __future__ import annotations

import time

import pytest
import trio
from node_support import HAS_RELAY, OpenNode, needs_erlang
from router_support import CREATION, PEER, US, YOU, Box, World, ref

from bridge.dist import control as c
from bridge.etf import Atom, Pid
from bridge.node import ProcessHandle, relay_carrier
from bridge.testing import Beam

COUNT = 10_000
BOUND_S = 1.0  # of the processor, whoever else wants it; a tenth of it is what it takes


def peers(count: int) -> list[Pid]:
    return [Pid(Atom(PEER), number, 0, 4) for number in range(count)]


def linked_world() -> tuple[World, Box]:
    """One process of ours with COUNT links and monitors in each direction."""
    world = World()
    process, box = world.spawn(trap_exit=True)
    for number, peer in enumerate(peers(COUNT)):
        if number % 2:
            world.router.link(process, peer)
        else:
            world.receive(c.Link(peer, process.pid))
        world.router.monitor(process, peer)
        world.receive(c.MonitorP(peer, process.pid, ref(number)))
    world.take_sent()
    return world, box


def test_a_lost_connection_breaks_them_at_once() -> None:
    world, box = linked_world()
    world.connected = False
    began = time.thread_time()
    world.router.connection_lost(PEER)
    assert time.thread_time() - began < BOUND_S
    assert len(box.signals) == 2 * COUNT
    counts = world.router.counts()
    assert (counts["monitors_held"], counts["monitors_on_us"]) == (0, 0)


def test_the_end_of_a_process_tells_everybody_at_once() -> None:
    world, _ = linked_world()
    (process,) = world.router.table
    began = time.thread_time()
    world.router.terminate(process, Atom("bad"))
    assert time.thread_time() - began < BOUND_S
    sent = world.take_sent()
    kinds = [type(message) for message in sent]
    assert kinds == [c.DemonitorP] * COUNT + [c.Exit] * COUNT + [c.MonitorPExit] * COUNT


def test_ten_thousand_processes_fall_with_one() -> None:
    world = World()
    first, _ = world.spawn()
    for _ in range(COUNT):
        process, _ = world.spawn()
        world.router.link(process, first.pid)
        world.router.monitor(process, first.pid)
    began = time.thread_time()
    world.router.terminate(first, Atom("bad"))
    assert time.thread_time() - began < BOUND_S
    assert len(world.router.table) == 0
    assert world.router.counts()["monitors_held"] == 0


def test_what_hangs_on_other_nodes_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    world, box = linked_world()
    began = time.thread_time()
    for _ in range(1000):
        world.router.connection_lost("other@h")
    assert time.thread_time() - began < BOUND_S  # a look at each link would take a minute
    assert box.signals == []


def test_nothing_of_them_stays() -> None:
    world, _ = linked_world()
    world.router.connection_lost(PEER)
    (process,) = world.router.table
    assert (len(process.links), process.watchers, process.watching) == (0, {}, set())
    assert process.pid == Pid(Atom(US), 1, 0, CREATION)
    assert world.router._link_index.owners(PEER) == []
    assert YOU.node == Atom(PEER)


@needs_erlang
@pytest.mark.beam
@pytest.mark.parametrize(
    "carrier",
    [pytest.param(relay_carrier, marks=pytest.mark.skipif(not HAS_RELAY, reason="not built"))],
)
async def test_ten_thousand_of_a_beam(beam: Beam, open_test_node: OpenNode) -> None:
    """Links and monitors of 10,000 BEAM processes on one of ours; it ends, and all of them hear."""

    async def run(me: ProcessHandle) -> None:
        await me.receive(Atom("stop"))

    async with open_test_node() as node:
        pid = await node.spawn(run, name="it")
        await beam.evaluate(f"""
        it = :sys.get_status({{:it, :'{node.name}'}}) |> elem(1)
        me = self()
        hear = fn ->
          Process.flag(:trap_exit, true)
          Process.link(it)
          ref = Process.monitor(it)
          send(me, :ready)
          receive do {{:EXIT, ^it, :enough}} -> :ok end
          receive do {{:DOWN, ^ref, _, _, :enough}} -> :ok end
          send(me, :heard)
        end
        for _ <- 1..{COUNT}, do: spawn(hear)
        for _ <- 1..{COUNT}, do: receive(do: (:ready -> :ok))
        :ok
        """)
        process = node.router.table.find(pid)
        assert process is not None
        with trio.fail_after(60):
            while node.statistics().monitors_on_us < COUNT or len(process.links) < COUNT:
                await trio.lowlevel.checkpoint()  # the last of them are on their way
        began = time.thread_time()
        heard = await beam.evaluate(f"""
        Process.exit(it, :enough)
        for(_ <- 1..{COUNT}, do: receive(do: (:heard -> :ok))) |> length()
        """)
        took = time.thread_time() - began
        assert heard == str(COUNT)
        assert took < BOUND_S
        assert node.statistics().monitors_on_us == 0
