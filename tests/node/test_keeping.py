"""Kept nodes are dialled again with growing pauses; tasks and processes hear of nodes."""

from __future__ import annotations

import itertools

import pytest
import trio
from node_support import OpenNode, StartBeam, needs_erlang
from structlog.testing import capture_logs
from trio.testing import MockClock

from bridge.etf import Atom
from bridge.node import Backoff, NodeDown, NodeUp
from bridge.node.process.handle import ProcessHandle
from bridge.testing import HOST, Beam

NODEUP, NODEDOWN = Atom("nodeup"), Atom("nodedown")
QUICK = Backoff(min_s=0.02, max_s=0.1, settled_s=0.0)
beams = [needs_erlang, pytest.mark.beam]


def test_pauses_double_up_to_the_longest_and_at_most_a_half_is_taken_off() -> None:
    whole = Backoff(min_s=0.5, max_s=10, jitter=lambda: 0.0)
    assert [whole.pause_s(n) for n in (1, 2, 3, 5, 6, 1000)] == [0.5, 1, 2, 8, 10, 10]
    halved = Backoff(min_s=0.5, max_s=10, jitter=lambda: 1.0)
    assert [halved.pause_s(n) for n in (1, 2, 1000)] == [0.25, 0.5, 5]
    assert len({Backoff().pause_s(3) for _ in range(20)}) > 1


@pytest.mark.beam
@needs_erlang
async def test_a_kept_node_is_connected_again_and_again(open_test_node: OpenNode) -> None:
    async with open_test_node() as node, open_test_node() as peer:
        kept = node.keep_connected([peer.name], backoff=QUICK)
        with node.monitor_nodes() as events, trio.fail_after(60):
            for number in range(1, 4):
                assert await anext(events) == NodeUp(peer.name)
                while kept.statistics()[0].ups < number or not peer.connected():
                    await trio.lowlevel.checkpoint()  # each side's tasks hear of it in their turn
                assert peer.disconnect(node.name)
                assert await anext(events) == NodeDown(peer.name, "closed_by_peer")
            assert await anext(events) == NodeUp(peer.name)
            await kept.wait_connected()
            while kept.statistics()[0].ups < 4:  # its task hears of it in its turn
                await trio.lowlevel.checkpoint()
        [figures] = kept.statistics()
        assert (figures.peer, figures.connected) == (peer.name, True)
        assert figures.ups == figures.attempts == 4
        assert figures.losses == 3
        kept.stop()
        peer.disconnect(node.name)
        while node.connected():
            await trio.lowlevel.checkpoint()
        await trio.sleep(0.15)  # longer than any pause of QUICK
        assert node.connected() == []


@pytest.mark.beam
@needs_erlang
async def test_a_node_that_is_not_there_is_one_line_and_counted(
    open_test_node: OpenNode,
) -> None:
    async with open_test_node() as node:
        with capture_logs() as logs:
            kept = node.keep_connected([f"keptnobody@{HOST}"], backoff=QUICK)
            with trio.fail_after(60):
                while kept.statistics()[0].failures < 5:
                    await trio.lowlevel.checkpoint()
        assert [line["event"] for line in logs] == ["a kept node is not reached, trying on"]
        [figures] = kept.statistics()
        assert not figures.connected
        assert figures.last_error == f"no node of that name is known on {HOST}"
        assert figures.attempts >= figures.failures


async def test_what_cannot_be_kept_is_said_at_once(open_test_node: OpenNode) -> None:
    async with open_test_node(listen=False) as node:
        for name in ("nobody", node.name):
            with pytest.raises(ValueError, match=r"alive@host|connect to itself"):
                node.keep_connected([name])


@pytest.mark.beam
@needs_erlang
async def test_a_beam_that_is_killed_and_started_again_is_found(
    open_test_node: OpenNode, start_beam: StartBeam
) -> None:
    first = await start_beam("keptbeam").ready()
    async with open_test_node() as node:
        kept = node.keep_connected([first.name], backoff=QUICK)
        with trio.fail_after(30):
            await kept.wait_connected()
            with node.monitor_nodes() as events:
                first.kill()
                down = await anext(events)
                assert isinstance(down, NodeDown)
                await start_beam("keptbeam").ready()
                assert await anext(events) == NodeUp(first.name)
        assert await node.ping(first.name)


@pytest.mark.beam
@needs_erlang
async def test_a_subscriber_that_is_behind_hears_how_much_it_missed(
    open_test_node: OpenNode,
) -> None:
    async with open_test_node() as node, open_test_node() as peer:
        with node.monitor_nodes(events_max=1) as events:
            for _ in range(3):
                await node.connect(peer.name)
                node.disconnect(peer.name)
            assert await anext(events) == NodeUp(peer.name)
            await node.connect(peer.name)
            assert await anext(events) == NodeUp(peer.name, missed=5)
        node.disconnect(peer.name)
        assert node.events._monitors == []


@pytest.mark.beam
@needs_erlang
async def test_processes_hear_as_those_of_a_beam_do(open_test_node: OpenNode, beam: Beam) -> None:
    """monitor_nodes twice tells twice; monitor_node once, and at once for who is not there."""
    heard: list[object] = []
    done = trio.Event()

    async def watcher(me: ProcessHandle) -> None:
        me.monitor_nodes()
        me.monitor_nodes()
        me.monitor_node(f"watchnobody@{HOST}")
        heard.append(await me.receive())
        await me.node.connect(beam.name)
        me.monitor_node(beam.name)
        for _ in range(5):
            heard.append(await me.receive())
            if len(heard) == 3:
                me.node.disconnect(beam.name)
        me.monitor_nodes(False)
        await me.node.connect(beam.name)
        me.node.disconnect(beam.name)
        with pytest.raises(trio.TooSlowError):
            await me.receive(timeout=0)
        me.monitor_node(beam.name)  # connects, as erlang:monitor_node does
        with me.node.monitor_nodes() as events:
            assert await anext(events) == NodeUp(beam.name)
        done.set()

    async with open_test_node() as node:
        await node.spawn(watcher)
        with trio.fail_after(60):
            await done.wait()
        beam_atom = Atom(beam.name)
        assert heard[0] == (NODEDOWN, Atom(f"watchnobody@{HOST}"))
        assert heard[1:3] == [(NODEUP, beam_atom)] * 2
        assert heard[3:] == [(NODEDOWN, beam_atom)] * 3
        node.events._forget_dead()
        assert not node.events._processes


@pytest.mark.beam
@needs_erlang
async def test_a_nodedown_comes_after_the_downs_of_the_same_loss(
    open_test_node: OpenNode, beam: Beam
) -> None:
    heard: list[object] = []
    done = trio.Event()

    async def watcher(me: ProcessHandle) -> None:
        await me.node.connect(beam.name)
        me.monitor_nodes()
        me.monitor(("net_kernel", beam.name))
        me.node.disconnect(beam.name)
        heard.extend([(await me.receive())[0], (await me.receive())[0]])
        done.set()

    async with open_test_node() as node:
        await node.spawn(watcher)
        with trio.fail_after(60):
            await done.wait()
    assert heard == [Atom("DOWN"), NODEDOWN]


async def test_pauses_between_attempts_are_kept(
    open_test_node: OpenNode, autojump_clock: MockClock
) -> None:
    class Nobody:
        async def lookup(self, alive: str, host: str) -> int | None:
            tries.append(trio.current_time())
            return None

    tries: list[float] = []
    async with open_test_node(listen=False, resolver=Nobody()) as node:
        backoff = Backoff(min_s=1, max_s=8, jitter=lambda: 0.0)
        kept = node.keep_connected([f"keptnobody@{HOST}"], backoff=backoff)
        await trio.sleep(40)
        kept.stop()
    pauses = [round(b - a, 3) for a, b in itertools.pairwise(tries)]
    assert pauses[:6] == [1, 2, 4, 8, 8, 8]
