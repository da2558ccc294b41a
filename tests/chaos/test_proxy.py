"""The proxy on real sockets: what the two ends see of its shape."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from chaos_support import until

from bridge.chaos import proxy as proxy_module
from bridge.chaos.lane import HELD_BYTES_MAX, Shape
from bridge.chaos.proxy import Proxy, open_proxy
from bridge.dist.nursery import block_nursery

HOST = "127.0.0.1"


@asynccontextmanager
async def echo(shape: Shape | None = None) -> AsyncIterator[Proxy]:
    """A proxy before a server that sends back what comes, and ends when its peer ends."""

    async def serve(stream: trio.SocketStream) -> None:
        try:
            async for data in stream:
                await stream.send_all(data)
        except trio.BrokenResourceError:
            pass

    listeners = await trio.open_tcp_listeners(0, host=HOST)
    port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        async with open_proxy(HOST, port, shape, seed=7) as proxy:
            yield proxy
        nursery.cancel_scope.cancel()


async def dial(proxy: Proxy) -> trio.SocketStream:
    return await trio.open_tcp_stream(HOST, proxy.port)


async def exchange(stream: trio.SocketStream, data: bytes) -> bytes:
    """Send all, say that it is the end, and read to the end."""

    async def send() -> None:
        await stream.send_all(data)
        await stream.send_eof()

    async with block_nursery() as nursery:
        nursery.start_soon(send)
        return await receive_to_the_end(stream)


async def receive_to_the_end(stream: trio.SocketStream) -> bytes:
    return b"".join([bytes(part) async for part in stream])


DATA = b"".join(hashlib.sha256(bytes([n])).digest() for n in range(200))


@pytest.mark.parametrize(
    "shape",
    [
        Shape(),
        Shape(delay_ms=5, jitter_ms=5),
        Shape(piece_bytes=9),
        Shape(bytes_per_s=200_000),
        Shape(delay_ms=1, jitter_ms=2, bytes_per_s=500_000, piece_bytes=100),
    ],
    ids=str,
)
async def test_what_goes_comes_back_whole(shape: Shape) -> None:
    async with echo(shape) as proxy, await dial(proxy) as stream:
        assert await exchange(stream, DATA) == DATA
        await until(lambda: proxy.statistics.open == 0)
        seen = proxy.statistics
        assert (seen.accepted, seen.cut, seen.passed, seen.held) == (1, 0, 2 * len(DATA), 0)


async def test_a_delay_is_met_on_both_ways() -> None:
    async with echo(Shape(delay_ms=60)) as proxy, await dial(proxy) as stream:
        began = trio.current_time()
        await stream.send_all(b"a")
        assert await stream.receive_some() == b"a"
        assert trio.current_time() - began >= 0.12


async def test_a_rate_is_never_passed() -> None:
    async with echo(Shape(bytes_per_s=10_000)) as proxy, await dial(proxy) as stream:
        began = trio.current_time()
        assert len(await exchange(stream, bytes(2_000))) == 2_000
        assert trio.current_time() - began >= 0.15


async def test_pieces_arrive_as_pieces() -> None:
    async with echo() as proxy, await dial(proxy) as stream:
        await stream.send_all(b"x")
        await stream.receive_some()
        proxy.shape = Shape(piece_bytes=3, delay_ms=1)
        sizes: list[int] = []
        await stream.send_all(bytes(200))
        while sum(sizes) < 200:
            sizes.append(len(await stream.receive_some()))
        assert len(sizes) > 1


async def test_a_cut_is_a_reset_for_both_and_others_are_taken_again() -> None:
    async with echo() as proxy:
        async with await dial(proxy) as stream:
            await stream.send_all(b"a")
            await stream.receive_some()
            assert proxy.cut() == 1
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
        await until(lambda: proxy.statistics.open == 0)
        async with await dial(proxy) as stream:
            assert await exchange(stream, b"again") == b"again"
        assert proxy.statistics.cut == 1


async def test_a_cut_after_some_bytes_lets_those_through() -> None:
    async with echo(Shape(cut_after_bytes=10)) as proxy, await dial(proxy) as stream:
        await stream.send_all(bytes(11))
        with pytest.raises(trio.BrokenResourceError):
            await receive_to_the_end(stream)
        await until(lambda: proxy.statistics.open == 0)
        assert proxy.statistics.passed <= 20


async def test_still_holds_everything_and_then_lets_it_go() -> None:
    async with echo() as proxy, await dial(proxy) as stream:
        proxy.shape = Shape(still=True)
        await stream.send_all(b"held")
        await until(lambda: proxy.statistics.held == 4)
        with trio.move_on_after(0.05) as quiet:
            await stream.receive_some()
        assert quiet.cancelled_caught
        proxy.shape = Shape()
        assert await stream.receive_some() == b"held"


async def test_a_sender_is_held_back_while_nothing_goes() -> None:
    async with echo(Shape(still=True)) as proxy, await dial(proxy) as stream:
        sent, size = False, 40 << 20  # more than the kernel keeps for two sockets

        async def send() -> None:
            nonlocal sent
            await stream.send_all(bytes(size))
            sent = True
            await stream.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await until(lambda: proxy.statistics.held >= HELD_BYTES_MAX)
            with trio.move_on_after(0.2):
                await until(lambda: sent)
            assert not sent
            assert proxy.statistics.held <= HELD_BYTES_MAX + 65_536
            proxy.shape = Shape()
            assert len(await receive_to_the_end(stream)) == size


async def test_a_target_that_is_not_there_is_a_connection_that_ends() -> None:
    listeners = await trio.open_tcp_listeners(0, host=HOST)
    port = listeners[0].socket.getsockname()[1]
    await listeners[0].aclose()
    async with open_proxy(HOST, port) as proxy, await dial(proxy) as stream:
        assert await stream.receive_some() == b""
        assert proxy.statistics.refused == 1


async def test_too_many_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy_module, "CONNECTIONS_MAX", 1)
    async with echo() as proxy, await dial(proxy) as first:
        await first.send_all(b"a")
        await first.receive_some()
        async with await dial(proxy) as second:
            assert await second.receive_some() == b""
        assert await exchange(first, b"b") == b"b"
