"""The bridge's end of a worker's channel (docs/channel.md): packets in and out, each checked."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import time
from dataclasses import dataclass
from typing import Any

from bridge.fabric import layout
from workers.conformance.jobs import Broke
from workers.conformance.memory import memfd, seal
from workers.conformance.peer import Peer

FROM_WORKER = {
    layout.PACKET_SEND,
    layout.PACKET_CALL,
    layout.PACKET_LOG,
    layout.PACKET_CHECKPOINT_SAVE,
    layout.PACKET_CHECKPOINT_LOAD,
    layout.PACKET_PEER_OPEN,
    layout.PACKET_PEER_CLOSE,
    layout.PACKET_FORGET,
    layout.PACKET_REPLY,
}
HEAD = layout.PACKET.size
BODY_BYTES_MAX = layout.PACKET_BYTES_MAX - HEAD
F_GET_SEALS = 1034
ALL_SEALS = 15  # SEAL, SHRINK, GROW, WRITE


@dataclass(frozen=True)
class Packet:
    """One packet of the worker, its body wherever it lay."""

    kind: int
    id: int
    job: int
    body: bytes
    by_memfd: bool
    is_error: bool

    def term(self) -> Any:
        """The body as the term that it is."""
        from bridge.etf import CodecError, decode_bare

        try:
            term, size = decode_bare(self.body)
        except CodecError as error:
            raise Broke(f"the body of a packet of kind {self.kind} is no term: {error}") from error
        if size != len(self.body):
            raise Broke(f"{len(self.body) - size} bytes follow the term of a packet")
        return term


def body_of(fd: int, size: int) -> bytes:
    """What a sealed memfd of this size has."""
    try:
        seals = fcntl.fcntl(fd, F_GET_SEALS)
    except OSError:
        raise Broke("a body comes in a descriptor that is no memfd") from None
    if seals & ALL_SEALS != ALL_SEALS or os.fstat(fd).st_size != size:
        raise Broke(f"a body's memfd has seals {seals} and {os.fstat(fd).st_size} bytes")
    return os.pread(fd, size, 0)


class Channel:
    """What one worker says and is told beside its jobs."""

    def __init__(self, peer: Peer) -> None:
        self._socket = peer.link.channel
        self._peer = peer
        self._asked: set[int] = set()  # ids of ours: each has one answer, at most

    def receive(self, kind: int, timeout_s: float | None = None) -> Packet:
        """The next packet, which has to be of this kind."""
        packet = self.receive_any(timeout_s, f"kind {kind} was expected")
        if packet.kind != kind:
            raise Broke(f"a packet of kind {packet.kind} came, not {kind}")
        return packet

    def receive_any(self, timeout_s: float | None = None, wanted: str = "one was due") -> Packet:
        """The next packet."""
        packet = self.poll(self._peer.patience_s if timeout_s is None else timeout_s)
        if packet is None:
            raise Broke(f"no packet came; {wanted}{self._peer.last_words()}")
        return packet

    def poll(self, timeout_s: float) -> Packet | None:
        """The next packet, or None when none comes within this time."""
        sources = [self._socket.fileno(), self._peer.process.pidfd]
        if not select.select(sources, [], [], timeout_s)[0]:
            return None
        try:
            data, fds, _, _ = socket.recv_fds(
                self._socket, layout.PACKET_BYTES_MAX + 1, 4, socket.MSG_DONTWAIT
            )
        except BlockingIOError:
            return None
        try:
            return self._checked(data, fds) if data or fds else None
        finally:
            for fd in fds:
                os.close(fd)

    def _checked(self, data: bytes, fds: list[int]) -> Packet:
        """What the bridge would end the worker for."""
        if not HEAD <= len(data) <= layout.PACKET_BYTES_MAX:
            raise Broke(f"a packet of {len(data)} bytes")
        kind, flags, reserved, id_, job, size = layout.PACKET.format.unpack_from(data)
        if kind not in FROM_WORKER or reserved:
            raise Broke(f"a packet of kind {kind}, reserved {reserved}")
        if flags & ~(layout.PACKET_FLAG_MEMFD | layout.PACKET_FLAG_ERROR):
            raise Broke(f"a packet with flags {flags:#x}")
        by_memfd = bool(flags & layout.PACKET_FLAG_MEMFD)
        if len(fds) != by_memfd:
            raise Broke(f"a packet with flags {flags:#x} and {len(fds)} descriptors")
        body = body_of(fds[0], size) if by_memfd else data[HEAD:]
        if len(body) != size or (by_memfd and len(data) > HEAD):
            raise Broke(f"a packet tells a body of {size} bytes and has {len(body)}")
        answers = (
            kind in (layout.PACKET_REPLY, layout.PACKET_CHECKPOINT_SAVE) and id_ in self._asked
        )
        if id_ & layout.PACKET_ID_BRIDGE and not answers:
            raise Broke(f"the id {id_:#x} has the bridge's bit")
        self._asked.discard(id_)
        return Packet(kind, id_, job, body, by_memfd, bool(flags & layout.PACKET_FLAG_ERROR))

    def reply(
        self, to: Packet | int, body: bytes = b"", *, error: int | None = None, fd: int = -1
    ) -> None:
        """Answer a request; with `error` the body is the reason behind that code.

        `fd` goes along, and is closed here.
        """
        id_ = to if isinstance(to, int) else to.id
        flags = 0 if error is None else layout.PACKET_FLAG_ERROR
        told = body if error is None else struct.pack("<Q", error) + body
        self.say(layout.PACKET_REPLY, told, id_=id_, flags=flags, fd=fd)

    def say(self, kind: int, body: bytes, *, id_: int = 0, flags: int = 0, fd: int = -1) -> None:
        """One packet to the worker, its body in a sealed memfd where it does not fit."""
        if id_ & layout.PACKET_ID_BRIDGE:
            self._asked.add(id_)
        if fd >= 0:
            head = layout.PACKET.format.pack(kind, flags, 0, id_, 0, len(body))
            socket.send_fds(self._socket, [head + body], [fd])
            os.close(fd)
            return
        if len(body) <= BODY_BYTES_MAX:
            head = layout.PACKET.format.pack(kind, flags, 0, id_, 0, len(body))
            self._socket.send(head + body)
            return
        fd = memfd("body", len(body))
        try:
            os.pwrite(fd, body, 0)
            seal(fd, ALL_SEALS)
            flags |= layout.PACKET_FLAG_MEMFD
            head = layout.PACKET.format.pack(kind, flags, 0, id_, 0, len(body))
            socket.send_fds(self._socket, [head], [fd])
        finally:
            os.close(fd)

    def say_raw(self, data: bytes) -> None:
        """A packet that may break every rule."""
        self._socket.send(data)

    def hang_up(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)

    def silence(self, seconds: float = 0.05) -> None:
        """Nothing may come now."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            packet = self.poll(left)
            if packet is not None:
                raise Broke(f"a packet of kind {packet.kind} came that nobody asked for")
