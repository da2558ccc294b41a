"""Flags are negotiated, never assumed: each optional one missing in turn, and all of them at once.

dist-protocol.md, 2.6, says what a peer does without a flag. Whatever is not said there to be lost
still works: in both directions, towards a real BEAM, over each carrier.
"""

from __future__ import annotations

from typing import Any

import pytest
import trio
from node_support import OpenNode, needs_erlang
from plain_carrier import plain_carrier
from services import Counter

from bridge.dist.flags import ABLE, DIST_HDR_ATOM_CACHE, FLAG_TABLE, MANDATORY, flag
from bridge.etf import Atom, decode
from bridge.node import Node
from bridge.testing import Beam

pytestmark = [needs_erlang, pytest.mark.beam]

OPTIONAL = [row.name for row in FLAG_TABLE if 1 << row.bit & ABLE & ~MANDATORY]
ALL = "all of them"
MONITORS = {"DIST_MONITOR", "DIST_MONITOR_NAME"}
MESSAGE = "receive do m -> m after 5000 -> :nothing end"


def offered_without(name: str) -> int:
    return MANDATORY if name == ALL else ABLE & ~flag(name)


@pytest.mark.parametrize("missing", [*OPTIONAL, ALL])
async def test_all_else_works_without(
    beam: Beam, open_test_node: OpenNode, carrier: Any, missing: str
) -> None:
    if carrier is plain_carrier and missing in ("FRAGMENTS", ALL):
        pytest.skip("the tests' own carrier knows frames with a header only")
    server = Counter()
    flags = offered_without(missing)
    if carrier is plain_carrier:
        flags &= ~DIST_HDR_ATOM_CACHE
    async with open_test_node(services={"counter": server, "other": Counter()}, flags=flags) as us:
        await beam.evaluate(f"c = {{:counter, :'{us.name}'}}")
        await calls_and_messages(beam, us, server)
        if missing in MONITORS | {ALL}:
            await its_monitors_watch_the_connection_only(beam, us)
        else:
            await its_monitors_work(beam)
        await links_work(beam)
        await our_monitors_work(beam, us, monitors=missing not in MONITORS | {ALL})
        await our_calls_work(beam, us)
        [connection] = us.connections.peers
        assert connection.flags & ~flags == 0
    assert await beam.evaluate(MESSAGE.replace("5000", "0")) == ":nothing"


async def calls_and_messages(beam: Beam, us: Node, server: Counter) -> None:
    """By name and by pid, small and large, there and back."""
    assert await beam.evaluate(f"Node.ping(:'{us.name}')") == ":pong"
    assert await beam.evaluate("GenServer.call(c, {:add, 5})") == "5"
    assert await beam.evaluate("p = GenServer.call(c, :pid); GenServer.call(p, {:add, 1})") == "6"
    assert await beam.evaluate("GenServer.cast(p, {:add, 1}); GenServer.call(c, {:add, 0})") == "7"
    large = "d = :binary.copy(<<1, 2, 3>>, 100_000); GenServer.call(c, {:echo, d}) == d"
    assert await beam.evaluate(large) == "true"
    await beam.evaluate("send(p, {:plain, self()})")
    _, pid = await server.wait_message()
    await us.send(pid, (Atom("back"), b"x" * 200_000))
    assert await beam.evaluate("receive do {:back, d} -> byte_size(d) after 5000 -> 0 end") == (
        "200000"
    )


async def its_monitors_work(beam: Beam) -> None:
    await beam.evaluate("o = put_elem(c, 0, :other); by_name = Process.monitor(o)")
    await beam.evaluate("q = GenServer.call(o, :pid); by_pid = Process.monitor(q)")
    assert await beam.evaluate("GenServer.call(o, {:stop, {:real, 'reason'}})") == ":stopping"
    for down in ("{:DOWN, ^by_name, _, ^o, why}", "{:DOWN, ^by_pid, _, ^q, why}"):
        why = await beam.evaluate(f"receive do {down} -> why after 5000 -> :nothing end")
        assert why in ("{:real, 'reason'}", '{:real, ~c"reason"}')
    noproc = "try do GenServer.call(o, :x) catch :exit, {why, _} -> why end"
    assert await beam.evaluate(noproc) == ":noproc"


async def its_monitors_watch_the_connection_only(beam: Beam, us: Node) -> None:
    await beam.evaluate("o = put_elem(c, 0, :other); ref = Process.monitor(o)")
    assert await beam.evaluate("GenServer.call(o, {:stop, :over})") == ":stopping"
    assert await beam.evaluate(f"Node.ping(:'{us.name}')") == ":pong"
    assert await beam.evaluate("receive do {:DOWN, ^ref, _, _, w} -> w after 50 -> :none end") == (
        ":none"
    )
    us.disconnect(beam.name)
    assert await beam.evaluate("receive do {:DOWN, ^ref, _, _, w} -> w after 5000 -> 0 end") == (
        ":noconnection"
    )


async def links_work(beam: Beam) -> None:
    await beam.evaluate("Process.flag(:trap_exit, true); true = Process.link(p)")
    await beam.evaluate("Process.unlink(p); true = Process.link(p)")
    assert await beam.evaluate("Process.exit(p, :normal); GenServer.call(c, {:add, 0})") == "7"
    assert await beam.evaluate("Process.exit(p, :kill)") == "true"
    assert await beam.evaluate("receive do {:EXIT, ^p, why} -> why after 5000 -> 0 end") == (
        ":killed"
    )


async def our_monitors_work(beam: Beam, us: Node, *, monitors: bool) -> None:
    """And with them our sends and exits to the BEAM's processes."""
    assert (await beam.evaluate(f"Node.connect(:'{us.name}')")) == "true"
    for end in ("message", "exit"):
        pid = await spawn(beam, "receive do: (why -> exit(why))")
        monitor = await us.monitor(pid)
        if end == "message":
            await us.send(pid, (Atom("our"), [1, 2]))
        else:
            us.exit(pid, (Atom("our"), [1, 2]))
        await beam.evaluate(f"Node.ping(:'{us.name}')")
        if not monitors:
            us.disconnect(beam.name)
        with trio.fail_after(60):
            reason = (await monitor.wait()).reason
        assert reason == ((Atom("our"), [1, 2]) if monitors else Atom("noconnection"))
    with trio.fail_after(60):
        if monitors:
            down = await (await us.monitor(("nobody", beam.name))).wait()
            assert down.reason == Atom("noproc")


async def our_calls_work(beam: Beam, us: Node) -> None:
    adder = """
    spawn(fn -> receive do: ({:"$gen_call", from, n} -> GenServer.reply(from, n + 1)) end)
    """
    pid = await evaluated(beam, adder)
    assert await us.call(pid, 20, timeout=5) == 21
    assert await us.ping(beam.name)


async def spawn(beam: Beam, body: str) -> Any:
    return await evaluated(beam, f"spawn(fn -> {body} end)")


async def evaluated(beam: Beam, code: str) -> Any:
    """The value itself, not its text."""
    text = await beam.evaluate(f"({code}) |> :erlang.term_to_binary() |> Base.encode16()")
    return decode(bytes.fromhex(text.strip('"')))
