"""epmd's requests and answers as bytes (dist-protocol.md, 1): no socket, no clock.

A request is `u16 length, body`; an answer carries no length, so each answer has a reader that takes
bytes in any split and says when it is whole.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Any

from bridge.dist.errors import RemoteProtocolError

DEFAULT_PORT = 4369
HIDDEN_NODE = (
    72  # BEAMs register 77 even with -hidden; nobody reads the field, so we tell the truth
)
_TCP_IPV4 = 0
_VERSION_HIGH = _VERSION_LOW = 6
_ANSWER_MAX_BYTES = 64 * 1024  # a NAMES answer of about 1,000 nodes; PORT2 stays under 3 KiB

ALIVE2_REQ, PORT2_REQ, NAMES_REQ = 120, 122, 110
ALIVE2_RESP, ALIVE2_X_RESP, PORT2_RESP = 121, 118, 119


@dataclass(frozen=True, slots=True)
class Registered:
    """epmd took our name; it is ours until the socket closes."""

    creation: int


@dataclass(frozen=True, slots=True)
class Refused:
    """epmd's result code, non-zero. 1 stands for every failure: name taken, too long, not UTF-8."""

    result: int


@dataclass(frozen=True, slots=True)
class NodeEntry:
    port: int
    node_type: int
    version_high: int
    version_low: int
    alive: str
    extra: bytes


@dataclass(frozen=True, slots=True)
class Names:
    epmd_port: int
    ports: dict[str, int]


Answer = Registered | Refused | NodeEntry | Names


def _request(body: bytes) -> bytes:
    return struct.pack(">H", len(body)) + body


def _alive_bytes(alive: str) -> bytes:
    name = alive.encode("utf-8")
    if not name or "@" in alive or "\0" in alive or len(alive) > 255:
        raise ValueError(
            f"{alive!r}: epmd wants the part of the name before the @, 1 to 255 characters"
        )
    return name


def alive2_request(alive: str, port: int, *, node_type: int = HIDDEN_NODE) -> bytes:
    """ALIVE2_REQ: register `alive` as listening on TCP `port`.

    Layout: 120, port u16, type u8, proto u8, hi u16, lo u16, nlen u16, name, elen u16, extra.
    Raises ValueError for a name that epmd would refuse or misfile (it does not check for an @).
    """
    name = _alive_bytes(alive)
    fixed = (ALIVE2_REQ, port, node_type, _TCP_IPV4, _VERSION_HIGH, _VERSION_LOW)
    return _request(struct.pack(">BHBBHHH", *fixed, len(name)) + name + struct.pack(">H", 0))


def port2_request(alive: str) -> bytes:
    """PORT_PLEASE2_REQ: where does `alive` listen? epmd closes after its answer."""
    return _request(bytes([PORT2_REQ]) + _alive_bytes(alive))


def names_request() -> bytes:
    """NAMES_REQ: all registered names. epmd closes after its answer."""
    return _request(bytes([NAMES_REQ]))


class AnswerReader:
    """One answer of epmd. Feed bytes in any split; `b""` is epmd's close."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._ended = False

    def receive_data(self, data: bytes) -> None:
        """Store `data`; b"" means that epmd has closed. Raises RemoteProtocolError when it is too
        much.
        """
        if not data:
            self._ended = True
        self._buffer += data
        if len(self._buffer) > _ANSWER_MAX_BYTES:
            raise RemoteProtocolError(f"an epmd answer is at most {_ANSWER_MAX_BYTES} bytes")

    def alive2(self) -> Registered | Refused | None:
        """The answer to ALIVE2_REQ, or None: need more. Raises RemoteProtocolError."""
        tag = self._tag(ALIVE2_RESP, ALIVE2_X_RESP)
        fields = self._unpack(">BBI" if tag == ALIVE2_X_RESP else ">BBH") if tag else None
        if fields is None:
            return None
        _, result, creation = fields
        if result:
            return Refused(result)
        if creation == 0:
            raise RemoteProtocolError("epmd gave creation 0, which is reserved")
        return Registered(creation)

    def port2(self) -> NodeEntry | Refused | None:
        """The answer to PORT_PLEASE2_REQ, or None: need more. Raises RemoteProtocolError."""
        head = self._unpack(">BB") if self._tag(PORT2_RESP) else None
        if head is None:
            return None
        if head[1]:
            return Refused(head[1])
        fixed = self._unpack(">BBHBBHHH")
        if fixed is None:
            return None
        _, _, port, node_type, _, high, low, name_length = fixed
        name_start = struct.calcsize(">BBHBBHHH")
        tail = self._unpack(f">{name_length}sH", name_start)
        if tail is None:
            return None
        name, extra_length = tail
        extra = self._unpack(f">{extra_length}s", name_start + name_length + 2)
        if extra is None:
            return None
        try:
            alive = name.decode("utf-8")
        except UnicodeDecodeError:
            raise RemoteProtocolError("a name at epmd is UTF-8") from None
        return NodeEntry(port, node_type, high, low, alive, extra[0])

    def names(self) -> Names | None:
        """The answer to NAMES_REQ, or None until epmd has closed. Raises RemoteProtocolError."""
        if not self._ended:
            return None
        head = self._unpack(">I")
        if head is None:
            raise RemoteProtocolError("a NAMES answer begins with epmd's port")
        text = bytes(self._buffer[4:]).decode("utf-8", "replace")
        lines = (re.fullmatch(r"name (.+) at port (\d{1,5})", line) for line in text.splitlines())
        return Names(head[0], {match[1]: int(match[2]) for match in lines if match})

    def _tag(self, *allowed: int) -> int | None:
        if not self._buffer:
            if self._ended:
                raise RemoteProtocolError("epmd closed without an answer")
            return None
        if self._buffer[0] not in allowed:
            raise RemoteProtocolError(f"epmd answered with tag {self._buffer[0]}, not {allowed}")
        return self._buffer[0]

    def _unpack(self, layout: str, offset: int = 0) -> tuple[Any, ...] | None:
        if len(self._buffer) >= offset + struct.calcsize(layout):
            return struct.unpack_from(layout, self._buffer, offset)
        if self._ended:
            raise RemoteProtocolError("epmd closed in the middle of an answer")
        return None
