"""A real BEAM towards our node: ping, connect, calls, casts, `sys`, what a missing or crashing
server gives.
"""

from __future__ import annotations

import pytest
from node_support import OpenNode, StartBeam, needs_erlang
from services import Counter

from bridge.etf import Atom
from bridge.node import MailboxPolicy, ProcessHandle
from bridge.testing import Beam, BeamError

pytestmark = [needs_erlang, pytest.mark.beam]


async def test_ping_connect_and_call(open_test_node: OpenNode, start_beam: StartBeam) -> None:
    beam = start_beam()
    async with open_test_node(services={"counter": Counter()}) as node:
        await beam.ready()
        assert await beam.evaluate(f"Node.ping(:'{node.name}')") == ":pong"
        assert await beam.evaluate(f"Node.connect(:'{node.name}')") == "true"
        assert await beam.evaluate("Node.list(:hidden)") == f'[:"{node.name}"]'
        assert await beam.evaluate("Node.list()") == "[]"
        call = f"GenServer.call({{:counter, :'{node.name}'}}, {{:add, 5}})"
        assert await beam.evaluate(call) == "5"
        assert node.connected() == [beam.name]


async def test_a_call_connects_by_itself(beam: Beam, open_test_node: OpenNode) -> None:
    async with open_test_node(services={"counter": Counter()}) as node:
        call = f"GenServer.call({{:counter, :'{node.name}'}}, {{:add, 5}})"
        assert await beam.evaluate(call) == "5"


async def test_calls_and_casts_by_name_and_by_pid(beam: Beam, open_test_node: OpenNode) -> None:
    async with open_test_node(services={"counter": Counter()}) as node:
        await beam.evaluate(f"c = {{:counter, :'{node.name}'}}")
        await beam.evaluate("p = GenServer.call(c, :pid)")
        assert await beam.evaluate(f"node(p) == :'{node.name}'") == "true"
        assert await beam.evaluate("GenServer.call(p, {:add, 1})") == "1"
        assert await beam.evaluate("GenServer.cast(c, {:add, 10})") == ":ok"
        assert await beam.evaluate("GenServer.cast(p, {:add, 100})") == ":ok"
        assert await beam.evaluate("GenServer.call(c, {:add, 0})") == "111"


async def test_other_ways_to_call(beam: Beam, open_test_node: OpenNode) -> None:
    async with open_test_node(services={"counter": Counter()}) as node:
        name = node.name
        await beam.evaluate(f"c = {{:counter, :'{name}'}}")
        assert await beam.evaluate("GenServer.call(c, :later)") == ":later"
        multi = f"GenServer.multi_call([:'{name}'], :counter, {{:add, 2}}, 5000)"
        assert await beam.evaluate(multi) == f'{{["{name}": 2], []}}'
        send_request = (
            "id = :gen_server.send_request(c, {:add, 2}); :gen_server.receive_response(id, 5000)"
        )
        assert await beam.evaluate(send_request) == "{:reply, 4}"
        assert await beam.evaluate(
            f"GenServer.call({{:net_kernel, :'{name}'}}, {{:is_auth, node()}})"
        ) == (":yes")


async def test_plain_messages_arrive(beam: Beam, open_test_node: OpenNode) -> None:
    server = Counter()
    async with open_test_node(services={"counter": server}) as node:
        await beam.evaluate(f"send({{:counter, :'{node.name}'}}, {{:hello, 'abc', \"abc\", 1.5}})")
        assert await server.wait_message() == (Atom("hello"), [97, 98, 99], b"abc", 1.5)
        await beam.evaluate(f"send({{:nobody, :'{node.name}'}}, :hello)")
        assert await beam.evaluate(f"Node.ping(:'{node.name}')") == ":pong"


async def test_a_megabyte_there_and_back(beam: Beam, open_test_node: OpenNode) -> None:
    async with open_test_node(services={"counter": Counter()}) as node:
        echo = f"""
        data = :crypto.strong_rand_bytes(1_000_000)
        GenServer.call({{:counter, :'{node.name}'}}, {{:echo, data}}) == data
        """
        assert await beam.evaluate(echo) == "true"


async def test_a_late_answer_does_not_reach_the_mailbox(
    beam: Beam, open_test_node: OpenNode
) -> None:
    server = Counter()
    async with open_test_node(services={"counter": server}) as node:
        await beam.evaluate(f"c = {{:counter, :'{node.name}'}}")
        with pytest.raises(BeamError, match=":timeout"):
            await beam.evaluate("GenServer.call(c, :block, 50)")
        server.release.set()
        assert await beam.evaluate("GenServer.call(c, {:add, 1})") == "1"
        assert await beam.evaluate("Process.info(self(), :messages)") == "{:messages, []}"


async def test_a_missing_server_is_noproc(beam: Beam, open_test_node: OpenNode) -> None:
    async with open_test_node() as node:
        with pytest.raises(BeamError, match=r"\{:noproc, \{GenServer, :call"):
            await beam.evaluate(f"GenServer.call({{:nobody, :'{node.name}'}}, :x)")


async def test_a_crash_reaches_the_caller_with_its_reason(
    beam: Beam, open_test_node: OpenNode
) -> None:
    server = Counter()
    async with open_test_node(services={"counter": server}) as node:
        with pytest.raises(BeamError) as caught:
            await beam.evaluate(f"GenServer.call({{:counter, :'{node.name}'}}, :crash)")
        assert caught.value.reason.startswith('{{:exception, "RuntimeError", "asked to crash"}, ')
        with pytest.raises(BeamError, match=":noproc"):
            await beam.evaluate(f"GenServer.call({{:counter, :'{node.name}'}}, :crash)")
        assert node.whereis("counter") is None
    assert len(server.terminated_with) == 1


async def test_an_unexpected_call_or_cast_ends_the_server_as_in_elixir(
    beam: Beam, open_test_node: OpenNode
) -> None:
    async with open_test_node(services={"one": Counter(), "two": Counter()}) as node:
        with pytest.raises(BeamError, match=r"\{\{:bad_call, :what\}, \{GenServer"):
            await beam.evaluate(f"GenServer.call({{:one, :'{node.name}'}}, :what)")
        await beam.evaluate(f"""
        ref = Process.monitor({{:two, :'{node.name}'}})
        GenServer.cast({{:two, :'{node.name}'}}, :what)
        """)
        down = f'{{:DOWN, {{:two, :"{node.name}"}}, {{:bad_cast, :what}}}}'
        assert (
            await beam.evaluate(
                "receive do {:DOWN, ^ref, :process, who, why} -> {:DOWN, who, why} end"
            )
            == down
        )


async def test_a_server_that_stops_answers_first(beam: Beam, open_test_node: OpenNode) -> None:
    server = Counter()
    async with open_test_node(services={"counter": server}) as node:
        await beam.evaluate(f"c = {{:counter, :'{node.name}'}}; ref = Process.monitor(c)")
        assert await beam.evaluate("GenServer.call(c, {:stop, :done})") == ":stopping"
        assert (
            await beam.evaluate("receive do {:DOWN, ^ref, _, _, reason} -> reason end") == ":done"
        )
    assert server.terminated_with == [Atom("done")]


async def test_a_node_that_publishes_nothing_runs_nothing(
    beam: Beam, open_test_node: OpenNode
) -> None:
    async with open_test_node(application=None) as node:
        refused = await beam.evaluate(f":rpc.call(:'{node.name}', :erlang, :node, [])")
        assert refused == "{:badrpc, {:EXIT, {:undef, [{:erlang, :node, [], []}]}}}"


# -- sys -------------------------------------------------------------------------------------------


async def test_sys_get_state_sees_what_was_sent_before(
    beam: Beam, open_test_node: OpenNode
) -> None:
    async with open_test_node(services={"counter": Counter()}) as node:
        await beam.evaluate(f"c = {{:counter, :'{node.name}'}}")
        assert await beam.evaluate("GenServer.cast(c, {:add, 7}); :sys.get_state(c)") == "7"
        assert await beam.evaluate(":sys.get_state(GenServer.call(c, :pid))") == "7"
        assert await beam.evaluate(f":sys.get_state({{:net_kernel, :'{node.name}'}})") == "nil"


async def test_sys_get_status_has_the_shape_of_otp(beam: Beam, open_test_node: OpenNode) -> None:
    async with open_test_node(services={"counter": Counter()}) as node:
        await beam.evaluate(f"""
        c = {{:counter, :'{node.name}'}}
        {{:status, pid, {{:module, module}}, [dict, running, parent, debug, misc]}} =
        :sys.get_status(c)
        """)
        assert await beam.evaluate("{module, dict, running, is_pid(parent), debug}") == (
            '{:Counter, ["$initial_call": {:Counter, :init, 1}, "$ancestors": []], '
            ":running, true, []}"
        )
        assert await beam.evaluate('List.last(misc) == {:data, [{~c"State", 0}]}') == "true"


async def test_sys_suspend_holds_everything_but_sys(beam: Beam, open_test_node: OpenNode) -> None:
    async with open_test_node(services={"counter": Counter()}) as node:
        await beam.evaluate(f"c = {{:counter, :'{node.name}'}}")
        assert await beam.evaluate(":sys.suspend(c)") == ":ok"
        assert (
            await beam.evaluate(
                "id = :gen_server.send_request(c, {:add, 1}); GenServer.cast(c, {:add, 10}); "
                "{:sys.get_state(c), :sys.get_status(c) |> elem(3) |> Enum.at(1)}"
            )
            == "{0, :suspended}"
        )
        assert await beam.evaluate(":gen_server.wait_response(id, 0)") == ":timeout"
        assert await beam.evaluate(":sys.resume(c); :gen_server.wait_response(id, 5000)") == (
            "{:reply, 1}"
        )
        assert await beam.evaluate(":sys.get_state(c)") == "11"


async def test_sys_requests_that_are_refused(beam: Beam, open_test_node: OpenNode) -> None:
    async with open_test_node(services={"counter": Counter()}) as node:
        await beam.evaluate(f"c = {{:counter, :'{node.name}'}}")
        with pytest.raises(BeamError, match=r"\{:not_supported, .* exports"):
            await beam.evaluate(":sys.replace_state(c, fn s -> s + 1 end)")
        assert await beam.evaluate(":sys.install(c, {fn s, _, _ -> s end, 0})") == ":unknown_debug"
        assert await beam.evaluate(":sys.remove(c, :anything)") == ":ok"
        assert await beam.evaluate(':sys.log_to_file(c, ~c"/tmp/it")') == "{:error, :open_file}"
        await beam.evaluate(":sys.suspend(c)")
        with pytest.raises(BeamError, match="not_supported"):
            await beam.evaluate(
                "{:error, why} = :sys.change_code(c, :m, 1, []); :erlang.error(why)"
            )
        await beam.evaluate(":sys.resume(c)")
        assert await beam.evaluate(":sys.get_state(c)") == "0"


async def test_sys_counts_logs_and_traces(beam: Beam, open_test_node: OpenNode) -> None:
    async with open_test_node(services={"counter": Counter()}) as node:
        await beam.evaluate(f"c = {{:counter, :'{node.name}'}}")
        assert await beam.evaluate(":sys.statistics(c, :get)") == "{:ok, :no_statistics}"
        for option in ("statistics", "trace", "log"):
            assert await beam.evaluate(f":sys.{option}(c, true)") == ":ok"
        await beam.evaluate("GenServer.call(c, {:add, 2})")
        assert await beam.evaluate(
            "{:ok, s} = :sys.statistics(c, :get); {s[:messages_in], s[:messages_out]}"
        ) == ("{1, 1}")
        await beam.evaluate("me = self(); {:ok, events} = :sys.log(c, :get)")
        assert await beam.evaluate(
            'match?([{:in, {:"$gen_call", {^me, t}, {:add, 2}}}, {:out, 2, {^me, t}, 2}], events)'
        ) == ("true")
        assert await beam.evaluate(":sys.no_debug(c)") == ":ok"
        assert await beam.evaluate(":sys.log(c, :get)") == "{:ok, []}"


async def test_sys_replaces_a_state_by_an_exported_function(
    beam: Beam, open_test_node: OpenNode
) -> None:
    async with open_test_node(services={"counter": Counter()}) as node:
        node.exports.function("MyApp.State", "next")(lambda state: state + 41)
        await beam.evaluate(f"c = {{:counter, :'{node.name}'}}")
        assert await beam.evaluate(":sys.replace_state(c, &MyApp.State.next/1)") == "41"
        assert await beam.evaluate("GenServer.call(c, {:add, 1})") == "42"
        with pytest.raises(BeamError, match=r"system_replace_state.*:undef"):
            await beam.evaluate(":sys.replace_state(c, &MyApp.State.unknown/1)")


async def test_a_plain_process_answers_sys_too(beam: Beam, open_test_node: OpenNode) -> None:
    async def run(me: ProcessHandle) -> None:
        me.state = Atom("waiting")
        await me.receive(Atom("stop"))

    async with open_test_node() as node:
        await node.spawn(run, name="plain")
        await beam.evaluate(f"p = {{:plain, :'{node.name}'}}; ref = Process.monitor(p)")
        assert await beam.evaluate(":sys.get_state(p)") == ":waiting"
        assert await beam.evaluate(":sys.suspend(p); send(p, :stop); :sys.get_state(p)") == (
            ":waiting"
        )
        assert await beam.evaluate("GenServer.stop(p, :enough)") == ":ok"
        assert await beam.evaluate("receive do {:DOWN, ^ref, _, _, why} -> why end") == ":enough"


async def test_a_state_that_is_no_term_is_told_and_kills_nobody(
    beam: Beam, open_test_node: OpenNode
) -> None:
    server = Counter()
    server.state = object()
    async with open_test_node(services={"counter": server}) as node:
        await beam.evaluate(f"c = {{:counter, :'{node.name}'}}")
        with pytest.raises(BeamError, match=r"callback_failed.*EncodeError"):
            await beam.evaluate(":sys.get_state(c)")
        assert await beam.evaluate("GenServer.call(c, {:echo, 1})") == "1"


async def test_gen_server_stop(beam: Beam, open_test_node: OpenNode) -> None:
    server = Counter()
    async with open_test_node(services={"counter": server}) as node:
        await beam.evaluate(f"c = {{:counter, :'{node.name}'}}; ref = Process.monitor(c)")
        assert await beam.evaluate("GenServer.stop(c, :enough)") == ":ok"
        assert (
            await beam.evaluate("receive do {:DOWN, ^ref, _, _, reason} -> reason end") == ":enough"
        )
        assert "counter" not in node.registered()


async def test_a_full_mailbox_refuses_calls_with_a_reason(
    beam: Beam, open_test_node: OpenNode
) -> None:
    class Small(Counter):
        mailbox = MailboxPolicy(capacity=2)

    server = Small()
    async with open_test_node(services={"small": server}) as node:
        await beam.evaluate(f"c = {{:small, :'{node.name}'}}; :gen_server.send_request(c, :block)")
        await server.entered.wait()
        await beam.evaluate("for _ <- 1..2, do: GenServer.cast(c, {:add, 1})")
        assert await beam.evaluate("GenServer.call(c, {:add, 1})") == (
            "{:error, {:overloaded, %{retry_after_ms: 100}}}"
        )
        await beam.evaluate("GenServer.cast(c, {:add, 1000})")
        assert await beam.evaluate(f"Node.ping(:'{node.name}')") == ":pong"  # so it has arrived
        server.release.set()
        assert await beam.evaluate(":sys.get_state(c)") == "2"
