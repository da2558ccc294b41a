"""The other end of a connection: a node, played, whose processes call and are answered."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bridge.etf import Atom, ImproperList, Pid, Reference, Term, decode_bare, encode_bare
from bridge.fabric._core import ffi, lib

if TYPE_CHECKING:
    from still_relay import StillRelay

NODE = "bridge@host"
FRAGMENTS, SEND_SENDER, EXIT_PAYLOAD = 0x800000, 0x80000, 0x400000
REG_SEND, MONITOR, DEMONITOR, SENT, DOWN, ALIAS_SEND = 6, 19, 20, 22, 28, 33
SERVICE, STREAMS = Atom("job_dispatcher"), Atom("streams")


@dataclass(frozen=True)
class Received:
    """A signal that left on a socket: its control message, and the message if it carries one."""

    control: tuple[Term, ...]
    message: Term = None


class Peer:
    """The other end of a connection: a node whose processes call."""

    def __init__(self, relay: StillRelay, name: str, number: int) -> None:
        self.name = name
        self.number = number
        ours, self._sock = socket.socketpair()
        self._sock.setblocking(False)
        self._bytes = b""
        flags = FRAGMENTS | SEND_SENDER | EXIT_PAYLOAD
        handle, text = relay.handle, name.encode()
        rc = lib.rb_relay_adopt(handle, number, ours.detach(), text, flags, ffi.NULL, 0)
        assert rc == 0, f"errno {-rc}"

    def pid(self, process: int) -> Pid:
        return Pid(Atom(self.name), process, 0, 1)

    def ref(self, number: int) -> Reference:
        return Reference(Atom(self.name), 1, (number, 0, 0))

    def _send(self, *terms: Term) -> None:
        body = b"\x83D\x00" + b"".join(encode_bare(term) for term in terms)
        self._sock.sendall(len(body).to_bytes(4) + body)

    def monitor(self, process: int, ref: int) -> None:
        self._send((MONITOR, self.pid(process), SERVICE, self.ref(ref)))

    def demonitor(self, process: int, ref: int) -> None:
        self._send((DEMONITOR, self.pid(process), SERVICE, self.ref(ref)))

    def down(self, process: int, watch: Reference) -> None:
        """A process that the relay watches has ended."""
        watcher = Pid(Atom(NODE), 1, 0, 5)
        self._send((DOWN, self.pid(process), watcher, watch), Atom("killed"))

    def call(self, process: int, ref: int, request: Term) -> None:
        """`gen_server:call`, without the monitor that comes before it."""
        tag = ImproperList((Atom("alias"),), self.ref(ref))
        control = (REG_SEND, self.pid(process), Atom(""), SERVICE)
        self._send(control, (Atom("$gen_call"), (self.pid(process), tag), request))

    def received(self) -> list[Received]:
        """Every whole signal that has left to this node since the last look."""
        if self._sock.fileno() < 0:
            return []
        try:
            while more := self._sock.recv(1 << 16):
                self._bytes += more
        except (BlockingIOError, ConnectionResetError):
            pass
        signals: list[Received] = []
        while len(self._bytes) >= 4:
            size = int.from_bytes(self._bytes[:4])
            if len(self._bytes) < 4 + size:
                break
            body, self._bytes = self._bytes[4 : 4 + size], self._bytes[4 + size :]
            if size == 0:
                continue  # a tick
            assert body[:3] == b"\x83D\x00", body[:3]
            control, used = decode_bare(body[3:])
            assert isinstance(control, tuple)
            rest = body[3 + used :]
            signals.append(Received(control, decode_bare(rest)[0] if rest else None))
        return signals

    def close(self) -> None:
        self._sock.close()
