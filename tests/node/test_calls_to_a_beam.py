"""Our node as initiator and caller, towards a real BEAM."""

from __future__ import annotations

import pytest
import trio
from node_support import OpenNode, StartBeam, needs_erlang
from structlog.testing import capture_logs

from bridge.etf import Atom, EncodeError
from bridge.node import NoConnection, ProcessDown
from bridge.testing import COOKIE, HOST, Beam

pytestmark = [needs_erlang, pytest.mark.beam]

SERVER = """
defmodule Server do
  use GenServer
  def init(state), do: {:ok, state}
  def handle_call({:add, n}, _from, state), do: {:reply, state + n, state + n}
  def handle_call(:never, _from, state), do: {:noreply, state}
  def handle_call({:late, ms}, from, state) do
    Process.send_after(self(), {:late, from}, ms)
    {:noreply, state}
  end
  def handle_call({:echo, term}, _from, state), do: {:reply, term, state}
  def handle_call({:exit, why}, _from, state), do: {:stop, why, state}
  def handle_cast({:add, n}, state), do: {:noreply, state + n}
  def handle_info({:late, from}, state) do
    GenServer.reply(from, :late)
    {:noreply, state}
  end
  def handle_info({:add, n}, state), do: {:noreply, state + n}
end
{:ok, _} = GenServer.start(Server, 0, name: :server)
:ok
"""


@pytest.fixture
async def served(start_beam: StartBeam) -> Beam:
    beam = await start_beam().ready()
    await beam.evaluate(SERVER)
    return beam


async def test_call_cast_and_send_connect_by_themselves(
    served: Beam, open_test_node: OpenNode
) -> None:
    server = ("server", served.name)
    async with open_test_node(listen=False) as node:
        assert await node.call(server, (Atom("add"), 1)) == 1
        await node.cast(server, (Atom("add"), 10))
        await node.send(server, (Atom("add"), 100))
        assert await node.call(server, (Atom("add"), 0)) == 111
        assert node.connected() == [served.name]
        assert node.statistics().pending_answers == 0
        assert node.statistics().monitors_held == 0


async def test_ping(served: Beam, open_test_node: OpenNode) -> None:
    async with open_test_node() as node:
        assert await node.ping(served.name)
        assert not await node.ping(f"nobody@{HOST}")
        assert await node.ping(node.name)


async def test_calls_that_fail(served: Beam, open_test_node: OpenNode) -> None:
    server = ("server", served.name)
    async with open_test_node() as node:
        with pytest.raises(ProcessDown) as caught:
            await node.call(("nobody", served.name), 1)
        assert caught.value.reason == Atom("noproc")
        with pytest.raises(NoConnection, match="no node of that name"):
            await node.call(("server", f"nobody@{HOST}"), 1)
        with pytest.raises(EncodeError):
            await node.call(server, object())
        with pytest.raises(ValueError, match="exactly one @"):
            await node.call(("server", "nobody"), 1)
        with pytest.raises(ProcessDown) as caught:
            await node.call(server, (Atom("exit"), (Atom("bad"), 1)))
        assert caught.value.reason == (Atom("bad"), 1)
        assert node.statistics().pending_answers == 0


async def test_a_late_answer_reaches_nobody(served: Beam, open_test_node: OpenNode) -> None:
    server = ("server", served.name)
    async with open_test_node() as node:
        await node.connect(served.name)
        with pytest.raises(trio.TooSlowError):
            await node.call(server, (Atom("late"), 100), timeout=0.05)
        assert await node.call(server, (Atom("late"), 200)) == Atom("late")
        assert node.statistics().unwanted_messages == 0
        assert node.statistics().pending_answers == 0


async def test_calls_at_the_same_time_get_their_own_answers(
    served: Beam, open_test_node: OpenNode
) -> None:
    answers: dict[int, object] = {}
    async with open_test_node() as node:

        async def ask(number: int) -> None:
            term = (Atom("echo"), [number, b"x" * number * 1000])
            answers[number] = (await node.call(("server", served.name), term))[0]

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(ask, number)
    assert answers == {number: number for number in range(100)}


async def test_a_call_fails_when_the_beam_is_killed(served: Beam, open_test_node: OpenNode) -> None:
    async with open_test_node() as node:
        await node.connect(served.name)
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(ProcessDown) as caught:
                    await node.call(("server", served.name), Atom("never"), timeout=30)
                assert caught.value.reason == Atom("noconnection")

            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            served.kill()


async def test_a_beam_with_another_cookie_is_not_reached(
    start_beam: StartBeam, open_test_node: OpenNode
) -> None:
    beam = await start_beam(cookie="another-cookie").ready()
    async with open_test_node() as node:
        with capture_logs() as logs, pytest.raises(NoConnection, match="the cookies differ"):
            await node.connect(beam.name)
        assert [entry["event"] for entry in logs] == ["dial failed"]
        assert COOKIE not in str(logs)


async def test_a_beam_replaces_our_old_connection(served: Beam, open_test_node: OpenNode) -> None:
    """Our second incarnation says "true" to `alive`; the first one loses its connection."""
    server = ("server", served.name)
    async with open_test_node("twin", register=False) as first:
        assert await first.call(server, (Atom("add"), 1)) == 1
        lost = await first.monitor(server)
        async with open_test_node("twin", register=False) as second:
            assert await second.call(server, (Atom("add"), 1)) == 2
            assert (await lost.wait()).reason == Atom("noconnection")
            assert await served.evaluate("Node.list(:hidden)") == f'[:"{second.name}"]'


@pytest.mark.parametrize("alive", ["aaaa", "zzzz"])
async def test_simultaneous_connects_leave_one_connection(
    served: Beam, open_test_node: OpenNode, alive: str
) -> None:
    async with open_test_node(alive) as node:
        for _ in range(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(served.evaluate, f"true = Node.connect(:'{node.name}')")
                nursery.start_soon(node.connect, served.name)
            assert await node.call(("server", served.name), (Atom("echo"), 1)) == 1
            assert node.connected() == [served.name]
            monitor = await node.monitor(("server", served.name))
            await served.evaluate(f"Node.disconnect(:'{node.name}')")
            assert (await monitor.wait()).reason == Atom("noconnection")
