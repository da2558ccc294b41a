"""Spawn requests as signals: one answer to each, at once, and nothing outside the table."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from exported import demo
from hypothesis import given
from hypothesis import strategies as st
from router_support import YOU
from test_node_signals import ListCarrier, signal

from bridge.dist.cookie import Cookie
from bridge.dist.flags import OFFERED
from bridge.dist.handshake_events import Identity
from bridge.etf import Atom, Export, ImproperList, Pid, Record, Reference, encode_bare
from bridge.node import Node, Policy
from bridge.node.cluster.peers import Connection
from bridge.node.exports import Exports
from bridge.node.functions.executions import ExportLimits

ERPC, CALL, CAST = Atom("erpc"), Atom("execute_call"), Atom("execute_cast")
MONITOR, LINK = Atom("monitor"), Atom("link")
DEMO = Atom("Elixir.Demo")
X = Atom("x")


def ref(number: int) -> Reference:
    return Reference(YOU.node, YOU.creation, (number, 0, 0))


RES = ref(999)


@asynccontextmanager
async def exporting(
    exports: Exports | None = None, **options: Any
) -> AsyncIterator[tuple[Node, ListCarrier]]:
    carrier = ListCarrier()
    async with trio.open_nursery() as nursery:
        node = Node(
            Identity("us@h", 7),
            Cookie("cookie"),
            carrier,
            nursery=nursery,
            exports=exports or demo(),
            **options,
        )
        node.connections.peers.up(Connection(1, YOU.node.name, OFFERED, YOU.creation))
        yield node, carrier
        nursery.cancel_scope.cancel()


def request(
    node: Node, number: int, mfa: Any, args: Any, options: Any = (MONITOR,), leader: Any = YOU
) -> None:
    options = list(options) if isinstance(options, tuple) else options
    signal(node, (29, ref(number), YOU, leader, mfa, options), args)


def call(node: Node, number: int, function: str, *args: Any, options: Any = (MONITOR,)) -> None:
    request(node, number, (ERPC, CALL, 4), [RES, DEMO, Atom(function), list(args)], options)


async def test_the_answer_comes_before_the_outcome() -> None:
    async with exporting() as (node, carrier):
        call(node, 1, "add", 1, 2)
        reply, down = carrier.sent
        (pid,) = reply[0][4:]
        assert reply == ((31, ref(1), YOU, 2, pid),)
        assert down == ((28, pid, YOU, ref(1)), (RES, Atom("return"), 3))
        assert isinstance(pid, Pid)
        assert (pid.node, pid.creation) == (Atom("us@h"), 7)
        assert node.statistics().monitors_on_us == 0


async def test_a_link_hears_the_outcome_too_and_first() -> None:
    async with exporting() as (node, carrier):
        request(node, 1, (DEMO, Atom("throws"), 1), [X], (LINK, MONITOR))
        reply, exit_, down = [sent for sent in carrier.sent if sent[0][0] in (31, 24, 28)]
        pid = reply[0][4]
        reason: Any = ((Atom("nocatch"), X), [(DEMO, Atom("throws"), 1, [])])
        assert reply == ((31, ref(1), YOU, 3, pid),)
        assert exit_ == ((24, pid, YOU), reason)
        assert down == ((28, pid, YOU, ref(1)), reason)


async def test_an_answer_never_waits_for_the_function() -> None:
    async with exporting() as (node, carrier):
        call(node, 1, "for_ever")
        call(node, 2, "now")
        assert [sent[0][0] for sent in carrier.sent] == [31, 31, 28]
        assert len(node.executions) == 1


async def test_a_caller_that_gives_up_ends_the_run() -> None:
    async with exporting() as (node, carrier):
        call(node, 1, "for_ever")
        pid = carrier.sent[0][0][4]
        await trio.testing.wait_all_tasks_blocked()
        signal(node, (20, YOU, pid, ref(1)))
        await node.executions.wait_none()
        assert [sent[0][0] for sent in carrier.sent] == [31]


async def test_a_run_that_is_given_up_before_its_turn_never_begins() -> None:
    ran: list[int] = []
    exports = Exports()

    @exports.function("m")
    async def f() -> None:
        ran.append(1)

    async with exporting(exports) as (node, carrier):
        request(node, 1, (ERPC, CALL, 4), [RES, Atom("m"), Atom("f"), []])
        signal(node, (20, YOU, carrier.sent[0][0][4], ref(1)))
        await node.executions.wait_none()
        assert ran == []
        request(node, 2, (ERPC, CALL, 4), [RES, Atom("m"), Atom("f"), []])
        await node.executions.wait_none()
        assert ran == [1]


async def test_a_result_for_ourselves_has_the_types_that_others_get() -> None:
    exports = Exports()
    exports.function("m", "f")(lambda: ["text", bytearray(b"x")])
    async with exporting(exports) as (node, _):
        assert await node.erpc(node.name, "m", "f") == [b"text", b"x"]


async def test_a_spawned_process_outlives_its_monitor() -> None:
    async with exporting() as (node, carrier):
        request(node, 1, (DEMO, Atom("for_ever"), 0), [])
        pid = carrier.sent[0][0][4]
        signal(node, (20, YOU, pid, ref(1)))
        await trio.testing.wait_all_tasks_blocked()
        assert len(node.executions) == 1
        node.handle_connection_lost(1, "closed_by_peer")
        await trio.testing.wait_all_tasks_blocked()
        assert len(node.executions) == 1


async def test_a_lost_connection_ends_calls_and_linked_processes() -> None:
    async with exporting() as (node, _):
        call(node, 1, "for_ever")
        request(node, 2, (DEMO, Atom("for_ever"), 0), [], (LINK,))
        assert len(node.executions) == 2
        node.handle_connection_lost(1, "closed_by_peer")
        await node.executions.wait_none()


async def test_an_exit_signal_ends_a_run_and_is_its_outcome() -> None:
    admin = Policy(admin=lambda node: False)
    async with exporting(policy=admin) as (node, carrier):
        call(node, 1, "for_ever")
        pid = carrier.sent[0][0][4]
        signal(node, (26, YOU, pid), Atom("kill"))  # who spawned a process may end it
        await node.executions.wait_none()
        assert carrier.sent[1] == ((28, pid, YOU, ref(1)), Atom("killed"))


@pytest.mark.parametrize(
    "options",
    [
        X,
        1,
        [X],
        [None],
        [(LINK, X)],
        [(Atom("priority"), X)],
        [(Atom("min_heap_size"), -1)],
        [(Atom("min_heap_size"), True)],
        [(Atom("max_heap_size"), 10)],
        [(Atom("max_heap_size"), {Atom("kill"): True})],
        [(Atom("message_queue_data"), X)],
        [(Atom("reply"), Atom("yes"))],
        ImproperList((MONITOR,), X),
        {},
    ],
)
async def test_a_bad_option_is_refused(options: Any) -> None:
    async with exporting() as (node, carrier):
        request(node, 1, (DEMO, Atom("now"), 0), [], options)
        assert carrier.sent == [((31, ref(1), YOU, 0, Atom("badopt")),)]
        assert len(node.executions) == 0


@pytest.mark.parametrize(
    "option",
    [
        (Atom("priority"), Atom("max")),
        (Atom("min_heap_size"), 1000),
        (Atom("fullsweep_after"), 0),
        (Atom("max_heap_size"), 0),
        (Atom("max_heap_size"), {Atom("size"): 1000, Atom("kill"): False}),
        (Atom("message_queue_data"), Atom("off_heap")),
        (MONITOR, [(Atom("alias"), Atom("demonitor"))]),
    ],
)
async def test_options_of_a_beam_are_taken(option: Any) -> None:
    async with exporting() as (node, carrier):
        request(node, 1, (DEMO, Atom("now"), 0), [], [option, MONITOR])
        assert carrier.sent[0][0][3] == 2
        assert carrier.sent[1][1] == Atom("normal")


async def test_what_is_over_a_limit_is_refused() -> None:
    limits = ExportLimits(executions_per_node_max=2, argument_bytes_max=100)
    async with exporting(limits=limits) as (node, carrier):
        call(node, 1, "for_ever")
        call(node, 2, "for_ever")
        call(node, 3, "now")
        assert carrier.sent[2:] == [((31, ref(3), YOU, 0, Atom("system_limit")),)]
        pid = carrier.sent[0][0][4]
        signal(node, (20, YOU, pid, ref(1)))
        await trio.testing.wait_all_tasks_blocked()
        carrier.sent.clear()
        call(node, 4, "echo", b"x" * 200)
        assert carrier.sent == [((31, ref(4), YOU, 0, Atom("system_limit")),)]
        call(node, 5, "now")
        assert carrier.sent[2][1] == (RES, Atom("return"), Atom("now"))


async def test_an_async_function_has_its_time(autojump_clock: trio.testing.MockClock) -> None:
    async with exporting(limits=ExportLimits(time_s=2.0)) as (node, carrier):
        exports = Exports()

        @exports.function("Slow")
        async def never() -> None:
            await trio.sleep_forever()

        node.exports.merge(exports)
        mfa = [Atom("Elixir.Slow"), Atom("never"), []]
        request(node, 1, (ERPC, CALL, 4), [RES, *mfa])
        await node.executions.wait_none()
        assert trio.current_time() == pytest.approx(2.0)
        stack: Any = [(Atom("Elixir.Slow"), Atom("never"), 0, [])]
        assert carrier.sent[1][1] == (RES, Atom("error"), Atom("timeout"), stack)


async def test_admin_functions_are_for_admin_nodes() -> None:
    exports = Exports()
    ran = []
    exports.function("erlang", "halt", admin=True)(lambda: ran.append(1))
    halt = [RES, Atom("erlang"), Atom("halt"), []]
    async with exporting(exports, policy=Policy(admin=lambda node: False)) as (node, carrier):
        request(node, 1, (ERPC, CALL, 4), halt)
        _, error, (unauthorized, why), _ = carrier.sent[1][1]
        assert (error, unauthorized) == (Atom("error"), Atom("unauthorized"))
        assert b"erlang:halt/0 is for admin nodes" in why
        assert ran == []
    async with exporting(exports, policy=Policy(admin=lambda node: True)) as (node, carrier):
        request(node, 1, (ERPC, CALL, 4), halt)
        assert carrier.sent[1][1] == (RES, Atom("return"), None)
        assert ran == [1]


async def test_a_result_that_is_no_term_is_an_error_at_the_caller() -> None:
    exports = Exports()
    exports.function("m", "f")(lambda: object())
    async with exporting(exports) as (node, carrier):
        request(node, 1, (ERPC, CALL, 4), [RES, Atom("m"), Atom("f"), []])
        reason = (Atom("not_a_term"), b"object")
        assert carrier.sent[1][1][1:3] == (Atom("error"), reason)


async def test_a_crash_of_a_spawned_process_is_told_to_the_callers_logger() -> None:
    async with exporting() as (node, carrier):
        request(node, 1, (DEMO, Atom("nope"), 0), [], ())
        reply, ((op, pid, _, name), event) = carrier.sent
        assert (op, name) == (6, Atom("logger_proxy"))
        assert pid == reply[0][4]
        log, level, _, (who, where, reason), meta = event
        assert (log, level, who, where) == (Atom("log"), Atom("error"), pid, Atom("us@h"))
        assert reason == (Atom("undef"), [(DEMO, Atom("nope"), [], [])])
        assert meta[Atom("gl")] == YOU


# -- nothing outside the table ---------------------------------------------------------------------

strange = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.binary(max_size=3),
    st.sampled_from(
        [
            DEMO,
            ERPC,
            CALL,
            CAST,
            Atom("erlang"),
            Atom("apply"),
            Atom("builtins"),
            Atom("__class__"),
            Atom("Elixir.Demo\x00"),
            Atom(""),
            Atom("nope"),
            YOU,
            RES,
            Export(DEMO, Atom("nope"), 0),
            Record(DEMO, DEMO, 0, (), ()),
            ImproperList((1,), 2),
            {},
        ]
    ),
)
terms = st.recursive(
    strange, lambda inner: st.lists(inner, max_size=5) | st.lists(inner, max_size=4).map(tuple)
)
mfas = st.one_of(
    st.tuples(
        st.sampled_from([ERPC, DEMO, Atom("erlang"), Atom("proc_lib"), Atom("os")]),
        st.sampled_from([CALL, CAST, Atom("apply"), Atom("init_p"), Atom("cmd"), Atom("nope")]),
        st.integers(0, 255),
    ),
    strange,
)
requests = st.lists(
    st.tuples(mfas, terms, st.one_of(terms, st.just([MONITOR]), st.just([MONITOR, LINK]))),
    min_size=1,
    max_size=5,
)


@given(requests=requests)
async def test_any_request_has_one_answer_or_ends_its_connection(
    requests: list[tuple[Any, Any, Any]],
) -> None:
    ran: list[Any] = []
    exports = Exports()
    exports.function("Elixir.Demo", "secret")(lambda *args: ran.append(args))
    async with exporting(exports) as (node, carrier):
        for number, (mfa, args, options) in enumerate(requests):
            if not node.connected():
                return
            carrier.sent.clear()
            control = (29, ref(number), YOU, YOU, mfa, options)
            node.handle_signal(
                1, encode_bare(control, record_ok=True), encode_bare(args, record_ok=True)
            )
            replies = [sent[0] for sent in carrier.sent if sent[0][0] == 31]
            downs = [sent[0] for sent in carrier.sent if sent[0][0] == 28]
            if not node.connected():
                assert replies == []
                continue
            (reply,) = replies
            assert reply[1:3] == (ref(number), YOU)
            assert carrier.sent[0][0] == reply
            assert len(downs) == (1 if reply[3] & 2 else 0)
        assert ran == []
        assert len(node.executions) == 0
        assert node.statistics().monitors_on_us == 0


async def test_arguments_that_cannot_be_decoded_end_the_connection() -> None:
    async with exporting() as (node, carrier):
        control = (29, ref(1), YOU, YOU, (DEMO, Atom("now"), 0), [MONITOR])
        node.handle_signal(1, encode_bare(control), b"\xff")
        assert carrier.dropped
        assert len(node.executions) == 0


@pytest.mark.parametrize(
    "control",
    [
        (29, ref(1), Pid(Atom("else@h"), 1, 0, 1), YOU, (DEMO, Atom("now"), 0), []),
        (29, Reference(Atom("else@h"), 1, (1,)), YOU, YOU, (DEMO, Atom("now"), 0), []),
        (29, ref(1), YOU, YOU, (DEMO, Atom("now"), 256), []),
        (29, ref(1), YOU, YOU, (DEMO, b"now", 0), []),
        (29, ref(1), YOU, X, (DEMO, Atom("now"), 0), []),
    ],
)
async def test_requests_that_break_the_protocol_end_the_connection(control: Any) -> None:
    async with exporting() as (node, carrier):
        signal(node, control, [])
        assert len(carrier.dropped) == 1
        assert carrier.sent == []
