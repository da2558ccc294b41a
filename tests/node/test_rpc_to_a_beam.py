"""Functions and processes that we start on a real BEAM."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio
from exported import ELIXIR, demo
from node_support import OpenNode, StartBeam, needs_erlang

from bridge.etf import Atom, EncodeError, Map, Pid
from bridge.node import NoConnection, ProcessDown
from bridge.node.functions.remote_calls import Failed, Returned
from bridge.node.functions.remote_errors import (
    BadRpc,
    RemoteError,
    RemoteExit,
    RemoteThrow,
    SpawnRefused,
)
from bridge.testing import HOST, Beam

pytestmark = [needs_erlang, pytest.mark.beam]

X = Atom("x")


@pytest.fixture
async def served(start_beam: StartBeam) -> Beam:
    beam = await start_beam().ready()
    assert await beam.evaluate(ELIXIR) == ":ok"
    return beam


async def assert_nothing_is_left(node: Any) -> None:
    await trio.testing.wait_all_tasks_blocked()
    assert len(node.router.spawn_requests) == 0
    assert node.statistics().monitors_held == 0
    assert node.statistics().pending_answers == 0


async def test_erpc_returns_or_raises_what_the_function_did(
    served: Beam, open_test_node: OpenNode
) -> None:
    async with open_test_node(listen=False) as node:
        assert await node.erpc(served.name, "lists", "reverse", [[1, 2]]) == [2, 1]
        assert await node.erpc(served.name, "Demo", "slow", [b"x" * 200_000]) == b"x" * 200_000
        with pytest.raises(RemoteError) as error:
            await node.erpc(served.name, "Demo", "nope", [1])
        assert error.value.reason == Atom("undef")
        assert error.value.stack == [(Atom("Elixir.Demo"), Atom("nope"), [1], [])]
        assert str(error.value) == f"Elixir.Demo:nope/1 on {served.name} raised :undef"
        with pytest.raises(RemoteError) as error:
            await node.erpc(served.name, "Enum", "fetch!", [[1], 5])
        reason = error.value.reason
        assert isinstance(reason, dict | Map)
        assert reason[Atom("__struct__")] == Atom("Elixir.Enum.OutOfBoundsError")
        with pytest.raises(RemoteExit) as exited:
            await node.erpc(served.name, "Demo", "exits", [X])
        assert exited.value.reason == X
        with pytest.raises(RemoteThrow) as thrown:
            await node.erpc(served.name, "Demo", "throws", [X])
        assert thrown.value.value == X
        with pytest.raises(trio.TooSlowError):
            await node.erpc(served.name, "Demo", "for_ever", timeout=0.05)
        with pytest.raises(NoConnection):
            await node.erpc(f"nobody@{HOST}", "Demo", "now")
        with pytest.raises(EncodeError):
            await node.erpc(served.name, "Demo", "echo", [object()])
        assert await node.erpc(served.name, "Demo", "now", timeout=math.inf) == Atom("now")
        await assert_nothing_is_left(node)


async def test_a_killed_function_and_a_lost_connection_are_ends_of_its_process(
    served: Beam, open_test_node: OpenNode
) -> None:
    async with open_test_node() as node:
        call = await node.send_request(served.name, "erlang", "exit", [X])
        with pytest.raises(RemoteExit):
            await call.result()
        suicide = "for p <- Process.list(), p != self(), Process.info(p, :current_function) == "
        suicide += "{:current_function, {Process, :sleep, 1}}, do: Process.exit(p, :kill)"
        asked = await node.send_request(served.name, "Demo", "for_ever")
        await node.ping(served.name)
        await served.evaluate(suicide)
        with trio.fail_after(60), pytest.raises(ProcessDown) as down:
            await asked.result()
        assert down.value.reason == Atom("killed")
        asked = await node.send_request(served.name, "Demo", "for_ever")
        await node.ping(served.name)
        served.kill()
        with trio.fail_after(60), pytest.raises(ProcessDown) as down:
            await asked.result()
        assert down.value.reason == Atom("noconnection")
        await assert_nothing_is_left(node)


async def test_rpc_fails_as_rpc_call_does(served: Beam, open_test_node: OpenNode) -> None:
    async with open_test_node() as node:
        assert await node.rpc(served.name, "Demo", "add", [1, 2]) == 3
        assert await node.rpc(served.name, "Demo", "throws", [X]) == X
        exit_ = Atom("EXIT")
        failing: list[tuple[str, list[Any], Any]] = [
            ("exits", [X], (exit_, X)),
            ("nope", [], (exit_, (Atom("undef"), [(Atom("Elixir.Demo"), Atom("nope"), [], [])]))),
            ("echo", [(exit_, 1)], (exit_, 1)),
        ]
        for function, args, reason in failing:
            with pytest.raises(BadRpc) as bad:
                await node.rpc(served.name, "Demo", function, args)
            assert bad.value.reason == reason
        with pytest.raises(BadRpc) as bad:
            await node.rpc(f"nobody@{HOST}", "Demo", "now")
        assert bad.value.reason == Atom("nodedown")
        with pytest.raises(trio.TooSlowError):
            await node.rpc(served.name, "Demo", "for_ever", timeout=0.05)
        await assert_nothing_is_left(node)


async def test_calls_at_the_same_time_get_their_own_answers(
    served: Beam, open_test_node: OpenNode
) -> None:
    async with open_test_node() as node:
        calls = [
            await node.send_request(served.name, "Demo", "slow", [number]) for number in range(200)
        ]
        for number, call in reversed(list(enumerate(calls))):
            assert await call.result() == number
        await assert_nothing_is_left(node)


async def test_a_late_answer_reaches_nobody(served: Beam, open_test_node: OpenNode) -> None:
    """Given up before the spawn reply, between it and the answer, and just as the answer comes."""
    async with open_test_node() as node:
        await node.connect(served.name)
        for patience in (0.0, 0.001, 0.01, 0.02, 0.021):
            for _ in range(20):
                with trio.move_on_after(patience):
                    await node.erpc(served.name, "Demo", "slow", [b"late"])
                assert await node.erpc(served.name, "Demo", "echo", [b"mine"]) == b"mine"
        assert await node.erpc(served.name, "Demo", "slow", [b"last"]) == b"last"
        assert node.statistics().unwanted_messages == 0
        await assert_nothing_is_left(node)


async def test_multicall_tells_of_each_node(
    served: Beam, start_beam: StartBeam, open_test_node: OpenNode
) -> None:
    other = await start_beam().ready()
    peers = [served.name, f"nobody@{HOST}", other.name]
    async with open_test_node(exports=demo()) as node:
        first, second, third = await node.multicall(peers, "Demo", "add", [1, 2])
        assert first == Returned(served.name, 3)
        assert isinstance(second, Failed)
        assert isinstance(second.error, NoConnection)
        assert isinstance(third, Failed)
        assert isinstance(third.error, RemoteError)
        here, there = await node.multicall([node.name, served.name], "Demo", "slow", [1])
        assert (here, there) == (Returned(node.name, 1), Returned(served.name, 1))


async def test_a_cast_runs_and_tells_nothing(served: Beam, open_test_node: OpenNode) -> None:
    async with open_test_node() as node:
        await served.evaluate("Process.register(self(), :driver)")
        await node.cast_rpc(served.name, "erlang", "send", [Atom("driver"), Atom("hi")])
        await node.cast_rpc(served.name, "Demo", "nope")
        assert await served.evaluate("receive do m -> m after 3000 -> :nothing end") == ":hi"
        await node.ping(served.name)
        assert len(node.router.spawn_requests) == 0


async def test_processes_are_spawned_monitored_and_linked(
    served: Beam, open_test_node: OpenNode
) -> None:
    async with open_test_node() as node:
        pid = await node.spawn_request(served.name, "Demo", "for_ever")
        assert isinstance(pid, Pid)
        assert pid.node == Atom(served.name)
        pid, monitor = await node.spawn_monitor(served.name, "Demo", "exits", [X])
        with trio.fail_after(60):
            down = await monitor.wait()
        assert (down.target, down.reason) == (pid, X)
        with pytest.raises(SpawnRefused) as refused:
            await node.spawn_request(served.name, "Demo", "now", options=[Atom("bad")])
        assert refused.value.reason == Atom("badopt")
        messages: list[Any] = []
        linked = trio.Event()

        async def parent(me: Any) -> None:
            child = await me.node.spawn_request(served.name, "Demo", "exits", [X], link=me.pid)
            messages.append(child)
            messages.append(await me.receive(timeout=5))
            linked.set()

        await node.spawn(parent, trap_exit=True)
        with trio.fail_after(60):
            await linked.wait()
        assert messages[1] == (Atom("EXIT"), messages[0], X)


async def test_a_link_of_a_block(served: Beam, open_test_node: OpenNode) -> None:
    async with open_test_node() as node:
        pid, monitor = await node.spawn_monitor(served.name, "Demo", "for_ever")
        before = node.statistics().processes
        with trio.fail_after(60):
            async with node.link(pid):
                await node.ping(served.name)
            node.exit(pid, X)
            with pytest.raises(ProcessDown) as ended:
                async with node.link(pid):
                    await trio.sleep_forever()
            assert ended.value.reason in (X, Atom("noproc"))  # which of the two came first
            assert (await monitor.wait()).reason == X
            with pytest.raises(ProcessDown) as ended:
                async with node.link(pid):
                    await trio.sleep_forever()
            assert ended.value.reason == Atom("noproc")
            pid, monitor = await node.spawn_monitor(served.name, "Demo", "for_ever")
            with pytest.raises(RuntimeError):
                async with node.link(pid):
                    raise RuntimeError("ours")
            why = (Atom("exception"), b"RuntimeError", b"ours")
            assert (await monitor.wait()).reason == why
        assert node.statistics().processes == before


async def test_what_a_function_there_writes_comes_here(
    served: Beam, open_test_node: OpenNode
) -> None:
    written: list[tuple[str, str]] = []
    async with open_test_node(output=lambda node, text: written.append((node, text))) as node:
        assert await node.rpc(served.name, "Demo", "print", ["hällo\n".encode()]) == Atom("ok")
        args = [[*b"~p and ~ts~n"], [(1, X), "é".encode()]]
        assert await node.rpc(served.name, "io", "format", args) == Atom("ok")
        with pytest.raises(BadRpc):
            await node.rpc(served.name, "io", "format", [[*b"~p~n"], []])
        asked = await node.rpc(served.name, "io", "get_line", [b"?"])
        assert asked == (Atom("error"), Atom("enotsup"))
        assert written == [(served.name, "hällo\n"), (served.name, "{1,x} and é\n")]
