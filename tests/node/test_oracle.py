"""Nobody without the cookie gets our node to answer a challenge of our own making (9)."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from plain_carrier import plain_carrier
from structlog.testing import capture_logs

from bridge.dist.cookie import Cookie
from bridge.dist.flags import OFFERED
from bridge.dist.handshake_messages import (
    Ack,
    Challenge,
    MessageReader,
    Name,
    Reply,
    StatusText,
    frame,
    parse_challenge,
    parse_reply,
)
from bridge.node import NoConnection, Node, open_node
from bridge.testing import COOKIE, HOST

SOON_S = 5.0


class Wire:
    """Handshake messages over a stream, as an attacker would write them."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._reader = MessageReader()

    async def send(self, *bodies: bytes) -> None:
        await self.stream.send_all(b"".join(map(frame, bodies)))

    async def receive(self) -> bytes:
        """The next body; b"" when we were closed."""
        while (body := self._reader.next_body()) is None:
            data = bytes(await self.stream.receive_some())
            if not data:
                return b""
            self._reader.receive_data(data)
        return body


@asynccontextmanager
async def victim(ports: dict[str, int]) -> AsyncIterator[tuple[Node, int]]:
    """Our node and its port; it finds the attacker under each of these names."""
    async with open_node(
        f"victim@{HOST}",
        cookie=COOKIE,
        register=False,
        listen=False,
        peers={f"{alive}@{HOST}": port for alive, port in ports.items()},
        carrier=plain_carrier,
    ) as node:
        listeners = await trio.open_tcp_listeners(0, host=HOST)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.serve, listeners)
            yield node, listeners[0].socket.getsockname()[1]
            nursery.cancel_scope.cancel()


async def dialled_as(listener: trio.SocketListener, alive: str, challenge: int) -> Wire:
    """Be dialled by the victim and send it `challenge`."""
    wire = Wire(await listener.accept())
    await wire.receive()  # its name
    said = Challenge(OFFERED, challenge, 1, f"{alive}@{HOST}")
    await wire.send(StatusText("ok").encode(), said.encode())
    return wire


@pytest.fixture
async def listener() -> AsyncIterator[trio.SocketListener]:
    [found] = await trio.open_tcp_listeners(0, host=HOST)
    async with found:
        yield found


async def test_our_own_challenge_as_acceptor_does_not_come_back_to_us(
    listener: trio.SocketListener,
) -> None:
    port = listener.socket.getsockname()[1]
    async with (
        victim({"evil": port}) as (node, node_port),
        await trio.open_tcp_stream(HOST, node_port) as stream,
    ):
        door = Wire(stream)
        await door.send(Name(OFFERED, 1, f"mallory@{HOST}").encode())
        await door.receive()  # its status
        wanted = parse_challenge(await door.receive()).challenge
        with capture_logs() as logs, trio.fail_after(SOON_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_fails, node, "evil")
                oracle = await dialled_as(listener, "evil", wanted)
                assert await oracle.receive() == b""
                await oracle.stream.aclose()
        assert ["one of ours" in line["rule"] for line in logs] == [True]


async def test_our_own_challenge_as_initiator_does_not_come_back_to_us_either(
    listener: trio.SocketListener,
) -> None:
    """Else the first dial's peer would be taken for one of the cluster by help of the second."""
    port = listener.socket.getsockname()[1]
    async with victim({"evil": port, "twin": port}) as (node, _), trio.open_nursery() as nursery:
        nursery.start_soon(_fails, node, "evil")
        with trio.fail_after(SOON_S):
            first = await dialled_as(listener, "evil", secrets.randbits(32))
            wanted = parse_reply(await first.receive()).challenge
            nursery.start_soon(_fails, node, "twin")
            second = await dialled_as(listener, "twin", wanted)
            answer = await second.receive()
            if answer:  # what must not be: with this the first is in
                await first.send(Ack(parse_reply(answer).digest).encode())
        assert answer == b""
        assert node.connected() == []
        for wire in (first, second):
            await wire.stream.aclose()


async def test_who_claims_our_own_name_is_refused_before_the_challenge(
    listener: trio.SocketListener,
) -> None:
    async with victim({}) as (node, port), await trio.open_tcp_stream(HOST, port) as stream:
        door = Wire(stream)
        await door.send(Name(OFFERED, 1, node.name).encode())
        assert await door.receive() == b"snot_allowed"
        assert await door.receive() == b""


async def test_a_reflected_reply_proves_nothing(listener: trio.SocketListener) -> None:
    """Our own challenge sent back as the peer's is answered only after the peer's own proof."""
    async with victim({}) as (node, port), await trio.open_tcp_stream(HOST, port) as stream:
        door = Wire(stream)
        await door.send(Name(OFFERED, 1, f"mallory@{HOST}").encode())
        await door.receive()
        challenge = parse_challenge(await door.receive()).challenge
        await door.send(Reply(challenge, Cookie("guessed").digest(challenge)).encode())
        assert await door.receive() == b""
        assert node.connected() == []


async def _fails(node: Node, alive: str) -> None:
    with pytest.raises(NoConnection):
        await node.connect(f"{alive}@{HOST}")
