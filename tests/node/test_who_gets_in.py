"""Peers that are refused, replaced or bounded: what they see, and the one line that the log has of
each.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from node_support import OpenNode, StartBeam, needs_erlang
from services import Counter
from structlog.testing import capture_logs

from bridge.dist.connect import dial_peer
from bridge.dist.cookie import Cookie
from bridge.dist.flags import OFFERED
from bridge.dist.handshake import Initiator
from bridge.dist.handshake_events import Identity
from bridge.etf import Atom, Pid, Reference, decode_bare, encode_bare
from bridge.node import EpmdClient, NameTaken, NoConnection, Node, Policy
from bridge.node.cluster.connections import REFUSAL_LINES_OF_A_RULE
from bridge.testing import COOKIE, HOST, Beam, EpmdDaemon

pytestmark = [needs_erlang, pytest.mark.beam]


def refusals(logs: list[Any]) -> list[Any]:
    return [entry for entry in logs if entry["log_level"] != "info"]


class RawPeer:
    """A peer made of the handshake alone: it sends what a test wants, well-formed or not."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.buffer = b""

    async def send(self, control: Any, *payload: Any) -> None:
        await self.send_frame(
            b"\x83D\x00" + encode_bare(control) + b"".join(map(encode_bare, payload))
        )

    async def send_frame(self, body: bytes) -> None:
        await self.stream.send_all(struct.pack(">I", len(body)) + body)

    async def receive(self) -> tuple[Any, bytes]:
        """The next control message and the bytes of its payload."""
        while len(self.buffer) < 4 or len(self.buffer) < 4 + int.from_bytes(self.buffer[:4], "big"):
            data = await self.stream.receive_some()
            if not data:
                raise EOFError
            self.buffer += data
        length = int.from_bytes(self.buffer[:4], "big")
        body, self.buffer = self.buffer[4 : 4 + length], self.buffer[4 + length :]
        if not body:
            return await self.receive()
        control, end = decode_bare(body, 3)
        return control, body[end:]

    async def wait_closed(self) -> None:
        try:
            while True:
                await self.receive()
        except (EOFError, trio.BrokenResourceError):
            pass


@asynccontextmanager
async def raw_peer(
    node: Node, epmd: EpmdDaemon, *, name: str = f"raw@{HOST}", creation: int = 77
) -> AsyncIterator[RawPeer]:
    port = await EpmdClient(port=epmd.port).lookup(node.name.partition("@")[0], HOST)
    assert port is not None
    async with await trio.open_tcp_stream(HOST, port) as stream:
        identity = Identity(name, creation, OFFERED)
        core = Initiator(identity, Cookie(COOKIE), node.name, challenge=1)
        await dial_peer(stream, core, replace=lambda: True)
        yield RawPeer(stream)


async def test_a_wrong_cookie_leaves_one_line(
    start_beam: StartBeam, open_test_node: OpenNode
) -> None:
    beam = await start_beam(cookie="another-cookie").ready()
    async with open_test_node() as node:
        with capture_logs() as logs:
            assert await beam.evaluate(f"Node.connect(:'{node.name}')") == "false"
        [line] = logs
        assert line == {
            "event": "peer refused",
            "log_level": "warning",
            "peer": beam.name,
            "address": HOST,
            "rule": "wrong cookie: the digest does not answer our challenge",
        }
        assert node.connected() == []


async def test_a_wrong_cookie_pings_to_pang_and_others_go_on(
    beam: Beam, start_beam: StartBeam, open_test_node: OpenNode
) -> None:
    stranger = await start_beam(cookie="another-cookie").ready()
    async with open_test_node(services={"counter": Counter()}) as node:
        await beam.evaluate(f"c = {{:counter, :'{node.name}'}}; GenServer.call(c, {{:add, 1}})")
        assert await stranger.evaluate(f"Node.ping(:'{node.name}')") == ":pang"
        assert await beam.evaluate("GenServer.call(c, {:add, 1})") == "2"


async def test_the_allow_list_is_asked_with_name_and_address(
    beam: Beam, open_test_node: OpenNode
) -> None:
    asked: list[tuple[str, str]] = []

    def allow(name: str, address: str) -> bool:
        asked.append((name, address))
        return False

    async with open_test_node(policy=Policy(allow=allow)) as node:
        with capture_logs() as logs:
            assert await beam.evaluate(f"Node.connect(:'{node.name}')") == "false"
        assert asked == [(beam.name, HOST)]
        [line] = logs
        assert line["rule"] == "the allow list does not name it"


async def test_a_name_that_a_beam_has_is_not_taken_from_it(
    beam: Beam, open_test_node: OpenNode
) -> None:
    with pytest.raises(NameTaken, match=r"already taken.*choose another name"):
        async with open_test_node(beam.name.partition("@")[0]):
            pass


async def test_unauthenticated_peers_are_bounded(
    beam: Beam, epmd: EpmdDaemon, open_test_node: OpenNode
) -> None:
    async with open_test_node(policy=Policy(unauthenticated_max=3)) as node:
        port = await EpmdClient(port=epmd.port).lookup(node.name.partition("@")[0], HOST)
        assert port is not None
        silent = [await trio.open_tcp_stream(HOST, port) for _ in range(3)]
        while node.statistics().unauthenticated < 3:
            await trio.lowlevel.checkpoint()
        with capture_logs() as logs:
            async with await trio.open_tcp_stream(HOST, port) as one_too_many:
                assert await one_too_many.receive_some() == b""
        [line] = logs
        assert line["rule"] == "at most 3 connections may be unauthenticated"
        for stream in silent:
            await stream.aclose()
        while node.statistics().unauthenticated:
            await trio.lowlevel.checkpoint()
        assert await beam.evaluate(f"Node.ping(:'{node.name}')") == ":pong"


async def test_one_address_does_not_take_the_whole_door(
    epmd: EpmdDaemon, open_test_node: OpenNode
) -> None:
    policy = Policy(unauthenticated_per_address_max=2)
    async with open_test_node(policy=policy, listen_host="0.0.0.0") as node:
        port = await EpmdClient(port=epmd.port).lookup(node.name.partition("@")[0], HOST)
        assert port is not None
        silent = [await trio.open_tcp_stream(HOST, port) for _ in range(2)]
        while node.statistics().unauthenticated < 2:
            await trio.lowlevel.checkpoint()
        with capture_logs() as logs:
            async with await trio.open_tcp_stream(HOST, port) as one_too_many:
                assert await one_too_many.receive_some() == b""
        [line] = logs
        assert line["rule"] == "at most 2 connections of one address may be unauthenticated"
        other = await trio.open_tcp_stream(HOST, port, local_address="127.0.0.2")
        while node.statistics().unauthenticated < 3:
            await trio.lowlevel.checkpoint()
        for stream in (*silent, other):
            await stream.aclose()
        while node.statistics().unauthenticated:
            await trio.lowlevel.checkpoint()
        assert not node.connections._unauthenticated


async def test_a_flood_of_strangers_is_not_a_flood_of_log_lines(
    epmd: EpmdDaemon, open_test_node: OpenNode
) -> None:
    async with open_test_node() as node:
        port = await EpmdClient(port=epmd.port).lookup(node.name.partition("@")[0], HOST)
        assert port is not None
        with capture_logs() as logs:
            for _ in range(100):
                async with await trio.open_tcp_stream(HOST, port) as stream:
                    await stream.send_all(b"\xff\xff")  # a length that no handshake has
                    assert await stream.receive_some() == b""
            async with await trio.open_tcp_stream(HOST, port) as stream:
                await stream.send_all(b"\x00\x01n")  # and another rule is told all the same
                assert await stream.receive_some() == b""
        assert len(logs) == REFUSAL_LINES_OF_A_RULE + 1
        assert "OTP 25" in logs[-1]["rule"]


async def test_the_cookie_is_never_logged(
    epmd: EpmdDaemon, beam: Beam, open_test_node: OpenNode, start_beam: StartBeam
) -> None:
    stranger = await start_beam(cookie="another-cookie-of-the-tests").ready()
    with capture_logs() as logs:
        async with open_test_node() as node:
            assert await stranger.evaluate(f"Node.connect(:'{node.name}')") == "false"
            with pytest.raises(NoConnection) as caught:
                await node.connect(stranger.name)
            await node.connect(beam.name)
            assert COOKIE not in repr(vars(node)) + repr(vars(node.connections))
    said = repr(logs) + str(caught.value) + repr(caught.value)
    for secret in (COOKIE, "another-cookie-of-the-tests"):
        assert secret not in said
    assert "wrong cookie" in said


async def test_a_proven_newcomer_replaces_the_old_connection(
    epmd: EpmdDaemon, open_test_node: OpenNode
) -> None:
    async with open_test_node() as node, raw_peer(node, epmd) as old:
        monitor = await node.monitor(("anybody", f"raw@{HOST}"))
        assert (await old.receive())[0][0] == 19
        async with raw_peer(node, epmd, creation=78) as new:
            await old.wait_closed()
            assert (await monitor.wait()).reason == Atom("noconnection")
            pid = Pid(Atom(f"raw@{HOST}"), 1, 0, 78)
            ref = Reference(pid.node, 78, (1, 2, 3))
            await new.send((19, pid, Atom("nobody"), ref))
            control, payload = await new.receive()
            assert control == (28, Atom("nobody"), pid, ref)
            assert decode_bare(payload)[0] == Atom("noproc")


async def test_a_newcomer_without_the_cookie_replaces_nothing(
    epmd: EpmdDaemon, open_test_node: OpenNode
) -> None:
    async with open_test_node() as node, raw_peer(node, epmd) as old:
        port = await EpmdClient(port=epmd.port).lookup(node.name.partition("@")[0], HOST)
        assert port is not None
        async with await trio.open_tcp_stream(HOST, port) as stream:
            identity = Identity(f"raw@{HOST}", 78)
            core = Initiator(identity, Cookie("another"), node.name, challenge=1)
            with pytest.raises(Exception, match="the cookies differ"):
                await dial_peer(stream, core, replace=lambda: True)
        pid = Pid(Atom(f"raw@{HOST}"), 1, 0, 77)
        await old.send((19, pid, Atom("nobody"), Reference(pid.node, 77, (1, 2, 3))))
        assert (await old.receive())[0][0] == 28


@pytest.mark.parametrize(
    ("control", "payload", "rule"),
    [
        ((99, 1), [], "99 is not an operation"),
        ((1, Atom("x"), Atom("y")), [], "sender of operation 1 is a pid"),
        (
            (19, Pid(Atom("third@h"), 1, 0, 1), Atom("x"), Reference(Atom("third@h"), 1, (1,))),
            [],
            "node",
        ),
        (Atom("not_a_tuple"), [], "begins with an operation number"),
        ((1, Atom("x")), [], "operation 1 has 3 elements"),
    ],
)
async def test_a_peer_that_breaks_a_rule_is_cut_with_one_line(
    beam: Beam,
    epmd: EpmdDaemon,
    open_test_node: OpenNode,
    request: pytest.FixtureRequest,
    control: Any,
    payload: list[Any],
    rule: str,
) -> None:
    async with open_test_node(services={"counter": Counter()}) as node:
        await beam.evaluate(f"c = {{:counter, :'{node.name}'}}; GenServer.call(c, {{:add, 1}})")
        with capture_logs() as logs:
            async with raw_peer(node, epmd) as peer:
                await peer.send(control, *payload)
                await peer.wait_closed()
            # The relay closes first, and tells us then.
            while not refusals(logs) or node.connected() != [beam.name]:
                await trio.lowlevel.checkpoint()
            assert await beam.evaluate("GenServer.call(c, {:add, 1})") == "2"
        [line] = refusals(logs)
        assert line["peer"] == f"raw@{HOST}"
        assert line["event"] == "connection lost"
        if not (control == Atom("not_a_tuple") and "relay" in request.node.name):
            assert (
                rule in line["reason"]
            )  # the relay, which sees that one itself, has its own words
        assert node.connected() == [beam.name]


async def test_a_payload_that_is_no_term_counts_only_if_somebody_gets_it(
    epmd: EpmdDaemon, open_test_node: OpenNode
) -> None:
    async with open_test_node(services={"counter": Counter()}) as node:
        with capture_logs() as logs:
            async with raw_peer(node, epmd) as peer:
                pid = Pid(Atom(f"raw@{HOST}"), 1, 0, 77)
                garbage = b"\xff\xff\xff"
                nobody = encode_bare((6, pid, Atom(""), Atom("nobody")))
                await peer.send_frame(b"\x83D\x00" + nobody + garbage)
                await peer.send((19, pid, Atom("nobody"), Reference(pid.node, 77, (1, 2, 3))))
                assert (await peer.receive())[0][0] == 28
                somebody = encode_bare((6, pid, Atom(""), Atom("counter")))
                await peer.send_frame(b"\x83D\x00" + somebody + garbage)
                await peer.wait_closed()
            while not refusals(logs):  # the relay closes first, and tells us then
                await trio.lowlevel.checkpoint()
        assert len(refusals(logs)) == 1
        assert node.whereis("counter") is not None
