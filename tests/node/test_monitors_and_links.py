"""Monitors, links and exits between a real BEAM and our node, in both directions."""

from __future__ import annotations

import pytest
from node_support import OpenNode, StartBeam, needs_erlang
from services import Counter

from bridge.etf import Atom, Pid
from bridge.node import Down, GenServer, ProcessDown
from bridge.testing import Beam

pytestmark = [needs_erlang, pytest.mark.beam]

DOWN = "receive do {:DOWN, ^ref, :process, who, why} -> {who, why} after 5000 -> :nothing end"
EXIT = "receive do {:EXIT, ^p, why} -> why after 5000 -> :nothing end"


@pytest.mark.parametrize("by_name", [True, False])
async def test_down_with_the_real_reason(
    beam: Beam, open_test_node: OpenNode, by_name: bool
) -> None:
    async with open_test_node(services={"counter": Counter()}) as node:
        name = f"{{:counter, :'{node.name}'}}"
        target = name if by_name else f"GenServer.call({name}, :pid)"
        await beam.evaluate(f"t = {target}; ref = Process.monitor(t)")
        await beam.evaluate(f"GenServer.call({name}, {{:stop, {{:because, 1}}}})")
        assert await beam.evaluate(f"{{^t, why}} = ({DOWN}); why") == "{:because, 1}"


async def test_down_noproc_at_once_for_the_unknown(beam: Beam, open_test_node: OpenNode) -> None:
    async with open_test_node(services={"counter": Counter()}) as node:
        await beam.evaluate(f"ref = Process.monitor({{:nobody, :'{node.name}'}})")
        assert await beam.evaluate(DOWN) == f'{{{{:nobody, :"{node.name}"}}, :noproc}}'
        await beam.evaluate(f"""
        p = GenServer.call({{:counter, :'{node.name}'}}, :pid)
        GenServer.call(p, {{:stop, :normal}})
        ref = Process.monitor(p)
        """)
        assert await beam.evaluate(f"{{^p, why}} = ({DOWN}); why") == ":noproc"


async def test_down_noconnection_when_we_disconnect(beam: Beam, open_test_node: OpenNode) -> None:
    async with open_test_node(services={"counter": Counter()}) as node:
        await beam.evaluate(f"ref = Process.monitor({{:counter, :'{node.name}'}})")
        await beam.evaluate(f"GenServer.call({{:counter, :'{node.name}'}}, :pid)")
        assert node.disconnect(beam.name)
        assert await beam.evaluate(DOWN) == f'{{{{:counter, :"{node.name}"}}, :noconnection}}'
        assert node.statistics().monitors_on_us == 0


async def test_a_demonitor_is_silent(beam: Beam, open_test_node: OpenNode) -> None:
    async with open_test_node(services={"counter": Counter()}) as node:
        await beam.evaluate(f"c = {{:counter, :'{node.name}'}}; ref = Process.monitor(c)")
        await beam.evaluate("true = Process.demonitor(ref)")
        await beam.evaluate("GenServer.call(c, {:stop, :bad})")
        assert await beam.evaluate(f"Node.ping(:'{node.name}')") == ":pong"
        assert await beam.evaluate("Process.info(self(), :messages)") == "{:messages, []}"


async def test_the_end_of_the_node_is_shutdown_for_its_watchers(
    beam: Beam, open_test_node: OpenNode
) -> None:
    async with open_test_node(services={"counter": Counter()}) as node:
        await beam.evaluate(f"c = {{:counter, :'{node.name}'}}; ref = Process.monitor(c)")
        await beam.evaluate("GenServer.call(c, :pid)")
    assert await beam.evaluate(f"elem(({DOWN}), 1)") == ":shutdown"


async def test_a_link_breaks_towards_the_beam(beam: Beam, open_test_node: OpenNode) -> None:
    async with open_test_node(services={"counter": Counter()}) as node:
        await beam.evaluate(f"""
        Process.flag(:trap_exit, true)
        p = GenServer.call({{:counter, :'{node.name}'}}, :pid)
        Process.link(p)
        GenServer.call(p, {{:stop, :broken}})
        """)
        assert await beam.evaluate(EXIT) == ":broken"


async def test_a_link_to_the_dead_is_noproc(beam: Beam, open_test_node: OpenNode) -> None:
    async with open_test_node(services={"counter": Counter()}) as node:
        await beam.evaluate(f"""
        Process.flag(:trap_exit, true)
        p = GenServer.call({{:counter, :'{node.name}'}}, :pid)
        GenServer.call(p, {{:stop, :normal}})
        Process.link(p)
        """)
        assert await beam.evaluate(EXIT) == ":noproc"


async def test_an_unlinked_process_hears_nothing(beam: Beam, open_test_node: OpenNode) -> None:
    async with open_test_node(services={"counter": Counter()}) as node:
        await beam.evaluate(f"""
        Process.flag(:trap_exit, true)
        p = GenServer.call({{:counter, :'{node.name}'}}, :pid)
        Process.link(p)
        Process.unlink(p)
        GenServer.call(p, {{:stop, :broken}})
        """)
        assert await beam.evaluate(f"Node.ping(:'{node.name}')") == ":pong"
        assert await beam.evaluate("Process.info(self(), :messages)") == "{:messages, []}"


async def test_a_trapping_python_process_gets_the_exit_of_a_beams(
    beam: Beam, open_test_node: OpenNode
) -> None:
    server = Counter()
    async with open_test_node(services={"counter": server}) as node:
        await beam.evaluate(f"""
        p = GenServer.call({{:counter, :'{node.name}'}}, :pid)
        spawn(fn -> Process.link(p); exit(:told) end)
        """)
        match await server.wait_message():
            case (Atom("EXIT"), Pid() as pid, Atom("told")):
                assert pid.node.name == beam.name
            case other:
                raise AssertionError(other)


async def test_a_python_process_that_does_not_trap_dies_with_its_link(
    beam: Beam, open_test_node: OpenNode
) -> None:
    class Mortal(Counter):
        trap_exit = False

    server = Mortal()
    async with open_test_node(services={"mortal": server}) as node:
        await beam.evaluate(f"""
        c = {{:mortal, :'{node.name}'}}
        p = GenServer.call(c, :pid)
        ref = Process.monitor(c)
        spawn(fn -> Process.link(p); exit(:normal) end)
        spawn(fn -> Process.link(p); exit(:abnormal) end)
        """)
        assert await beam.evaluate(f"elem(({DOWN}), 1)") == ":abnormal"


async def test_python_links_and_unlinks_a_beam_process(
    beam: Beam, open_test_node: OpenNode
) -> None:
    server = Counter()
    async with open_test_node(services={"counter": server}) as node:
        await beam.evaluate(f"""
        c = {{:counter, :'{node.name}'}}
        [one, two] = for _ <- 1..2, do: spawn(fn -> receive do why -> exit(why) end end)
        for p <- [one, two], do: :linked = GenServer.call(c, {{:link, p}})
        :unlinked = GenServer.call(c, {{:unlink, one}})
        send(one, :first); send(two, :second)
        """)
        assert (await server.wait_message())[2] == Atom("second")
        assert server.messages == []


@pytest.mark.parametrize(("reason", "heard"), [(":kill", ":killed"), (":sad", None)])
async def test_exit_2_from_a_beam(
    beam: Beam, open_test_node: OpenNode, reason: str, heard: str | None
) -> None:
    server = Counter()  # traps
    async with open_test_node(services={"counter": server}) as node:
        await beam.evaluate(f"""
        p = GenServer.call({{:counter, :'{node.name}'}}, :pid)
        ref = Process.monitor(p)
        Process.exit(p, {reason})
        """)
        if heard is not None:
            assert await beam.evaluate(f"elem(({DOWN}), 1)") == heard
        else:
            assert (await server.wait_message())[::2] == (Atom("EXIT"), Atom("sad"))


async def test_python_watches_beam_processes(beam: Beam, open_test_node: OpenNode) -> None:
    async with open_test_node() as node:
        await beam.evaluate("p = spawn(fn -> receive do why -> exit(why) end end)")
        await beam.evaluate("Process.register(p, :watched)")
        by_name = await node.monitor(("watched", beam.name))
        nobody = await node.monitor(("nobody", beam.name))
        assert (await nobody.wait()).reason == Atom("noproc")
        cancelled = await node.monitor(("watched", beam.name))
        cancelled.cancel()
        await beam.evaluate("send(p, {:bad, 1})")
        target = (Atom("watched"), Atom(beam.name))
        assert await by_name.wait() == Down(by_name.ref, target, (Atom("bad"), 1))
        assert node.statistics().monitors_held == 0


async def test_python_hears_noconnection_when_a_beam_is_killed(
    start_beam: StartBeam, open_test_node: OpenNode
) -> None:
    beam = await start_beam().ready()
    server = Counter()
    async with open_test_node(services={"counter": server}) as node:
        await beam.evaluate(f"Process.register(self(), :main); Node.ping(:'{node.name}')")
        monitor = await node.monitor(("main", beam.name))
        ref = await server.monitor((Atom("main"), Atom(beam.name)))
        beam.kill()
        assert (await monitor.wait()).reason == Atom("noconnection")
        down = await server.wait_message()
        assert down[:2] == (Atom("DOWN"), ref)
        assert down[4] == Atom("noconnection")
        assert node.connected() == []


async def test_a_monitor_on_an_unreachable_node_is_noconnection(open_test_node: OpenNode) -> None:
    async with open_test_node() as node:
        monitor = await node.monitor(("main", "nobody@127.0.0.1"))
        assert (await monitor.wait()).reason == Atom("noconnection")


async def test_a_python_caller_hears_the_reason_of_a_crash_in_its_own_node(
    open_test_node: OpenNode,
) -> None:
    async with open_test_node(services={"counter": Counter()}) as node:
        assert await node.call("counter", (Atom("add"), 3)) == 3
        with pytest.raises(ProcessDown) as caught:
            await node.call("counter", Atom("crash"))
        assert caught.value.reason == (Atom("exception"), b"RuntimeError", b"asked to crash")
        with pytest.raises(ProcessDown) as caught:
            await node.call("counter", Atom("crash"))
        assert caught.value.reason == Atom("noproc")


async def test_an_init_that_fails_is_told_to_the_starter(open_test_node: OpenNode) -> None:
    class Broken(GenServer):
        async def init(self) -> None:
            raise RuntimeError("no")

    async with open_test_node() as node:
        with pytest.raises(RuntimeError, match="no"):
            await node.start(Broken(), name="broken")
        await node.start(Counter(), name="counter")
        with pytest.raises(ValueError, match="already registered: counter"):
            await node.start(Counter(), name="counter")
        assert set(node.registered()) >= {"counter", "net_kernel", "rex"}
