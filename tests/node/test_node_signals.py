"""What the node hands its carrier, and how it takes what the carrier hands it; the carrier is a
list.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from router_support import YOU
from services import Counter
from trio.testing import wait_all_tasks_blocked

from bridge.dist.cookie import Cookie
from bridge.dist.flags import ALTACT_SIG, EXIT_PAYLOAD, OFFERED
from bridge.dist.handshake_events import Identity
from bridge.etf import Atom, Pid, Record, Reference, decode_bare, encode_bare
from bridge.node import Node
from bridge.node.cluster.peers import Connection
from bridge.node.signals.gen import alias_tag

REF = Reference(YOU.node, YOU.creation, (1, 2, 3))
TAG = alias_tag(REF)


class ListCarrier:
    """What was sent, decoded; what was dropped."""

    def __init__(self) -> None:
        self.sent: list[tuple[Any, ...]] = []
        self.dropped: list[tuple[int, str]] = []
        self.full = False

    def adopt(self, sock: socket.socket, **_: Any) -> int:
        raise AssertionError("nobody connects here")

    def send(self, conn: int, control: bytes, message: bytes | None = None) -> None:
        if self.full:
            raise OSError(errno.EAGAIN, "full")
        self.sent.append((decode_bare(control)[0], *(decode_bare(message)[:1] if message else ())))

    async def wait_writable(self, conn: int) -> None:
        pass

    def drop(self, conn: int, reason: str) -> None:
        self.dropped.append((conn, reason))


@asynccontextmanager
async def connected_node(flags: int = OFFERED) -> AsyncIterator[tuple[Node, ListCarrier]]:
    """A node with one connection, id 1, to the node of YOU."""
    carrier = ListCarrier()
    async with trio.open_nursery() as nursery:
        identity = Identity("us@h", 7)
        node = Node(identity, Cookie("cookie"), carrier, nursery=nursery)
        node.connections.peers.up(Connection(1, YOU.node.name, flags, YOU.creation))
        yield node, carrier
        nursery.cancel_scope.cancel()


def signal(node: Node, control: Any, *payload: Any) -> None:
    node.handle_signal(1, encode_bare(control), encode_bare(payload[0]) if payload else None)


@pytest.mark.parametrize(
    ("flags", "control"),
    [
        (OFFERED, (37, 4, "us", REF)),
        (OFFERED & ~ALTACT_SIG, (33, "us", REF)),
    ],
)
async def test_an_answer_leaves_in_the_form_that_was_negotiated(flags: int, control: Any) -> None:
    async with connected_node(flags) as (node, carrier):
        ping = (Atom("$gen_call"), (YOU, TAG), (Atom("is_auth"), YOU.node))
        signal(node, (6, YOU, Atom(""), Atom("net_kernel")), ping)
        net_kernel = node.whereis("net_kernel")
        expected = tuple(net_kernel if part == "us" else part for part in control)
        assert carrier.sent == [(expected, (TAG, Atom("yes")))]


@pytest.mark.parametrize(
    ("tag", "alias"),
    [
        (TAG, True),
        ([TAG, REF], True),
        (REF, False),
        ((REF, Atom("us@h")), False),
        (Atom("anything"), False),
    ],
)
async def test_where_an_answer_goes_is_decided_by_its_tag(tag: Any, alias: bool) -> None:
    async with connected_node() as (node, carrier):
        ping = (Atom("$gen_call"), (YOU, tag), (Atom("is_auth"), YOU.node))
        signal(node, (22, YOU, node.whereis("net_kernel")), ping)
        [(control, answer)] = carrier.sent
        assert answer == (tag, Atom("yes"))
        assert (control[0], control[-1]) == ((37, REF) if alias else (22, YOU))


@pytest.mark.parametrize("flags", [OFFERED, OFFERED & ~EXIT_PAYLOAD])
async def test_a_reason_travels_as_the_peer_can_take_it(flags: int) -> None:
    async with connected_node(flags) as (node, carrier):
        signal(node, (19, YOU, Atom("nobody"), REF))
        if flags & EXIT_PAYLOAD:
            assert carrier.sent == [((28, Atom("nobody"), YOU, REF), Atom("noproc"))]
        else:
            assert carrier.sent == [((21, Atom("nobody"), YOU, REF, Atom("noproc")),)]


async def test_signals_that_a_beam_closes_on_are_not_sent_to_its_earlier_life() -> None:
    old = Pid(YOU.node, YOU.id, YOU.serial, YOU.creation - 1)
    async with connected_node() as (node, carrier):
        caller = node.caller()
        node.router.link(caller, old)
        node.router.unlink(caller, old)
        node.router.link(caller, old)
        node.router.terminate(caller, Atom("bad"))
        assert [control[0] for control, *_ in carrier.sent] == [1, 1]


async def test_strange_tags_and_requests_hurt_nobody() -> None:
    record = Record(Atom("m"), Atom("r"), 0, (), ())

    def as_sent_by_otp_29(term: Any) -> bytes:
        return encode_bare(term, record_ok=True)

    async with connected_node() as (node, carrier):
        await node.start(Counter(), name="counter")
        for name in ("net_kernel", "counter"):
            control = encode_bare((6, YOU, Atom(""), Atom(name)))
            for message in (
                (Atom("$gen_call"), (YOU, record), (Atom("is_auth"), 1)),
                (Atom("$gen_call"), (YOU, record), (Atom("echo"), 1)),
                (Atom("system"), (YOU, record), Atom("get_state")),
                (Atom("system"), (YOU, TAG), record),
            ):
                if name == "counter" and message[2] == (Atom("is_auth"), 1):
                    continue  # a request that a Counter does not know ends it, as it should
                node.handle_signal(1, control, as_sent_by_otp_29(message))
        await wait_all_tasks_blocked()
        unknown = (TAG, (Atom("error"), (Atom("unknown_system_msg"), Atom("not_sendable"))))
        assert [message for _, message in carrier.sent] == [unknown, unknown]
        assert node.registered() == ["counter", "net_kernel", "rex"]
        assert carrier.dropped == []


async def test_a_signal_of_a_connection_that_we_dropped_is_nobodys() -> None:
    async with connected_node() as (node, carrier):
        assert node.disconnect(YOU.node.name)
        signal(node, (19, YOU, Atom("nobody"), REF))
        node.handle_connection_lost(1, "closed_by_peer")
        assert carrier.sent == []
        assert carrier.dropped == [(1, "disconnected by this node")]


async def test_bytes_that_are_no_control_message_cost_the_connection() -> None:
    for control in (b"", b"\xff", encode_bare((1, YOU, YOU)) + b"x", encode_bare((1, YOU))[:-1]):
        async with connected_node() as (node, carrier):
            node.handle_signal(1, control, None)
            assert len(carrier.dropped) == 1
            assert node.connected() == []


async def test_a_carrier_that_takes_no_more_costs_the_connection() -> None:
    async with connected_node() as (node, carrier):
        server = Counter()
        pid = await node.start(server, name="counter")
        await server.monitor(YOU)
        await server.link(YOU)
        for number in range(3):
            signal(node, (19, YOU, pid, Reference(YOU.node, YOU.creation, (number,))))
        carrier.full = True
        node.exit(pid, Atom("kill"))
        assert node.connected() == []
        assert len(carrier.dropped) == 1
        assert node.statistics().monitors_held == node.statistics().monitors_on_us == 0


@pytest.mark.parametrize(("words", "reply"), [((1, 2, 3), 0), ((1, 2, 3, 4, 5), (Atom("ok"), 0))])
async def test_get_state_is_answered_as_the_callers_release_wants_it(
    words: Any, reply: Any
) -> None:
    async with connected_node() as (node, carrier):
        await node.start(Counter(), name="counter")
        tag = alias_tag(Reference(YOU.node, YOU.creation, words))
        signal(
            node,
            (6, YOU, Atom(""), Atom("counter")),
            (Atom("system"), (YOU, tag), Atom("get_state")),
        )
        await wait_all_tasks_blocked()
        assert [message for _, message in carrier.sent] == [(tag, reply)]


async def test_a_relay_service_answers_sys_links_and_exits_here() -> None:
    from bridge.node import RelayServiceHooks

    told: list[Any] = []
    hooks = RelayServiceHooks(
        get_state=lambda: {Atom("jobs"): 3},
        suspend=lambda: told.append("suspend"),
        resume=lambda: told.append("resume"),
        stopped=lambda reason: told.append(reason),
    )
    async with connected_node() as (node, carrier):
        pid = node.add_relay_service(["dispatcher", "Elixir.D"], module="Elixir.D", hooks=hooks)
        for request in ("get_state", "suspend", "resume"):
            message = (Atom("system"), (YOU, TAG), Atom(request))
            signal(node, (6, YOU, Atom(""), Atom("Elixir.D")), message)
        assert [message[1] for _, message in carrier.sent] == [
            {Atom("jobs"): 3},
            Atom("ok"),
            Atom("ok"),
        ]
        assert told == ["suspend", "resume"]
        carrier.sent.clear()
        signal(node, (1, YOU, pid))
        signal(node, (26, YOU, pid), Atom("normal"))  # it traps exits
        assert told == ["suspend", "resume"]
        signal(node, (26, YOU, pid), Atom("kill"))
        assert carrier.sent == [((24, pid, YOU), Atom("killed"))]
        assert told[2:] == [Atom("killed")]
        assert node.whereis("dispatcher") is None
