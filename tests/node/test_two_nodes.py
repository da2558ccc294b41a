"""Two of our own nodes: what a BEAM would not show, because both sides are ours."""

from __future__ import annotations

import pytest
import trio
from node_support import OpenNode, needs_erlang
from services import Counter

from bridge.etf import Atom
from bridge.node import Node, ProcessDown

pytestmark = [needs_erlang, pytest.mark.beam]  # for epmd


async def test_they_call_each_other(open_test_node: OpenNode) -> None:
    counter = {"counter": Counter()}
    async with open_test_node(services=counter) as one, open_test_node() as two:
        assert await two.call(("counter", one.name), (Atom("add"), 2)) == 2
        assert await one.ping(two.name)
        assert one.connected() == [two.name]
        with pytest.raises(ProcessDown) as caught:
            await two.call(("counter", one.name), Atom("crash"))
        assert caught.value.reason == (Atom("exception"), b"RuntimeError", b"asked to crash")


async def test_simultaneous_connects_leave_one_connection(open_test_node: OpenNode) -> None:
    async with open_test_node() as one, open_test_node() as two:
        for _ in range(30):
            async with trio.open_nursery() as nursery:
                for here, there in ((one, two), (two, one)) * 3:
                    nursery.start_soon(here.connect, there.name)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(must_ping, one, two)
                nursery.start_soon(must_ping, two, one)
            assert one.connected() == [two.name]
            assert two.connected() == [one.name]
            lost = await two.monitor(("net_kernel", one.name))
            one.disconnect(two.name)
            await lost.wait()


async def must_ping(here: Node, there: Node) -> None:
    assert await here.ping(there.name)


async def test_a_callers_cancel_leaves_nothing_behind(open_test_node: OpenNode) -> None:
    server = Counter()
    async with open_test_node(services={"counter": server}) as one, open_test_node() as two:
        with trio.move_on_after(5) as scope:

            async def cancel_when_it_runs() -> None:
                await server.entered.wait()
                scope.cancel()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel_when_it_runs)
                await two.call(("counter", one.name), Atom("block"))
        server.release.set()
        assert await two.call(("counter", one.name), (Atom("add"), 0)) == 0
        assert two.statistics().pending_answers == 0
        assert two.statistics().unwanted_messages == 0
        while one.statistics().monitors_on_us:  # the last call's demonitor is on its way
            await trio.lowlevel.checkpoint()


async def test_ten_thousand_monitors_break_at_once(open_test_node: OpenNode) -> None:
    async with open_test_node(services={"counter": Counter()}) as one, open_test_node() as two:
        monitors = [await two.monitor(("counter", one.name)) for _ in range(10_000)]
        while one.statistics().monitors_on_us < len(monitors):
            await trio.lowlevel.checkpoint()
        await two.cast(("counter", one.name), Atom("stop"))
        for monitor in monitors:
            assert (await monitor.wait()).reason == Atom("normal")
        assert one.statistics().monitors_on_us == two.statistics().monitors_held == 0
