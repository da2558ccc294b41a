"""The packets of a channel: bytes to what a worker asks, and what it is told to bytes. No I/O.

docs/channel.md is the contract; the numbers are csrc/layout.toml's. What breaks a rule raises
BrokenRule: the worker is ended for it. What is well-formed but not to be had is answered with an
error, which is no business of this module.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from bridge.etf import Atom, DecodeError, Limits, Pid, decode_bare, encode_bare
from bridge.fabric import layout

Term = Any

_HEAD = struct.Struct("<HHIQQQ")
assert (_HEAD.size, _HEAD.format) == (layout.PACKET.size, layout.PACKET.format.format)
_U64 = struct.Struct("<Q")
_TWO_U64 = struct.Struct("<QQ")

HEAD_BYTES = _HEAD.size
BODY_BYTES_MAX = layout.PACKET_BYTES_MAX - HEAD_BYTES  # of a body in its packet
SAVE_HEAD_BYTES = _U64.size  # of a checkpoint: its kind, before the state
TIMEOUT_MS_MAX = 86_400_000
ROLE_BYTES_MAX = 256  # of the name of a role that a link is asked to
# What decodes one worker's terms: bounded so that no packet keeps the thread for long.
TERM_LIMITS = Limits(depth_max=512, terms_max=100_000)
_BOUNDS = {"terms", "depth", "key_depth", "integer_size"}  # rules that a large term may break
_LEVELS = ("debug", "info", "warning", "error")


class BrokenRule(Exception):
    """A packet that no worker may send; the text is the rule."""


class Code(IntEnum):
    """CHANNEL_ERROR_..., of a reply that is an error."""

    BAD_REQUEST = layout.CHANNEL_ERROR_BAD_REQUEST
    REFUSED = layout.CHANNEL_ERROR_REFUSED
    NO_PROCESS = layout.CHANNEL_ERROR_NO_PROCESS
    NO_CONNECTION = layout.CHANNEL_ERROR_NO_CONNECTION
    DOWN = layout.CHANNEL_ERROR_DOWN
    TIMEOUT = layout.CHANNEL_ERROR_TIMEOUT
    TOO_LARGE = layout.CHANNEL_ERROR_TOO_LARGE
    BUSY = layout.CHANNEL_ERROR_BUSY
    UNAVAILABLE = layout.CHANNEL_ERROR_UNAVAILABLE
    FULL_WANTED = layout.CHANNEL_ERROR_FULL_WANTED
    STORE_FAILED = layout.CHANNEL_ERROR_STORE_FAILED


class Kind(IntEnum):
    """CHECKPOINT_...: what a checkpoint is."""

    FULL = layout.CHECKPOINT_FULL
    INCREMENTAL = layout.CHECKPOINT_INCREMENTAL


class Coming(IntEnum):
    """RESTORE_...: what a worker is told of a state, where it is not given one."""

    HOLD = layout.RESTORE_HOLD
    COMING = layout.RESTORE_COMING
    ABANDONED = layout.RESTORE_ABANDONED


class NotHad(Exception):
    """A request that is not granted: an error to whoever asked. `code` and the reason's term."""

    def __init__(self, code: Code, detail: Term = None) -> None:
        super().__init__(code.name.lower(), detail)
        self.code = code
        self.detail = detail

    def reason(self) -> Term:
        """The reason as docs/channel.md, "Errors" has it."""
        match self.code:
            case Code.NO_PROCESS:
                return Atom("noproc")
            case Code.NO_CONNECTION:
                return Atom("noconnection")
        word = Atom(self.code.name.lower())
        if self.detail is None:
            return word
        detail = self.detail.encode() if isinstance(self.detail, str) else self.detail
        return (word, detail)


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a packet that keeps the rules of heads."""

    kind: int
    id: int
    job: int
    bytes: int
    memfd: bool  # the body is in the descriptor that came along
    error: bool


@dataclass(frozen=True, slots=True)
class Send:
    dest: Term
    message: Term


@dataclass(frozen=True, slots=True)
class Call:
    dest: Term
    request: Term
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Log:
    level: str
    text: str


@dataclass(frozen=True, slots=True)
class Save:
    kind: Kind
    state: bytes


@dataclass(frozen=True, slots=True)
class Load:
    pass


@dataclass(frozen=True, slots=True)
class PeerOpen:
    """A link to a worker of `role` is wanted. None: this worker serves the links of others."""

    role: str | None


@dataclass(frozen=True, slots=True)
class PeerClose:
    link: int


@dataclass(frozen=True, slots=True)
class Forget:
    pass


@dataclass(frozen=True, slots=True)
class Reply:
    """To a request of the bridge's. `error` is its reason, if it is one."""

    error: Term | None


Request = Send | Call | Log | Save | Load | PeerOpen | PeerClose | Forget | Reply

_KNOWN = {
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
_FLAGS = layout.PACKET_FLAG_MEMFD | layout.PACKET_FLAG_ERROR
_NO_REPLY = {layout.PACKET_SEND, layout.PACKET_LOG}
_ANSWERS = {layout.PACKET_REPLY, layout.PACKET_CHECKPOINT_SAVE}  # to requests of the bridge's


# ---- from the worker


def read_head(packet: bytes, descriptors: int) -> Head:
    """The head of `packet`, which came with so many descriptors. Raises BrokenRule."""
    if len(packet) < HEAD_BYTES:
        raise BrokenRule(f"a packet of {len(packet)} bytes is shorter than its head")
    kind, flags, reserved, id_, job, size = _HEAD.unpack_from(packet)
    memfd, error = bool(flags & layout.PACKET_FLAG_MEMFD), bool(flags & layout.PACKET_FLAG_ERROR)
    if kind not in _KNOWN:
        raise BrokenRule(f"kind {kind} is none that a worker sends")
    if flags & ~_FLAGS or reserved:
        raise BrokenRule(f"flags {flags:#x} and reserved {reserved} of kind {kind}")
    if error and kind != layout.PACKET_REPLY:
        raise BrokenRule(f"the flag of an error on kind {kind}")
    if descriptors != memfd:
        raise BrokenRule(f"{descriptors} descriptors where {int(memfd)} belong, kind {kind}")
    if len(packet) - HEAD_BYTES != (0 if memfd else size) or (memfd and not size):
        raise BrokenRule(f"{size} bytes were announced, {len(packet) - HEAD_BYTES} came")
    if (kind in _NO_REPLY) != (id_ == 0) and kind not in _ANSWERS:
        raise BrokenRule(f"id {id_} of kind {kind}")
    if id_ & layout.PACKET_ID_BRIDGE and kind not in _ANSWERS:
        raise BrokenRule(f"id {id_:#x} of kind {kind} is one of the bridge's")
    if kind == layout.PACKET_REPLY and not id_ & layout.PACKET_ID_BRIDGE:
        raise BrokenRule(f"a reply to {id_}, which the bridge has not asked")
    return Head(kind, id_, job, size, memfd, error)


def read_body(head: Head, body: bytes) -> Request:
    """What is asked. Raises BrokenRule; NotHad for a term that is larger than is looked at."""
    match head.kind:
        case layout.PACKET_SEND:
            dest, message = _tuple(body, 2)
            return Send(_dest(dest), message)
        case layout.PACKET_CALL:
            dest, request, timeout_ms = _tuple(body, 3)
            if type(timeout_ms) is not int or not 0 <= timeout_ms <= TIMEOUT_MS_MAX:
                raise BrokenRule("a call's timeout is 0 to 86400000 ms")
            return Call(_dest(dest), request, timeout_ms / 1000)
        case layout.PACKET_LOG:
            return _log(body)
        case layout.PACKET_CHECKPOINT_SAVE:
            if len(body) < _U64.size:
                raise BrokenRule("a checkpoint without its kind")
            (kind,) = _U64.unpack_from(body)
            if kind not in (Kind.FULL, Kind.INCREMENTAL):
                raise BrokenRule(f"a checkpoint of kind {kind}")
            return Save(Kind(kind), body[_U64.size :])
        case layout.PACKET_REPLY:
            if head.error:
                return Reply(_reason(body))
            _check_empty(body)
            return Reply(None)
        case layout.PACKET_CHECKPOINT_LOAD:
            _check_empty(body)
            return Load()
        case layout.PACKET_FORGET:
            _check_empty(body)
            return Forget()
        case layout.PACKET_PEER_OPEN:
            if len(body) > ROLE_BYTES_MAX:
                raise BrokenRule(f"a role's name of {len(body)} bytes")
            return PeerOpen(body.decode("utf-8", "replace") or None)
        case layout.PACKET_PEER_CLOSE:
            if len(body) != _U64.size:
                raise BrokenRule(f"the number of a link in {len(body)} bytes")
            return PeerClose(*_U64.unpack(body))
        case _:  # read_head() lets no other kind through
            raise BrokenRule(f"kind {head.kind} has no body that is known")


def _check_empty(body: bytes) -> None:
    if body:
        raise BrokenRule(f"a body of {len(body)} bytes where none belongs")


def _term(body: bytes) -> Term:
    try:
        term, end = decode_bare(body, limits=TERM_LIMITS)
    except DecodeError as error:
        if error.rule in _BOUNDS:
            raise NotHad(Code.TOO_LARGE, error.value) from error
        raise BrokenRule(f"a term is not well-formed: {error}") from error
    if end != len(body):
        raise BrokenRule(f"{len(body) - end} bytes behind a term")
    return term


def _tuple(body: bytes, arity: int) -> tuple[Term, ...]:
    term = _term(body)
    if type(term) is not tuple or len(term) != arity:
        raise BrokenRule(f"a body is no tuple of {arity}")
    return term


def _dest(term: Term) -> Term:
    match term:
        case Pid() | Atom():
            return term
        case (Atom(), Atom()) if type(term) is tuple:
            return term
    raise BrokenRule("a destination is a pid, a name or {Name, Node}")


def _log(body: bytes) -> Log:
    level, text = _tuple(body, 2)
    if not isinstance(level, Atom) or level.name not in _LEVELS:
        raise BrokenRule("a log line's level is debug, info, warning or error")
    if type(text) is not bytes or len(text) > layout.LOG_BYTES_MAX:
        raise BrokenRule(f"a log line is a binary of at most {layout.LOG_BYTES_MAX} bytes")
    return Log(level.name, text.decode("utf-8", "replace"))


def _reason(body: bytes) -> Term:
    if len(body) < _U64.size:
        raise BrokenRule("an error without its code")
    return _term(body[_U64.size :])


# ---- to the worker


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A packet for the worker. A body above BODY_BYTES_MAX goes in a memfd. `descriptor` goes along
    beside a body in the packet, and belongs to whoever sends the packet, or drops it.
    """

    kind: int
    id: int
    body: bytes = b""
    error: bool = False
    descriptor: int | None = None

    @property
    def by_memfd(self) -> bool:
        return len(self.body) > BODY_BYTES_MAX

    def head(self) -> bytes:
        flags = self.by_memfd * layout.PACKET_FLAG_MEMFD | self.error * layout.PACKET_FLAG_ERROR
        return _HEAD.pack(self.kind, flags, 0, self.id, 0, len(self.body))


def reply(id_: int, body: bytes = b"") -> Outgoing:
    return Outgoing(layout.PACKET_REPLY, id_, body)


def refusal(id_: int, error: NotHad) -> Outgoing:
    body = _U64.pack(error.code) + encode_bare(error.reason())
    return Outgoing(layout.PACKET_REPLY, id_, body, error=True)


def peer_granted(id_: int, link: int, descriptor: int) -> Outgoing:
    return Outgoing(layout.PACKET_REPLY, id_, _U64.pack(link), descriptor=descriptor)


def peer_offer(link: int, role: str, descriptor: int) -> Outgoing:
    """One end of a link, whose other end a worker of `role` has."""
    body = _U64.pack(link) + role.encode()
    return Outgoing(layout.PACKET_PEER_OFFER, 0, body, descriptor=descriptor)


def checkpoint_now(id_: int, kind: Kind, *, leaving: bool) -> Outgoing:
    when = layout.SAVE_LEAVING if leaving else layout.SAVE_NOW
    return Outgoing(layout.PACKET_CHECKPOINT_NOW, id_, _TWO_U64.pack(kind, when))


def state_bytes(parts: list[tuple[Kind, bytes]]) -> bytes:
    """A state: each part with its kind and size before it."""
    return b"".join(_TWO_U64.pack(kind, len(part)) + part for kind, part in parts)


def restore(id_: int, parts: list[tuple[Kind, bytes]]) -> Outgoing:
    body = _U64.pack(layout.RESTORE_STATE) + state_bytes(parts)
    return Outgoing(layout.PACKET_RESTORE, id_, body)


def trouble(id_: int, hook: str, value: int, jobs: int) -> Outgoing:
    return Outgoing(layout.PACKET_CHAOS, id_, f"{hook} {value} {jobs}".encode("ascii"))


def announce(coming: Coming) -> Outgoing:
    return Outgoing(layout.PACKET_RESTORE, 0, _U64.pack(coming))
