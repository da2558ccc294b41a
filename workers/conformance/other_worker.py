"""The other worker's end of a link between workers (docs/links.md): messages, each checked."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import select
import socket
import termios
from collections.abc import Sequence
from dataclasses import dataclass

from bridge.fabric import layout
from workers.conformance.channel import ALL_SEALS, BODY_BYTES_MAX, HEAD, body_of
from workers.conformance.jobs import FINAL, Broke
from workers.conformance.link import pack, unpack
from workers.conformance.memory import memfd, seal
from workers.conformance.peer import Peer

ENVELOPE = layout.REQUEST.size
CALL, REPLY, FORGET = layout.PACKET_CALL, layout.PACKET_REPLY, layout.PACKET_FORGET
assert layout.COMPLETION.size == ENVELOPE


@dataclass(frozen=True)
class Message:
    """One message of the worker under test. `envelope` is empty for a `forget`."""

    kind: int
    id: int
    envelope: dict[str, int | bytes]
    payload: bytes
    by_memfd: bool

    def has(self, **wanted: int | bytes) -> None:
        """These are the fields, and all that are not named are zero."""
        for name, value in self.envelope.items():
            right = wanted.get(name, bytes(len(value)) if isinstance(value, bytes) else 0)
            if value != right:
                raise Broke(f"{name} of a message on a link is {value!r}, not {right!r}")


class OtherWorker:
    """The end that the worker under test does not have. `close` ends it, as a death would."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket, self._theirs = ours, theirs
        self._last_id = 0

    def take_end(self) -> int:
        """The end of the worker under test; to be closed once it is sent."""
        return self._theirs.detach()

    # --- what comes ------------------------------------------------------------------------------

    def poll(self, timeout_s: float) -> Message | None:
        """The next message; None when none comes within this time, or the link is over."""
        sources = [self._socket.fileno(), self._peer.process.pidfd]
        if not select.select(sources, [], [], timeout_s)[0]:
            return None
        try:
            data, fds, _, _ = socket.recv_fds(
                self._socket, layout.PACKET_BYTES_MAX + 1, 4, socket.MSG_DONTWAIT
            )
        except (BlockingIOError, ConnectionResetError):
            return None
        try:
            return _checked(data, fds) if data or fds else None
        finally:
            for fd in fds:
                os.close(fd)

    def receive(self, kind: int, timeout_s: float | None = None) -> Message:
        """The next message, which has to be of this kind."""
        message = self.poll(self._peer.patience_s if timeout_s is None else timeout_s)
        if message is None:
            self._peer.process.wait(0.5)  # its end closes the link a moment before it shows
            raise Broke(
                f"no message came on the link; kind {kind} was due{self._peer.last_words()}"
            )
        if message.kind != kind:
            raise Broke(f"a message of kind {message.kind} came on a link, not {kind}")
        return message

    def silence(self, seconds: float = 0.05) -> None:
        """Nothing may come now."""
        if (message := self.poll(seconds)) is not None:
            raise Broke(f"{message} came on the link, which nobody asked for")

    def expect_over(self) -> None:
        """The worker under test has let go of the link."""
        if not select.select([self._socket], [], [], self._peer.patience_s)[0]:
            raise Broke(f"the link is not over{self._peer.last_words()}")
        try:
            data = self._socket.recv(1, socket.MSG_DONTWAIT)
        except ConnectionResetError:  # something of ours was still unread
            data = b""
        if data:
            raise Broke("a message came on a link that should be over")

    # --- what we say -----------------------------------------------------------------------------

    def call(
        self,
        opcode: int,
        payload: bytes = b"",
        *,
        flags: int = 0,
        job: int = 0,
        deadline_ns: int = 0,
        trace: tuple[bytes, bytes, int] = (b"", b"", 0),
    ) -> int:
        """Ask for something; returns the request's number."""
        self._last_id += 1
        envelope: dict[str, int | bytes] = {
            "job": job,
            "opcode": opcode,
            "flags": flags,
            "deadline_ns": deadline_ns,
            "payload_bytes": len(payload),
            "trace_id": trace[0],
            "span_id": trace[1],
            "trace_flags": trace[2],
        }
        self.say(CALL, pack(layout.REQUEST, envelope) + payload, id_=self._last_id)
        return self._last_id

    def expect(
        self, request: int, status: int, payload: bytes | None = None, *, code: int | None = None
    ) -> Message:
        """The next message has to be this answer to it."""
        message = self.receive(REPLY)
        c = message.envelope
        if message.id != request:
            raise Broke(f"request {message.id} of a link is answered, not {request}")
        right = c["status"] == status and payload in (None, message.payload)
        if not right or code not in (None, c["code"]):
            raise Broke(
                f"a request over a link is answered with status {c['status']!r}, "
                f"code {c['code']!r} and {message.payload[:40]!r}, "
                f"not {status}, {code} and {payload!r:.40}"
            )
        return message

    def reply(
        self, to: Message, payload: bytes = b"", *, status: int = 0, flags: int = 0, code: int = 0
    ) -> None:
        answer = completion(to, payload, status=status, flags=flags, code=code)
        self.say(REPLY, answer + payload, id_=to.id)

    def say(self, kind: int, body: bytes, *, id_: int, fds: Sequence[int] = ()) -> None:
        """One message, its body in a sealed memfd where it does not fit."""
        if len(body) <= BODY_BYTES_MAX:
            self.say_raw(layout.PACKET.format.pack(kind, 0, 0, id_, 0, len(body)) + body, fds)
            return
        fd = memfd("body", len(body))
        try:
            os.pwrite(fd, body, 0)
            seal(fd, ALL_SEALS)
            head = layout.PACKET.format.pack(kind, layout.PACKET_FLAG_MEMFD, 0, id_, 0, len(body))
            self.say_raw(head, [fd])
        finally:
            os.close(fd)

    def say_raw(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """A message that may break every rule."""
        socket.send_fds(self._socket, [data], list(fds))

    def call_without_reading(self, opcode: int, payload: bytes, count: int) -> None:
        """So many requests, or as many as find room, whose answers are left where they are."""
        self._socket.setblocking(False)
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            for _ in range(count):
                self.call(opcode, payload)

    def until_read(self) -> None:
        """Waits until it has taken every message of ours."""
        unread = array.array("i", [1])

        def is_read() -> bool:
            fcntl.ioctl(self._socket, termios.TIOCOUTQ, unread)
            return unread[0] == 0

        self._peer.until(is_read, "a message on a link is never read")

    def shut_down(self) -> None:
        """As the bridge does when it revokes the link."""
        self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()
        self._theirs.close()


def completion(
    to: Message, payload: bytes, *, status: int = 0, flags: int = 0, code: int = 0
) -> bytes:
    """The envelope of an answer."""
    return pack(
        layout.COMPLETION,
        {
            "job": to.envelope["job"],
            "status": status,
            "flags": flags,
            "code": code,
            "payload_bytes": len(payload),
        },
    )


def _checked(data: bytes, fds: list[int]) -> Message:
    """What a worker would end the link for."""
    if not HEAD <= len(data) <= layout.PACKET_BYTES_MAX:
        raise Broke(f"a message of {len(data)} bytes on a link")
    kind, flags, reserved, id_, _, size = layout.PACKET.format.unpack_from(data)
    if kind not in (CALL, REPLY, FORGET) or reserved or flags & ~layout.PACKET_FLAG_MEMFD:
        raise Broke(f"a message of kind {kind}, flags {flags:#x}, reserved {reserved} on a link")
    by_memfd = bool(flags)
    if len(fds) != by_memfd:
        raise Broke(f"a message with flags {flags:#x} and {len(fds)} descriptors on a link")
    body = body_of(fds[0], size) if by_memfd else data[HEAD:]
    if len(body) != size or (by_memfd and len(data) > HEAD):
        raise Broke(f"a message tells a body of {size} bytes and has {len(body)}")
    if kind == FORGET:
        if body:
            raise Broke("a `forget` with a body on a link")
        return Message(kind, id_, {}, b"", by_memfd)
    record = layout.REQUEST if kind == CALL else layout.COMPLETION
    if size < record.size:
        raise Broke(f"a message of kind {kind} with {size} bytes has no envelope")
    envelope = unpack(record, body[: record.size])
    payload = body[record.size :]
    told = int(envelope["payload_bytes"])
    if told != len(payload) or int(envelope["flags"]) & ~layout.FLAG_TERM:
        raise Broke(f"a message tells {told} bytes of {len(payload)}, flags {envelope['flags']!r}")
    if kind == REPLY and envelope["status"] not in FINAL:
        raise Broke(f"an answer on a link has status {envelope['status']!r}")
    return Message(kind, id_, envelope, payload, by_memfd)
