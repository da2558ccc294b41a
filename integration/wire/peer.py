"""A small peer of its own: it knows nothing of bridge.dist, so it checks it rather than repeats it.

Sources: "Distribution Protocol" and "External Term Format" of the ERTS user's guide. Terms are put
together by hand, so that any byte of them can be wrong.
"""

from __future__ import annotations

import hashlib
import itertools
import socket
import struct
from dataclasses import dataclass

HOST = "127.0.0.1"
DEADLINE_S = 5.0
CREATION = 77
MONITOR_P, DEMONITOR_P = 19, 20

# All that 25 to 29 ask for, and monitors; without FRAGMENTS: frames are 'p', control, message.
MANDATORY = 0x403070F94 | 0x4000000
MONITORS = 0x8 | 0x20
PLAIN = MANDATORY | MONITORS | 0x80000 | 0x400000 | 0x800000000
FRAGMENTS = PLAIN | 0x800000

_names = itertools.count(1)


class Closed(Exception):
    """The other side has closed the connection."""


@dataclass
class Peer:
    """One connection to the bridge, as an initiator."""

    sock: socket.socket
    name: str
    buffer: bytes = b""

    @classmethod
    def dial(cls, port: int) -> Peer:
        sock = socket.create_connection((HOST, port), timeout=DEADLINE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(sock, f"wire{next(_names)}@{HOST}")

    @classmethod
    def connect(cls, port: int, cookie: str, flags: int = PLAIN) -> Peer:
        """A connection after its handshake."""
        peer = cls.dial(port)
        peer.send_short(peer.name_message(flags))
        assert peer.receive_short() == b"sok"
        challenge = struct.unpack_from(">I", peer.receive_short(), 9)[0]
        peer.send_short(b"r" + struct.pack(">I", 4711) + digest(cookie, challenge))
        assert peer.receive_short() == b"a" + digest(cookie, 4711)
        return peer

    def name_message(self, flags: int = PLAIN) -> bytes:
        name = self.name.encode()
        return b"N" + struct.pack(">QIH", flags, CREATION, len(name)) + name

    # -- bytes

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def send_short(self, body: bytes) -> None:
        self.send(struct.pack(">H", len(body)) + body)

    def send_frame(self, body: bytes) -> None:
        self.send(frame(body))

    def receive(self, count: int) -> bytes:
        """Raises Closed, or TimeoutError when the bytes do not come."""
        while len(self.buffer) < count:
            try:
                data = self.sock.recv(1 << 20)
            except ConnectionResetError:
                data = b""
            if not data:
                raise Closed
            self.buffer += data
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def receive_short(self) -> bytes:
        return self.receive(struct.unpack(">H", self.receive(2))[0])

    def receive_frame(self) -> bytes:
        """The next frame that is no tick."""
        while True:
            size = struct.unpack(">I", self.receive(4))[0]
            if size:
                return self.receive(size)

    def receive_answer(self) -> bytes:
        """The next frame that is no tick, nor the monitor by which a job's caller is watched."""
        while True:
            body = self.receive_frame()
            control = body[2:] if body[:1] == b"p" else body[3:]
            if control[2:4] not in (small(MONITOR_P), small(DEMONITOR_P)):
                return body

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def is_closed(self) -> bool:
        """Whether the other side closes before the deadline; what it still sends is thrown away."""
        try:
            while True:
                self.receive(1)
        except Closed:
            return True
        except TimeoutError:
            return False

    def half_close(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.sock.close()

    # -- terms and signals, without the leading 131

    def pid(self, number: int = 1) -> bytes:
        return b"X" + atom(self.name) + struct.pack(">III", number, 0, CREATION)

    def reference(self, number: int = 1) -> bytes:
        return b"Z\x00\x03" + atom(self.name) + struct.pack(">IIII", CREATION, number, 2, 3)

    def submit(self, payload: bytes, number: int = 1, role: str = "echo") -> tuple[bytes, bytes]:
        """Control and message of a call of the dispatcher; the tag is a plain reference."""
        control = tuple_(small(6), self.pid(), atom(""), atom("job_dispatcher"))
        request = tuple_(atom("submit"), atom(role), binary(payload))
        sender = tuple_(self.pid(), self.reference(number))
        return control, tuple_(atom("$gen_call"), sender, request)

    def echo(self, payload: bytes, number: int = 1) -> bytes:
        """Calls in pass-through mode and returns the answer's frame."""
        self.send_frame(passed(*self.submit(payload, number)))
        return self.receive_answer()


def digest(cookie: str, challenge: int) -> bytes:
    return hashlib.md5(f"{cookie}{challenge}".encode()).digest()


def frame(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


def passed(control: bytes, message: bytes | None = None) -> bytes:
    """A frame's body without a distribution header."""
    return b"p\x83" + control + (b"\x83" + message if message is not None else b"")


def headed(control: bytes, message: bytes = b"") -> bytes:
    """A frame's body with an empty distribution header."""
    return b"\x83D\x00" + control + message


def fragment(seq: int, number: int, data: bytes, *, first: bool) -> bytes:
    head = b"\x83E" if first else b"\x83F"
    return head + struct.pack(">QQ", seq, number) + (b"\x00" if first else b"") + data


def atom(text: str) -> bytes:
    data = text.encode()
    return b"w" + bytes([len(data)]) + data


def small(value: int) -> bytes:
    return b"a" + bytes([value])


def binary(data: bytes) -> bytes:
    return b"m" + struct.pack(">I", len(data)) + data


def tuple_(*elements: bytes) -> bytes:
    return b"h" + bytes([len(elements)]) + b"".join(elements)
