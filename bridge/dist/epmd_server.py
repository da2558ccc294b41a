"""An epmd of our own, as bytes: requests in, answers out (dist-protocol.md, 1). No socket, no clock.

Facts that callers of epmd rely on:
* A name lives as long as the connection that registered it. Any byte sent on it afterwards gives the
  name up, as the close does.
* Every other request is answered once and then closed: `erl_epmd` waits for the close.
* The first creation of a name is the clock in seconds + 1, each further one is the last + 1 for as
  long as the name is remembered; values below 4 are reserved.
* Only a local peer may register, dump or kill; anybody who reaches us may ask for names and ports.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum, auto

from bridge.dist.epmd import (
    ALIVE2_REQ,
    ALIVE2_RESP,
    ALIVE2_X_RESP,
    NAMES_REQ,
    PORT2_REQ,
    PORT2_RESP,
)

REQUEST_MAX_BYTES = 3_060  # the request buffer of the real one
NAME_MAX_CHARACTERS = 255
EXTRA_MAX_BYTES = 1_020
REMEMBERED_MAX = 1_000  # names that are not registered any more
REGISTERED_MAX = 1_000
_DUMP_REQ, _KILL_REQ = ord("d"), ord("k")
_BIG_CREATION_VERSION = 6  # before it a creation had 2 bits
_REFUSED_CREATION = 99
_ALIVE2 = struct.Struct(">HBBHHH")


@dataclass(frozen=True, slots=True)
class Entry:
    """One registered node, as ALIVE2_REQ described it; only name and port mean anything to us."""

    name: bytes
    port: int
    node_type: int
    protocol: int
    version_high: int
    version_low: int
    extra: bytes


class Names:
    """The names of this epmd, and the creations it has given."""

    def __init__(self) -> None:
        self.entries: dict[bytes, Entry] = {}
        self._creations: dict[bytes, int] = {}
        self._remembered: OrderedDict[bytes, int] = OrderedDict()

    def register(self, entry: Entry, now_s: int) -> int | None:
        """The creation, or None: the name is taken, or there are too many."""
        if entry.name in self.entries or len(self.entries) >= REGISTERED_MAX:
            return None
        last = self._remembered.pop(entry.name, None)
        creation = ((now_s if last is None else last) + 1) & 0xFFFFFFFF
        self._creations[entry.name] = max(creation, 4)
        self.entries[entry.name] = entry
        return self._creations[entry.name]

    def unregister(self, name: bytes) -> None:
        del self.entries[name]
        self._remembered[name] = self._creations.pop(name)
        if len(self._remembered) > REMEMBERED_MAX:
            self._remembered.popitem(last=False)


class State(Enum):
    ASKING = auto()  # the request is not whole yet
    REGISTERED = auto()  # holds a name; the connection stays open and silent
    CLOSED = auto()  # send what there is, then close


class Session:
    """One connection. `local`: it comes from this host. `port`: where this epmd listens."""

    def __init__(self, names: Names, *, local: bool, port: int) -> None:
        self.state = State.ASKING
        self.kill_asked = False
        self._names = names
        self._local = local
        self._port = port
        self._buffer = bytearray()
        self._outgoing = bytearray()
        self._name: bytes | None = None

    def receive_data(self, data: bytes, now_s: int) -> None:
        """Take bytes, in any split; b"" means that the peer has closed. Never raises."""
        if not data:
            self.close()
            return
        self._buffer += data
        if self.state is State.ASKING and len(self._buffer) >= 2:
            size = int.from_bytes(self._buffer[:2], "big")
            if not 1 <= size <= REQUEST_MAX_BYTES:
                self.close()
            elif len(self._buffer) >= 2 + size:
                body = bytes(self._buffer[2 : 2 + size])
                del self._buffer[: 2 + size]
                self._answer(body, now_s)
        if self.state is State.REGISTERED and self._buffer:
            self.close()

    def data_to_send(self) -> bytes:
        """The bytes to send now; each is given once."""
        data = bytes(self._outgoing)
        self._outgoing.clear()
        return data

    def close(self) -> None:
        """The connection is over: its name is free again. May be repeated."""
        self.state = State.CLOSED
        if self._name is not None:
            self._names.unregister(self._name)
            self._name = None

    def _answer(self, body: bytes, now_s: int) -> None:
        self.state = State.CLOSED
        match body[0]:
            case x if x == ALIVE2_REQ and self._local:
                self._register(body[1:], now_s)
            case x if x == PORT2_REQ:
                self._look_up(body[1:])
            case x if x == NAMES_REQ:
                self._list("name {} at port {}\n")
            case x if x == _DUMP_REQ and self._local:
                self._list("active name     <{}> at port {}, fd = -1\n")
            case x if x == _KILL_REQ and self._local:
                self.kill_asked = not self._names.entries
                self._outgoing += b"OK" if self.kill_asked else b"NO"

    def _register(self, fields: bytes, now_s: int) -> None:
        entry = _parse_alive2(fields)
        if entry is None:
            return  # the real one closes without a word
        creation = self._names.register(entry, now_s) if _is_name(entry) else None
        if creation is not None:
            self._name = entry.name
            self.state = State.REGISTERED
        result, shown = (1, _REFUSED_CREATION) if creation is None else (0, creation)
        if entry.version_high >= _BIG_CREATION_VERSION:
            self._outgoing += struct.pack(">BBI", ALIVE2_X_RESP, result, shown)
        else:
            small = _REFUSED_CREATION if creation is None else creation % 3 + 1
            self._outgoing += struct.pack(">BBH", ALIVE2_RESP, result, small)

    def _look_up(self, name: bytes) -> None:
        name = name.removesuffix(b"\0")
        if not name or b"\0" in name:
            return
        entry = self._names.entries.get(name)
        if entry is None:
            self._outgoing += bytes([PORT2_RESP, 1])
            return
        fixed = (entry.port, entry.node_type, entry.protocol, entry.version_high, entry.version_low)
        self._outgoing += struct.pack(">BBHBBHH", PORT2_RESP, 0, *fixed)
        for text in (entry.name, entry.extra):
            self._outgoing += struct.pack(">H", len(text)) + text

    def _list(self, line: str) -> None:
        self._outgoing += struct.pack(">I", self._port)
        for entry in self._names.entries.values():
            self._outgoing += line.format(entry.name.decode(), entry.port).encode()


def _parse_alive2(fields: bytes) -> Entry | None:
    """The fields of ALIVE2_REQ behind its tag; None when a length does not fit. Bytes behind are
    nobody's.
    """
    if len(fields) < _ALIVE2.size:
        return None
    port, node_type, protocol, high, low, name_length = _ALIVE2.unpack_from(fields)
    name, rest = _cut(fields[_ALIVE2.size :], name_length)
    if not name or b"\0" in name or rest is None or len(rest) < 2:
        return None
    extra, rest = _cut(rest[2:], int.from_bytes(rest[:2], "big"))
    if extra is None or rest is None:
        return None
    return Entry(name, port, node_type, protocol, high, low, extra)


def _cut(data: bytes, length: int) -> tuple[bytes, bytes] | tuple[None, None]:
    return (data[:length], data[length:]) if len(data) >= length else (None, None)


def _is_name(entry: Entry) -> bool:
    """UTF-8 of at most 255 characters; a line break would forge lines of the NAMES answer."""
    try:
        text = entry.name.decode()
    except UnicodeDecodeError:
        return False
    length_fits = len(text) <= NAME_MAX_CHARACTERS and len(entry.extra) <= EXTRA_MAX_BYTES
    return length_fits and not set(text) & {"\n", "\r"}
