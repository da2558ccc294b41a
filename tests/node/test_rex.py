"""`rex` and the group leader as signals: what they are asked never ends them or the node."""

from __future__ import annotations

import os
import shutil
from typing import Any

import pytest
import trio
from exported import demo
from hypothesis import given
from hypothesis import strategies as st
from node_support import OpenNode
from plain_carrier import plain_carrier
from router_support import YOU
from test_node_signals import signal
from test_spawns import CALL, DEMO, ERPC, RES, X, exporting, ref, request, terms

from bridge.etf import Atom, ImproperList, Reference, encode_bare
from bridge.node import Asked, Policy
from bridge.node.exports import Exports
from bridge.node.functions.executions import ExportLimits
from bridge.testing import COOKIE, EpmdDaemon

REX, USER, CALL_IT = Atom("rex"), Atom("user"), Atom("call")


def to_rex(node: Any, message: Any) -> None:
    control = (6, YOU, Atom(""), REX)
    node.handle_signal(1, encode_bare(control), encode_bare(message, record_ok=True))


rex_messages = st.one_of(
    terms,
    st.tuples(
        st.just(YOU),
        st.tuples(st.sampled_from([CALL_IT, Atom("block_call")]), terms, terms, terms, terms),
    ),
    st.tuples(st.just(YOU), st.tuples(st.just(CALL_IT), terms, terms, terms, st.just(USER))),
    st.tuples(
        st.just(YOU),
        st.tuples(st.sampled_from([Atom("sbcast"), Atom("send")]), terms, terms),
    ),
    st.tuples(
        st.just(Atom("$gen_call")),
        st.tuples(st.just(YOU), terms),
        st.tuples(st.just(CALL_IT), terms, terms, terms, st.just(USER)),
    ),
    st.tuples(
        st.just(Atom("$gen_cast")),
        st.tuples(st.just(Atom("cast")), terms, terms, terms, st.just(YOU)),
    ),
)


@given(messages=st.lists(rex_messages, max_size=6))
async def test_rex_takes_anything(messages: list[Any]) -> None:
    ran: list[Any] = []
    exports = Exports()
    exports.function("Elixir.Demo", "secret")(lambda *args: ran.append(args))
    async with exporting(exports) as (node, carrier):
        for message in messages:
            to_rex(node, message)
        assert carrier.dropped == []
        assert ran == []
        assert len(node.executions) == 0
        carrier.sent.clear()
        to_rex(node, (YOU, Atom("features_request")))
        assert carrier.sent[0][1] == (Atom("features_reply"), Atom("us@h"), [ERPC])


async def test_rex_passes_on_with_the_rights_of_the_asking_node_only() -> None:
    asked: list[Asked] = []

    def refuse(what: Asked) -> bool:
        asked.append(what)
        return REX.name in what.names

    async with exporting(policy=Policy(authorise=refuse)) as (node, _):
        got: list[Any] = []

        async def take(me: Any) -> None:
            got.append(await me.receive())

        await node.spawn(take, name="taker")
        to_rex(node, (YOU, (Atom("sbcast"), Atom("taker"), X)))
        await trio.testing.wait_all_tasks_blocked()
        assert got == []
        assert asked[-1].names == {"taker"}
        assert asked[-1].node == YOU.node.name


@pytest.mark.parametrize("as_cast", [True, False])
async def test_an_answer_that_a_peer_sends_back_to_rex_is_no_request_of_our_own(
    as_cast: bool,
) -> None:
    """The From of a request may be a pid of ours, and its tag whatever begins a request."""
    ran: list[Any] = []
    exports = Exports()
    exports.function("Elixir.Demo", "echo")(lambda term: term)
    exports.function("Elixir.Demo", "secret", admin=True)(lambda: ran.append(1))
    async with exporting(exports, policy=Policy(admin=lambda node: False)) as (node, _):
        rex = node.router.table.find(REX)
        assert rex is not None
        tag: Any
        inner: Any
        if as_cast:
            tag, inner = Atom("$gen_cast"), (Atom("cast"), DEMO, Atom("secret"), [], YOU)
        else:
            tag, inner = YOU, (CALL_IT, DEMO, Atom("secret"), [], USER)
        call = (Atom("block_call"), DEMO, Atom("echo"), [inner], USER)
        to_rex(node, (Atom("$gen_call"), (rex.pid, tag), call))
        await trio.testing.wait_all_tasks_blocked()
        assert ran == []


async def test_a_request_within_a_request_has_no_bottom_and_is_not_followed() -> None:
    message: Any = X
    for _ in range(2000):
        message = (YOU, (Atom("sbcast"), REX, message))
    async with exporting() as (node, carrier):
        to_rex(node, message)
        answer = (REX, Atom("us@h"), (Atom("nonexisting_name"), REX))
        assert [sent[1] for sent in carrier.sent] == [answer]


async def test_a_call_that_is_killed_has_an_answer() -> None:
    async with exporting() as (node, carrier):
        to_rex(node, (YOU, (CALL_IT, DEMO, Atom("for_ever"), [], USER)))
        (process,) = [each for each in node.router.table if each.spawned_by]
        signal(node, (26, YOU, process.pid), Atom("kill"))
        await node.executions.wait_none()
        killed = (Atom("badrpc"), (Atom("EXIT"), Atom("killed")))
        assert [sent[1] for sent in carrier.sent] == [(REX, killed)]


async def test_a_call_past_the_limit_has_an_answer() -> None:
    async with exporting(limits=ExportLimits(executions_max=0)) as (node, carrier):
        to_rex(node, (YOU, (CALL_IT, DEMO, Atom("now"), [], USER)))
        limit = (Atom("badrpc"), (Atom("EXIT"), Atom("system_limit")))
        assert [sent[1] for sent in carrier.sent] == [(REX, limit)]


# -- the group leader ------------------------------------------------------------------------------


def io_request(node: Any, request_: Any) -> None:
    message = (Atom("io_request"), YOU, RES, request_)
    leader = node.group_leader()
    node.handle_signal(1, encode_bare((22, YOU, leader)), encode_bare(message, record_ok=True))


PUT, UNICODE, LATIN1 = Atom("put_chars"), Atom("unicode"), Atom("latin1")
ENOTSUP = (Atom("error"), Atom("enotsup"))


@pytest.mark.parametrize(
    ("asked", "answer", "text"),
    [
        ((PUT, UNICODE, "é\n".encode()), Atom("ok"), "é\n"),
        ((PUT, UNICODE, [104, [105, b"!"], ImproperList((33,), b"\n")]), Atom("ok"), "hi!!\n"),
        ((PUT, LATIN1, b"\xe9"), Atom("ok"), "é"),
        ((PUT, b"old"), Atom("ok"), "old"),
        ((PUT, UNICODE, b"\xff"), (Atom("error"), (PUT, UNICODE, b"\xff")), ""),
        ((PUT, UNICODE, [0xD800]), (Atom("error"), (PUT, UNICODE, [0xD800])), ""),
        ((PUT, UNICODE, [2**70]), (Atom("error"), (PUT, UNICODE, [2**70])), ""),
        ((Atom("requests"), [(PUT, UNICODE, b"a"), (PUT, UNICODE, b"b")]), Atom("ok"), "ab"),
        ((Atom("requests"), [(PUT, UNICODE, b"a"), X, (PUT, UNICODE, b"b")]), None, "a"),
        ((Atom("get_line"), UNICODE, b">"), ENOTSUP, ""),
        ((Atom("get_until"), UNICODE, b">", Atom("m"), Atom("f"), []), ENOTSUP, ""),
        ((Atom("get_geometry"), Atom("columns")), ENOTSUP, ""),
        (Atom("getopts"), ENOTSUP, ""),
        (X, (Atom("error"), Atom("request")), ""),
    ],
)
async def test_io_requests(asked: Any, answer: Any, text: str) -> None:
    written: list[str] = []
    async with exporting(output=lambda node, text: written.append(text)) as (node, carrier):
        io_request(node, asked)
        await trio.testing.wait_all_tasks_blocked()
        expected = answer if answer is not None else (Atom("error"), Atom("request"))
        assert [sent[1] for sent in carrier.sent] == [(Atom("io_reply"), RES, expected)]
        assert "".join(written) == text


async def test_only_io_lib_of_the_writing_node_formats() -> None:
    async with exporting() as (node, carrier):
        io_request(node, (PUT, UNICODE, Atom("os"), Atom("cmd"), [b"true"]))
        await trio.testing.wait_all_tasks_blocked()
        refused = (Atom("error"), (PUT, UNICODE, Atom("os"), Atom("cmd")))
        assert [sent[1] for sent in carrier.sent] == [(Atom("io_reply"), RES, refused)]


@given(requests=st.lists(terms, max_size=5))
async def test_the_group_leader_takes_anything(requests: list[Any]) -> None:
    written: list[str] = []
    async with exporting(output=lambda node, text: written.append(text)) as (node, carrier):
        for each in requests:
            io_request(node, each)
        await trio.testing.wait_all_tasks_blocked()
        assert carrier.dropped == []
        io_request(node, (PUT, UNICODE, b"still here"))
        await trio.testing.wait_all_tasks_blocked()
        assert written[-1] == "still here"


async def test_an_output_that_fails_is_an_error_at_the_writer() -> None:
    def fail(node: str, text: str) -> None:
        raise OSError("no paper")

    async with exporting(output=fail) as (node, carrier):
        io_request(node, (PUT, UNICODE, b"x"))
        await trio.testing.wait_all_tasks_blocked()
        answer = (Atom("io_reply"), RES, (Atom("error"), Atom("terminated")))
        assert [sent[1] for sent in carrier.sent] == [answer]


async def test_what_a_function_prints_goes_to_the_leader_of_its_request() -> None:
    async with exporting() as (node, carrier):
        mfa = [RES, DEMO, Atom("print"), [b"hi"]]
        request(node, 1, (ERPC, CALL, 4), mfa)
        await trio.testing.wait_all_tasks_blocked()
        pid = carrier.sent[0][0][4]
        (monitor,), ((op, *_), (tag, sender, reply_as, chars)) = carrier.sent[1:]
        assert monitor == (19, pid, YOU, reply_as)
        assert (op, tag, sender, chars) == (22, Atom("io_request"), pid, (PUT, UNICODE, b"hi"))
        assert isinstance(reply_as, Reference)
        signal(node, (22, YOU, pid), (Atom("io_reply"), reply_as, Atom("ok")))
        await node.executions.wait_none()
        assert carrier.sent[-1] == ((28, pid, YOU, ref(1)), (RES, Atom("return"), Atom("ok")))


@pytest.mark.beam
@pytest.mark.skipif(shutil.which("erl_call") is None, reason="no erl_call here")
async def test_a_c_node_calls(epmd: EpmdDaemon, carrier: Any, open_test_node: OpenNode) -> None:
    if carrier is plain_carrier:
        pytest.skip("the double knows no frames without a distribution header")
    async with open_test_node(exports=demo()) as node:
        for apply, printed in [("now", "now"), ("add [1,2]", "3"), ("slow [abc]", "abc")]:
            done = await trio.run_process(
                ["erl_call", "-c", COOKIE, "-name", node.name, "-a", f"Elixir.Demo {apply}"],
                env={**os.environ, "ERL_EPMD_PORT": str(epmd.port)},
                capture_stdout=True,
            )
            assert done.stdout.decode().strip() == printed
            # All have one name; the next would be told that it is alive here, and give up.
            while node.connected():  # noqa: ASYNC110
                await trio.sleep(0.001)
