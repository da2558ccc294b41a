"""Handshake messages as bytes: one dataclass, one `encode` and one parser each (dist-protocol.md,
2.2).

All integers are big-endian. A message travels as `length, body`; the length is u16 on plain TCP and
u32 under TLS, hence a parameter of `MessageReader` and `frame`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from bridge.dist.errors import RemoteProtocolError

MESSAGE_MAX_BYTES = 2048  # the longest honest one is a name message of 270 bytes
DIGEST_BYTES = 16
# How a TLS peer begins: a handshake record, or the alert that our plain name message earned. As a
# length that is 5379 or more, so no honest message is taken for it.
TLS_RECORDS, TLS_MAJOR = (0x15, 0x16), 3

_NAME = struct.Struct(">BQIH")
_CHALLENGE = struct.Struct(">BQIIH")
_REPLY = struct.Struct(f">BI{DIGEST_BYTES}s")
_ACK = struct.Struct(f">B{DIGEST_BYTES}s")
_TAG_N, _TAG_R, _TAG_A = ord("N"), ord("r"), ord("a")


@dataclass(frozen=True, slots=True)
class Name:
    """A to B: 'N', flags u64, creation u32, nlen u16, name. What follows the name is ignored."""

    flags: int
    creation: int
    name: str

    def encode(self) -> bytes:
        name = self.name.encode("ascii")
        return _NAME.pack(_TAG_N, self.flags, self.creation, len(name)) + name


@dataclass(frozen=True, slots=True)
class StatusText:
    """'s' and a text: B's status, or A's "true" or "false" after `alive`."""

    text: str

    def encode(self) -> bytes:
        return b"s" + self.text.encode("ascii")


@dataclass(frozen=True, slots=True)
class Named:
    """B's status to a peer that asked for a name: "named:", nlen u16, name, creation u32."""

    name: str
    creation: int

    def encode(self) -> bytes:
        name = self.name.encode("ascii")
        return b"snamed:" + struct.pack(f">H{len(name)}sI", len(name), name, self.creation)


@dataclass(frozen=True, slots=True)
class Challenge:
    """B to A: 'N', flags u64, challenge u32, creation u32, nlen u16, name."""

    flags: int
    challenge: int
    creation: int
    name: str

    def encode(self) -> bytes:
        name = self.name.encode("ascii")
        head = _CHALLENGE.pack(_TAG_N, self.flags, self.challenge, self.creation, len(name))
        return head + name


@dataclass(frozen=True, slots=True)
class Reply:
    """A to B: 'r', A's own challenge u32, digest of B's challenge."""

    challenge: int
    digest: bytes

    def encode(self) -> bytes:
        return _REPLY.pack(_TAG_R, self.challenge, self.digest)


@dataclass(frozen=True, slots=True)
class Ack:
    """B to A: 'a', digest of A's challenge."""

    digest: bytes

    def encode(self) -> bytes:
        return _ACK.pack(_TAG_A, self.digest)


def parse_name(body: bytes) -> Name:
    """Raises RemoteProtocolError, for the old 'n' message of OTP 23 and 24 too."""
    if body[:1] == b"n":
        raise RemoteProtocolError("the old name message 'n' (before OTP 25) is not spoken here")
    _, flags, creation, length = _unpack(_NAME, _TAG_N, body, "name")
    return Name(flags, creation, _text(body, _NAME.size, length, "name"))


def parse_status(body: bytes) -> StatusText | Named:
    """Raises RemoteProtocolError."""
    if body[:1] != b"s":
        raise RemoteProtocolError("expected a status message")
    if body.startswith(b"snamed:"):
        start = len(b"snamed:") + 2
        length = int.from_bytes(body[start - 2 : start], "big")
        name = _text(body, start, length, "status")
        creation = body[start + length : start + length + 4]
        if len(creation) != 4:
            raise RemoteProtocolError("a name that is given comes with a creation")
        return Named(name, int.from_bytes(creation, "big"))
    return StatusText(body[1:].decode("latin-1"))


def parse_challenge(body: bytes) -> Challenge:
    """Raises RemoteProtocolError."""
    _, flags, challenge, creation, length = _unpack(_CHALLENGE, _TAG_N, body, "challenge")
    return Challenge(flags, challenge, creation, _text(body, _CHALLENGE.size, length, "challenge"))


def parse_reply(body: bytes) -> Reply:
    """Raises RemoteProtocolError."""
    _, challenge, digest = _unpack(_REPLY, _TAG_R, body, "reply")
    return Reply(challenge, digest)


def parse_ack(body: bytes) -> Ack:
    """Raises RemoteProtocolError."""
    _, digest = _unpack(_ACK, _TAG_A, body, "ack")
    return Ack(digest)


def _unpack(layout: struct.Struct, tag: int, body: bytes, what: str) -> tuple[Any, ...]:
    if len(body) < layout.size or body[0] != tag:
        raise RemoteProtocolError(f"expected a {what} message of at least {layout.size} bytes")
    return layout.unpack_from(body)


def _text(body: bytes, start: int, length: int, what: str) -> str:
    text = body[start : start + length]
    if len(text) != length:
        raise RemoteProtocolError(f"the name in a {what} message is shorter than its length")
    return text.decode("latin-1")  # dist_util.erl writes Latin-1; names.py then demands ASCII


def frame(body: bytes, *, prefix_bytes: int = 2) -> bytes:
    """`body` behind its length."""
    return len(body).to_bytes(prefix_bytes, "big") + body


class MessageReader:
    """Cuts a byte stream into message bodies. What lies behind the last one stays in `leftover`."""

    def __init__(self, *, prefix_bytes: int = 2) -> None:
        self._prefix_bytes = prefix_bytes
        self._buffer = bytearray()

    def receive_data(self, data: bytes) -> None:
        self._buffer += data

    def next_body(self) -> bytes | None:
        """The next body, or None: need more. Raises RemoteProtocolError as soon as a length is too
        big.
        """
        prefix = self._prefix_bytes
        if len(self._buffer) < prefix:
            return None
        length = int.from_bytes(self._buffer[:prefix], "big")
        if length > MESSAGE_MAX_BYTES:
            if prefix == 2 and self._buffer[0] in TLS_RECORDS and self._buffer[1] == TLS_MAJOR:
                raise RemoteProtocolError(
                    "the peer speaks TLS and this node does not; give this node tls "
                    "(docs/tls.md), or start the peer without -proto_dist inet_tls"
                )
            raise RemoteProtocolError(f"a handshake message has at most {MESSAGE_MAX_BYTES} bytes")
        if len(self._buffer) < prefix + length:
            return None
        body = bytes(self._buffer[prefix : prefix + length])
        del self._buffer[: prefix + length]
        return body

    def take_leftover(self) -> bytes:
        """The bytes behind the last message: the first distribution frames. Moves them to the
        caller.
        """
        leftover = bytes(self._buffer)
        self._buffer.clear()
        return leftover
