"""A TCP proxy whose connections are slow, throttled, split, still or cut, as its shape says now.

It stands between two nodes where the kernel has no netem: one of them is told the proxy's port
instead of the other's (docs/chaos.md). The bytes are not looked at, so TLS passes as well.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random

import trio

from bridge.chaos.lane import Cut, End, Lane, Send, Shape, Wait
from bridge.dist.nursery import block_nursery
from bridge.log import Log

log = Log("ringbridge.chaos")

CONNECTIONS_MAX = 256
_RECEIVE_BYTES = 65_536
# linger on, for no time: close() sends RST and drops what is not sent (socket(7), SO_LINGER).
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class ProxyStatistics:
    """Counts since the proxy began; `held` is bytes that wait in it now."""

    open: int
    accepted: int
    refused: int
    cut: int
    passed: int
    held: int


class Proxy:
    """Made by `open_proxy`. Its shape may change at any time; held bytes keep the delay with which
    they came.
    """

    def __init__(self, host: str, port: int, shape: Shape, random: Random) -> None:
        self._target = (host, port)
        self._random = random
        self._shape = shape
        self._changed = trio.Event()
        self._open: set[_Connection] = set()
        self._accepted = self._refused = self._cut = self._passed = 0
        self.port = 0  # where it listens

    @property
    def shape(self) -> Shape:
        return self._shape

    @shape.setter
    def shape(self, shape: Shape) -> None:
        self._shape = shape
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    @property
    def statistics(self) -> ProxyStatistics:
        lanes = [lane for each in self._open for lane in each.lanes]
        return ProxyStatistics(
            open=len(self._open),
            accepted=self._accepted,
            refused=self._refused,
            cut=self._cut,
            passed=self._passed + sum(lane.passed for lane in lanes),
            held=sum(lane.held for lane in lanes),
        )

    def cut(self) -> int:
        """Reset all connections that are open; how many. New ones are taken as before."""
        for each in self._open:
            each.cut()
        return len(self._open)

    async def _serve(self, near: trio.SocketStream) -> None:
        async with near:
            if len(self._open) >= CONNECTIONS_MAX:
                self._refused += 1
                return
            try:
                far = await trio.open_tcp_stream(*self._target)
            except OSError as error:
                self._refused += 1
                log.warning("the proxy does not reach its target", why=str(error))
                return
            async with far:
                await self._join(near, far)

    async def _join(self, near: trio.SocketStream, far: trio.SocketStream) -> None:
        connection = _Connection(self, near, far)
        self._open.add(connection)
        self._accepted += 1
        try:
            await connection.run()
        finally:
            self._open.discard(connection)
            self._passed += sum(lane.passed for lane in connection.lanes)
            self._cut += connection.was_cut

    async def wait_changed(self, more: trio.Event, until: float) -> None:
        """Until `more` is set, the shape is another, or the time has come."""
        changed = self._changed
        with trio.move_on_at(until):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_wait_either, more, nursery.cancel_scope)
                nursery.start_soon(_wait_either, changed, nursery.cancel_scope)

    def new_lane(self) -> Lane:
        return Lane(Random(self._random.getrandbits(64)))


class _Connection:
    """Two sockets and a lane for each direction."""

    def __init__(self, proxy: Proxy, near: trio.SocketStream, far: trio.SocketStream) -> None:
        self.lanes = (proxy.new_lane(), proxy.new_lane())
        self.was_cut = False
        self._proxy = proxy
        self._streams = (near, far)
        self._scope = trio.CancelScope()

    def cut(self) -> None:
        self.was_cut = True
        for stream in self._streams:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._scope.cancel()

    async def run(self) -> None:
        """Until both have ended, or one is broken: then both are."""
        near, far = self._streams
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._direction, near, far, self.lanes[0])
                nursery.start_soon(self._direction, far, near, self.lanes[1])

    async def _direction(
        self, source: trio.SocketStream, target: trio.SocketStream, lane: Lane
    ) -> None:
        more, room = _Bell(), _Bell()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read, source, lane, more, room)
                nursery.start_soon(self._write, target, lane, more, room)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            # A reset goes on as a reset, as it would without us.
            if not self.was_cut:
                self.cut()
                self.was_cut = False

    async def _read(self, source: trio.SocketStream, lane: Lane, more: _Bell, room: _Bell) -> None:
        while True:
            while not lane.has_room:
                await room.wait()
            data = bytes(await source.receive_some(_RECEIVE_BYTES))
            lane.receive_data(data, trio.current_time(), self._proxy.shape)
            more.ring()
            if not data:
                return

    async def _write(self, target: trio.SocketStream, lane: Lane, more: _Bell, room: _Bell) -> None:
        while True:
            heard = more.event
            match lane.next_step(trio.current_time(), self._proxy.shape):
                case Send(data):
                    room.ring()
                    await target.send_all(data)
                case Wait(until):
                    await self._proxy.wait_changed(heard, until)
                case Cut():
                    self.cut()
                    await trio.lowlevel.checkpoint()
                case End():
                    await target.send_eof()
                    return


class _Bell:
    """Wakes who waits now."""

    def __init__(self) -> None:
        self.event = trio.Event()

    def ring(self) -> None:
        rung, self.event = self.event, trio.Event()
        rung.set()

    async def wait(self) -> None:
        await self.event.wait()


async def _wait_either(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


@asynccontextmanager
async def open_proxy(
    host: str,
    port: int,
    shape: Shape | None = None,
    *,
    listen: str = "127.0.0.1",
    listen_port: int = 0,
    seed: int = 0,
) -> AsyncIterator[Proxy]:
    """A proxy to host and port while the block runs; `proxy.port` is where it listens.

    The target is dialled anew for each connection. Jitter and lengths of pieces are drawn from
    `seed`. Raises OSError when it cannot listen. With the block all its connections are reset.
    """
    proxy = Proxy(host, port, shape or Shape(), Random(seed))
    listeners = await trio.open_tcp_listeners(listen_port, host=listen)
    proxy.port = listeners[0].socket.getsockname()[1]
    async with block_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, proxy._serve, listeners)
        try:
            yield proxy
        finally:
            proxy.cut()


__all__ = ["CONNECTIONS_MAX", "Proxy", "ProxyStatistics", "open_proxy"]
