"""`sys` of every kind of process, message by message (sys.erl)."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from plain_carrier import plain_carrier
from structlog.testing import capture_logs

from bridge.etf import Atom, Export, Pid, decode_bare, encode_bare
from bridge.node import GenServer, Node, ProcessHandle, RelayServiceHooks, Sender, open_node

OK, ERROR = Atom("ok"), Atom("error")


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    async with open_node(
        "sys@127.0.0.1", cookie="none", listen=False, carrier=plain_carrier
    ) as opened:
        yield opened


class Adder(GenServer):
    def __init__(self) -> None:
        self.state = 1

    async def handle_call(self, request: Any, sender: Sender) -> Any:
        self.state += request
        return self.state

    async def handle_cast(self, request: Any) -> None:
        self.state += request

    async def handle_info(self, message: Any) -> None:
        pass


def a_fun(pid: Pid) -> Any:
    """A local fun as a BEAM would send it: NEW_FUN_EXT."""
    body = struct.pack(">B16sII", 1, b"u" * 16, 0, 0)
    body += b"".join(encode_bare(each) for each in (Atom("m"), 0, 0, pid))
    return decode_bare(b"p" + struct.pack(">I", len(body) + 4) + body)[0]


async def waiting(me: ProcessHandle) -> None:
    me.state = 1
    while True:
        await me.receive()


async def system(node: Node, to: Any, request: Any) -> Any:
    """The answer to a `sys` request, as `sys:send_system_msg` asks."""
    answers: list[Any] = []

    async def ask(me: ProcessHandle) -> None:
        ref = node.router.ids.next_ref()
        me.send(to, (Atom("system"), (me.pid, ref), request))
        answers.append(await me.receive((ref, object), timeout=2))

    await node.spawn(ask)
    await trio.testing.wait_all_tasks_blocked()
    return answers[0][1] if answers else "no answer"


async def start(node: Node, kind: str) -> Pid:
    match kind:
        case "gen_server":
            return await node.start(Adder(), name="it")
        case "plain":
            return await node.spawn(waiting, name="it")
        case _:
            hooks = RelayServiceHooks(get_state=lambda: 1)
            return node.add_relay_service(["it"], module="Relay", hooks=hooks)


KINDS = pytest.mark.parametrize("kind", ["gen_server", "plain", "relay_service"])


@KINDS
async def test_every_process_shows_its_state_and_status(node: Node, kind: str) -> None:
    pid = await start(node, kind)
    await trio.testing.wait_all_tasks_blocked()
    assert await system(node, pid, Atom("get_state")) == (OK, 1)
    tag, shown, (module, _), parts = await system(node, pid, Atom("get_status"))
    assert (tag, shown, module) == (Atom("status"), pid, Atom("module"))
    dictionary, running, parent, debug, misc = parts
    assert (running, parent, debug) == (Atom("running"), pid, [])
    assert (Atom("$ancestors"), []) in dictionary
    assert "Status for Python process it" in bytes(misc[0][1]).decode()


@KINDS
async def test_every_process_is_suspended_and_resumed(node: Node, kind: str) -> None:
    pid = await start(node, kind)
    for request, running in (("suspend", "suspended"), ("resume", "running")):
        assert await system(node, pid, Atom(request)) == OK
        status = await system(node, pid, Atom("get_status"))
        assert status[3][1] == Atom(running)


@KINDS
async def test_every_process_ends_with_the_reason_it_is_told(node: Node, kind: str) -> None:
    pid = await start(node, kind)
    monitor = await node.monitor(pid)
    assert await system(node, pid, (Atom("terminate"), Atom("enough"))) == OK
    assert (await monitor.wait()).reason == Atom("enough")
    assert node.whereis("it") is None


@KINDS
async def test_what_cannot_be_is_refused_in_the_shapes_of_otp(node: Node, kind: str) -> None:
    pid = await start(node, kind)
    fun = a_fun(pid)
    for request, reply in (
        (("debug", ("install", (fun, 0))), Atom("unknown_debug")),
        (("debug", ("remove", fun)), OK),
        (("debug", ("log_to_file", b"/tmp/x")), (ERROR, Atom("open_file"))),
        (("debug", ("log_to_file", False)), OK),
        (("debug", ("log", (True, 0))), Atom("unknown_debug")),
        (("nonsense", 1), (ERROR, (Atom("unknown_system_msg"), (Atom("nonsense"), 1)))),
    ):
        assert await system(node, pid, _atoms(request)) == reply, request
    change: Any = (Atom("change_code"), Atom("m"), 1, [])
    assert (await system(node, pid, change))[1] == (Atom("unknown_system_msg"), change)
    await system(node, pid, Atom("suspend"))
    assert (await system(node, pid, change))[1][0] == Atom("not_supported")


@KINDS
async def test_a_fun_of_a_beam_does_not_replace_a_state_and_the_answer_says_why(
    node: Node, kind: str
) -> None:
    pid = await start(node, kind)
    fun = a_fun(pid)
    error, (why, text) = await system(node, pid, (Atom("replace_state"), fun))
    assert (error, why) == (ERROR, Atom("not_supported"))
    assert b"exports" in text


async def test_an_exported_function_replaces_a_state(node: Node) -> None:
    pid = await start(node, "gen_server")

    @node.exports.function("state", "double")
    def double(state: int) -> int:
        return 2 * state

    @node.exports.function("state", "crash")
    def crash(state: int) -> int:
        raise ValueError(f"not {state}")

    def replace(name: str) -> Any:
        return (Atom("replace_state"), Export(Atom("state"), Atom(name), 1))

    assert await system(node, pid, replace("double")) == (OK, 2)
    assert await system(node, pid, Atom("get_state")) == (OK, 2)
    where = (Atom("Adder"), Atom("system_replace_state"))
    for name, reason in (
        ("unknown", Atom("undef")),
        ("crash", (Atom("exception"), b"ValueError", b"not 2")),
    ):
        failed = (ERROR, (Atom("callback_failed"), where, (ERROR, reason)))
        assert await system(node, pid, replace(name)) == failed
    assert await system(node, pid, Atom("get_state")) == (OK, 2)


@pytest.mark.parametrize("kind", ["plain", "relay_service", "own_get_state"])
async def test_who_takes_no_state_says_so(node: Node, kind: str) -> None:
    class Shown(Adder):
        def get_state(self) -> Any:
            return {Atom("shown"): self.state}

    pid = await (node.start(Shown()) if kind == "own_get_state" else start(node, kind))
    node.exports.function("state", "same")(lambda state: state)
    request = (Atom("replace_state"), Export(Atom("state"), Atom("same"), 1))
    reply = await system(node, pid, request)
    if kind == "relay_service":  # it knows no exports: no function is found
        assert reply[1][0] == Atom("callback_failed")
    else:
        assert reply[1][0] == Atom("not_supported")


def _atoms(request: Any) -> Any:
    if isinstance(request, tuple):
        return tuple(map(_atoms, request))
    return Atom(request) if isinstance(request, str) else request


async def debug(node: Node, pid: Pid, *what: Any) -> Any:
    option = _atoms(what[0] if len(what) == 1 else what)
    return await system(node, pid, (Atom("debug"), option))


async def test_statistics_count_from_when_they_are_turned_on(node: Node) -> None:
    pid = await start(node, "gen_server")
    assert await debug(node, pid, "statistics", "get") == (OK, Atom("no_statistics"))
    await node.call(pid, 1)
    assert await debug(node, pid, "statistics", True) == OK
    await node.call(pid, 1)
    await node.cast(pid, 1)
    _, figures = await debug(node, pid, "statistics", "get")
    assert [name.name for name, _ in figures] == [
        "start_time",
        "current_time",
        "reductions",
        "messages_in",
        "messages_out",
    ]
    assert [value for _, value in figures[3:]] == [2, 1]
    assert [len(part) for part in figures[0][1]] == [3, 3]
    assert await debug(node, pid, "statistics", False) == OK
    assert await debug(node, pid, "statistics", "get") == (OK, Atom("no_statistics"))


async def test_the_log_holds_the_last_events_as_a_gen_server_tells_them(node: Node) -> None:
    pid = await start(node, "gen_server")
    assert await debug(node, pid, "log", "get") == (OK, [])
    assert await debug(node, pid, "log", (True, 3)) == OK
    await node.cast(pid, 1)
    await node.call(pid, 1)
    _, events = await debug(node, pid, "log", "get")
    assert [event[0].name for event in events] == ["noreply", "in", "out"]
    assert events[0] == (Atom("noreply"), 2)
    assert events[1][1][0] == Atom("$gen_call")
    assert events[2][1] == 3
    assert events[2][2] == events[1][1][1]
    assert events[2][3] == 3
    status = await system(node, pid, Atom("get_status"))
    assert status[3][3] == [(Atom("log"), events)]
    assert await debug(node, pid, "no_debug") == OK
    assert await debug(node, pid, "log", "get") == (OK, [])


async def test_a_trace_is_a_log_line_per_event(node: Node) -> None:
    pid = await start(node, "gen_server")
    with capture_logs() as lines:
        assert await debug(node, pid, "trace", True) == OK
        await node.call(pid, 1)
        assert await debug(node, pid, "trace", False) == OK
        await node.call(pid, 1)
    assert [line["event"] for line in lines] == ["sys trace"] * 2


async def test_a_suspended_process_receives_nothing_until_it_is_resumed(node: Node) -> None:
    got: list[Any] = []

    async def run(me: ProcessHandle) -> None:
        while True:
            got.append(await me.receive())

    pid = await node.spawn(run)
    await system(node, pid, Atom("suspend"))
    await node.send(pid, 1)
    await trio.testing.wait_all_tasks_blocked()
    assert got == []
    await system(node, pid, Atom("resume"))
    await trio.testing.wait_all_tasks_blocked()
    assert got == [1]


async def test_a_suspended_server_keeps_the_order_of_what_waits(node: Node) -> None:
    pid = await start(node, "gen_server")
    await system(node, pid, Atom("suspend"))
    for number in (10, 20):
        await node.cast(pid, number)
    assert await system(node, pid, Atom("get_state")) == (OK, 1)
    await debug(node, pid, "log", True)
    await system(node, pid, Atom("resume"))
    await trio.testing.wait_all_tasks_blocked()
    _, events = await debug(node, pid, "log", "get")
    assert [event[1] for event in events if event[0] == Atom("noreply")] == [11, 31]
