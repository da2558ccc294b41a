"""Decorated handlers: what a signature takes, what is refused and in which words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal

import pytest
import trio
from node_support import OpenNode, needs_erlang
from plain_carrier import plain_carrier
from structlog.testing import capture_logs

from bridge.etf import Atom, Pid, Reference
from bridge.node import (
    NO_REPLY,
    GenServer,
    Node,
    ProcessDown,
    Sender,
    call,
    cast,
    info,
    open_node,
)
from bridge.node.process.conversion import Mismatch, converter
from bridge.ops.answers import Answering
from bridge.testing import Beam


@dataclass
class Point:
    x: int
    y: float = 0.0


class Desk(GenServer):
    def __init__(self) -> None:
        self.state: int = 0
        self.seen: list[Any] = []
        self.waiting: list[Sender] = []

    @call
    def add(self, amount: int) -> int:
        self.state += amount
        return self.state

    @call("get-all")
    async def get_all(self, prefix: str = "") -> dict[Any, Any]:
        await trio.lowlevel.checkpoint()
        return {Atom(prefix + "state"): self.state}

    @call
    def move(self, point: Point, *, sender: Sender) -> tuple[Pid, Point]:
        return sender.pid, Point(point.x + 1, point.y)

    @call
    def later(self, *, sender: Sender) -> Any:
        self.waiting.append(sender)
        return NO_REPLY

    @call
    def crash(self) -> None:
        raise RuntimeError("asked to")

    @cast
    def set(self, value: int) -> None:
        self.state = value

    @cast
    def release(self) -> None:
        for sender in self.waiting:
            self.reply(sender, Atom("released"))

    @info("DOWN")
    def watched_ended(self, ref: Reference, kind: Atom, who: Any, why: Any) -> None:
        self.seen.append(("down", why))

    @info
    async def tell(self, what: bytes) -> None:
        self.seen.append(what)


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    async with open_node(
        "handlers@127.0.0.1", cookie="none", listen=False, carrier=plain_carrier
    ) as opened:
        yield opened


@pytest.fixture
async def desk(node: Node) -> Desk:
    server = Desk()
    await node.start(server, name="desk")
    return server


ADD = Atom("add")


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        ((ADD, 2), 2),
        (Atom("get-all"), {Atom("state"): 0}),
        ((Atom("get-all"), "the_"), {Atom("the_state"): 0}),
    ],
)
async def test_a_request_finds_its_method(
    node: Node, desk: Desk, request_: Any, reply: Any
) -> None:
    assert await node.call("desk", request_) == reply


async def test_maps_are_dataclasses_and_back(node: Node, desk: Desk) -> None:
    both: list[dict[Any, int]] = [{Atom("x"): 1}, {b"x": 1, b"y": 2}]
    for keys in both:
        _, point = await node.call("desk", (Atom("move"), keys))
        assert point == {Atom("x"): 2, Atom("y"): keys.get(b"y", 0.0)}


@pytest.mark.parametrize(
    ("request_", "rule"),
    [
        ((ADD, b"2"), "amount of {:add, amount} is an integer, not b'2'"),
        ((ADD, True), "amount of {:add, amount} is an integer, not True"),
        ((ADD, 1, 2), "the request is {:add, amount}"),
        (ADD, "the request is {:add, amount}"),
        ((Atom("get-all"), b"\xff"), "a binary in UTF-8"),
        ((Atom("move"), {Atom("z"): 1}), "a map with the keys x, y"),
        ((Atom("move"), {Atom("x"): 1, Atom("z"): 1}), "a map with the keys x, y"),
        (Atom("nonsense"), "Desk knows {:add, amount}, :crash, "),
        ({}, "not {}"),
        (b"add", "Desk knows"),
    ],
)
async def test_a_bad_request_is_answered_with_the_rule_and_ends_nothing(
    node: Node, desk: Desk, request_: Any, rule: str
) -> None:
    error, (kind, why) = await node.call("desk", request_)
    assert (error, kind) == (Atom("error"), Atom("bad_request"))
    assert rule in why.decode()
    assert await node.call("desk", (ADD, 1)) == 1


async def test_an_exception_of_a_method_is_a_crash_as_ever(node: Node, desk: Desk) -> None:
    with pytest.raises(ProcessDown, match="asked to"):
        await node.call("desk", Atom("crash"))


async def test_answers_may_come_later(node: Node, desk: Desk) -> None:
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            assert await node.call("desk", Atom("later")) == Atom("released")

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        await node.cast("desk", Atom("release"))


async def test_a_server_reads_the_figures_of_its_mailbox(node: Node, desk: Desk) -> None:
    await node.call("desk", (Atom("add"), 1))
    await node.call("desk", (Atom("add"), 2))
    assert desk.mailbox_statistics().received == 2


async def test_casts_and_messages_that_fit_nothing_are_dropped_with_a_line(
    node: Node, desk: Desk
) -> None:
    with capture_logs() as lines:
        await node.cast("desk", (Atom("set"), 7))
        await node.cast("desk", (Atom("set"), b"7"))
        await node.cast("desk", Atom("nonsense"))
        await node.send("desk", (Atom("tell"), b"it"))
        await node.send("desk", (Atom("tell"), 1))
        await desk.monitor("nobody")
        await trio.testing.wait_all_tasks_blocked()
    assert desk.state == 7
    assert desk.seen == [b"it", ("down", Atom("noproc"))]
    events = [line["event"] for line in lines]
    assert events == ["unexpected cast", "unexpected cast", "unexpected message"]
    assert "value of {:set, value} is an integer" in lines[0]["why"]


async def test_a_flood_of_casts_that_fit_nothing_is_a_few_lines(node: Node, desk: Desk) -> None:
    with capture_logs() as lines:
        for _ in range(500):
            await node.cast("desk", Atom("nonsense"))
        await trio.testing.wait_all_tasks_blocked()
    assert len(lines) == 20


async def test_so_is_one_to_a_service_of_the_bridge(node: Node) -> None:
    await node.start(Answering(), name="answering")
    with capture_logs() as lines:
        for number in range(500):
            await node.cast("answering", number)
        await trio.testing.wait_all_tasks_blocked()
    assert len(lines) == 1


async def test_plain_handlers_remain_and_may_ask_the_decorated_ones(node: Node) -> None:
    class Both(Desk):
        async def handle_call(self, request: Any, sender: Sender) -> Any:
            if request == Atom("mine"):
                return Atom("yes")
            return await super().handle_call(request, sender)

    await node.start(Both(), name="both")
    assert await node.call("both", Atom("mine")) == Atom("yes")
    assert await node.call("both", (ADD, 1)) == 1, "inherited"


async def test_without_any_an_unexpected_call_ends_the_process(node: Node) -> None:
    await node.start(GenServer(), name="bare")
    with pytest.raises(ProcessDown, match="bad_call"):
        await node.call("bare", 1)


def test_a_signature_that_no_request_fits_is_an_error_of_the_class() -> None:
    with pytest.raises(TypeError, match="two handlers"):

        class Twice(GenServer):
            @call
            def one(self, a: int) -> None: ...

            @call("one")
            def other(self, b: int) -> None: ...

    with pytest.raises(TypeError, match="a request gives no"):

        class Extra(GenServer):
            @call
            def one(self, *, other: int) -> None: ...


# -- continue and timeout --------------------------------------------------------------------------


class Steps(GenServer):
    def __init__(self) -> None:
        self.steps: list[Any] = []

    async def init(self) -> None:
        self.continue_with("init")

    async def handle_continue(self, continuation: Any) -> None:
        self.steps.append(continuation)
        if continuation == "first":
            self.continue_with("second")

    async def handle_cast(self, request: Any) -> None:
        self.steps.append(request)
        if request == 1:
            self.continue_with("first")
        if request == 3:
            self.timeout_after(10)

    async def handle_timeout(self) -> None:
        self.steps.append("timeout")


async def test_continuations_run_before_the_next_message(node: Node) -> None:
    server = Steps()
    pid = await node.start(server)
    for number in (1, 2):
        node.router.send(pid, pid, (Atom("$gen_cast"), number))
    await trio.testing.wait_all_tasks_blocked()
    assert server.steps == ["init", 1, "first", "second", 2]


async def test_a_timeout_comes_when_no_message_does(
    node: Node, autojump_clock: trio.testing.MockClock
) -> None:
    server = Steps()
    pid = await node.start(server)
    await node.cast(pid, 3)
    await trio.sleep(9)
    await node.cast(pid, 4)  # it came in time
    await trio.sleep(11)
    assert server.steps == ["init", 3, 4]
    await node.cast(pid, 3)
    await trio.sleep(11)
    assert server.steps[3:] == [3, "timeout"]
    await trio.sleep(11)
    assert server.steps[5:] == [], "once"


async def test_an_unexpected_continuation_ends_the_process(node: Node) -> None:
    class Wrong(GenServer):
        async def handle_cast(self, request: Any) -> None:
            self.continue_with(request)

    pid = await node.start(Wrong())
    monitor = await node.monitor(pid)
    await node.cast(pid, 1)
    assert (await monitor.wait()).reason == (Atom("bad_continue"), 1)


# -- conversion ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "term", "value"),
    [
        (int, 1, 1),
        (float, 1, 1.0),
        (bool, True, True),
        (None, None, None),
        (bytes, b"a", b"a"),
        (str, b"\xc3\xa9", "é"),
        (Atom, Atom("a"), Atom("a")),
        (list[int], [1, 2], [1, 2]),
        (list, [1], [1]),
        (tuple[int, str], (1, b"a"), (1, "a")),
        (tuple[int, ...], (1, 2, 3), (1, 2, 3)),
        (dict[str, int], {Atom("a"): 1, b"b": 2}, {"a": 1, "b": 2}),
        (int | None, None, None),
        (str | int, 1, 1),
        (Literal["fast", 1], Atom("fast"), "fast"),
        (Literal["fast", 1], b"fast", "fast"),
        (Point, {Atom("x"): 1}, Point(1)),
        (list[Point], [{Atom("x"): 1}], [Point(1)]),
        (Any, {}, {}),
    ],
)
def test_terms_that_fit(annotation: Any, term: Any, value: Any) -> None:
    _, convert = converter(annotation)
    found = convert(term)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("annotation", "term"),
    [
        (int, True),
        (int, 1.0),
        (float, True),
        (bool, 1),
        (bool, Atom("true_")),
        (str, Atom("a")),
        (str, b"\xff"),
        (bytes, "a"),
        (list[int], [1, b"a"]),
        (list[int], (1,)),
        (tuple[int, str], (1,)),
        (tuple[int, ...], (1, b"a")),
        (dict[str, int], {1: 1}),
        (dict[str, int], []),
        (int | None, b"a"),
        (Literal["fast"], Atom("slow")),
        (Literal[1], True),
        (Point, {}),
        (Pid, Atom("a")),
    ],
)
def test_terms_that_do_not_fit(annotation: Any, term: Any) -> None:
    expected, convert = converter(annotation)
    with pytest.raises(Mismatch):
        convert(term)
    assert expected


def test_an_annotation_that_no_term_fits_is_an_error() -> None:
    with pytest.raises(TypeError):
        converter("text")


# -- asked by a BEAM -------------------------------------------------------------------------------


@needs_erlang
@pytest.mark.beam
async def test_every_way_of_calling_finds_a_method(beam: Beam, open_test_node: OpenNode) -> None:
    async with open_test_node(services={"desk": Desk()}) as node:
        await beam.evaluate(f"d = {{:desk, :'{node.name}'}}")
        for ask in (
            "GenServer.call(d, {:add, 1})",
            ":gen_server.call(d, {:add, 1})",
            ":gen_statem.call(d, {:add, 1})",
            ":gen_statem.call(d, {:add, 1}, {:clean_timeout, 1000})",
            ":gen_statem.call(d, {:add, 1}, {:dirty_timeout, 1000})",
            "s = :gen_server.send_request(d, {:add, 1}); elem(:gen_server.wait_response(s, 99), 1)",
            "{:reply, r} = :gen_statem.receive_response(:gen_statem.send_request(d, {:add, 1})); r",
            f"{{[{{_, r}}], []}} = GenServer.multi_call([:'{node.name}'], :desk, {{:add, 1}}); r",
        ):
            assert await beam.evaluate(f"GenServer.cast(d, {{:set, 41}}); {ask}") == "42", ask
        assert await beam.evaluate(
            ":gen_statem.cast(d, {:set, 5}); GenServer.call(d, {:add, 0})"
        ) == ("5")
        assert await beam.evaluate('GenServer.call(d, {:add, "1"})') == (
            "{:error, {:bad_request, \"amount of {:add, amount} is an integer, not b'1'\"}}"
        )
        # Compared there: releases differ in the order in which they show a map.
        moved = "GenServer.call(d, {:move, %{x: 1}}) |> elem(1) === %{x: 2, y: 0.0}"
        assert await beam.evaluate(moved) == "true"
