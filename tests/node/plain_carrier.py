"""A test double of the relay: the Carrier protocol in plain Python, one reader and one writer per
socket.

It frames (dist-protocol.md, 3), answers ticks, and puts fragments together. It has none of the
relay's bounds: what is tested over it is the node.
"""

from __future__ import annotations

import math
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

from bridge.dist.handshake_events import Identity
from bridge.etf import decode_bare
from bridge.node import EventCarrier

TICK_S = 15.0


@dataclass(frozen=True, slots=True)
class Signal:
    conn: int
    control: bytes
    message: bytes | None


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    conn: int
    reason: str


@dataclass(eq=False)
class _Conn:
    stream: trio.SocketStream
    outgoing: trio.MemorySendChannel[bytes]
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    pieces: dict[int, list[bytes]] = field(default_factory=dict)


class PlainCarrier:
    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._conns: dict[int, _Conn] = {}
        self._last = 0
        self._events_in, self._events = trio.open_memory_channel[Signal | ConnectionLost](math.inf)

    def adopt(
        self,
        sock: socket.socket,
        *,
        peer: str,
        flags: int,
        creation: int,
        leftover: bytes = b"",
        tls: Any = None,
    ) -> int:
        assert tls is None, "this carrier is plain"
        self._last += 1
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        outgoing, queue = trio.open_memory_channel[bytes](math.inf)
        self._conns[self._last] = conn = _Conn(stream, outgoing)
        self._nursery.start_soon(self._run, self._last, conn, queue, leftover)
        return self._last

    def send(self, conn: int, control: bytes, message: bytes | None = None) -> None:
        body = b"\x83D\x00" + control + (message or b"")
        self._conns[conn].outgoing.send_nowait(struct.pack(">I", len(body)) + body)

    async def wait_writable(self, conn: int) -> None:
        pass  # it has no bounds

    def drop(self, conn: int, reason: str) -> None:
        if found := self._conns.pop(conn, None):
            found.scope.cancel()

    async def next_events(self) -> list[Signal | ConnectionLost]:
        return [await self._events.receive()]

    async def _run(
        self, id_: int, conn: _Conn, queue: trio.MemoryReceiveChannel[bytes], leftover: bytes
    ) -> None:
        reason = "dropped"
        with conn.scope:
            try:
                async with conn.stream, trio.open_nursery() as nursery:
                    nursery.start_soon(self._write, conn, queue)
                    await self._read(id_, conn, bytearray(leftover))
                    nursery.cancel_scope.cancel()
                reason = "closed_by_peer"
            except* trio.BrokenResourceError:
                reason = "reset_by_peer"
        if self._conns.pop(id_, None):
            self._events_in.send_nowait(ConnectionLost(id_, reason))

    async def _write(self, conn: _Conn, queue: trio.MemoryReceiveChannel[bytes]) -> None:
        while True:
            frame = b"\0\0\0\0"
            with trio.move_on_after(TICK_S):
                frame = await queue.receive()
            await conn.stream.send_all(frame)

    async def _read(self, id_: int, conn: _Conn, buffer: bytearray) -> None:
        while True:
            while len(buffer) >= 4:
                (length,) = struct.unpack_from(">I", buffer)
                if len(buffer) < 4 + length:
                    break
                body = bytes(buffer[4 : 4 + length])
                del buffer[: 4 + length]
                if body:
                    self._frame(id_, conn, body)
                else:
                    conn.outgoing.send_nowait(b"\0\0\0\0")
            data = await conn.stream.receive_some()
            if not data:
                return
            buffer += data

    def _frame(self, id_: int, conn: _Conn, body: bytes) -> None:
        match body[1]:
            case 68:
                assert body[2] == 0, "no atom cache was negotiated"
                data = body[3:]
            case 69 | 70 as tag:
                sequence, left = struct.unpack_from(">QQ", body, 2)
                pieces = conn.pieces.setdefault(sequence, [])
                pieces.append(body[19:] if tag == 69 else body[18:])
                if left > 1:
                    return
                data = b"".join(conn.pieces.pop(sequence))
            case tag:
                raise AssertionError(f"frame form {tag}")
        _, end = decode_bare(data)
        self._events_in.send_nowait(Signal(id_, data[:end], data[end:] or None))


@asynccontextmanager
async def plain_carrier(identity: Identity) -> AsyncIterator[EventCarrier]:
    async with trio.open_nursery() as nursery:
        yield PlainCarrier(nursery)
        nursery.cancel_scope.cancel()
