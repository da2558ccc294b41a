"""Control messages: one dataclass per signal, one table from and to the tuples on the wire.

The table is dist-protocol.md, 4.1: every operation decodes, of both families (reason in the tuple,
reason as payload) and with a trace token or without, whatever the flags are, because signals that
were queued while a connection came up arrive in the older form. Tokens are carried, never
interpreted.

A `reason` (or `message`, or argument list) that travels as the payload term is `PAYLOAD` here; who
needs it decodes it, so that a payload for a dead process costs nothing.

`read` takes the bytes. What every call is made of it reads by a table in C (csrc/etf/tagged.c);
whatever that does not accept is told by `parse`, which is what counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from enum import Enum
from operator import attrgetter
from typing import Any, ClassVar, Final

from bridge.dist.errors import RemoteProtocolError
from bridge.etf import Atom, Pid, Reference, decode_bare
from bridge.etf._codec import TaggedReader

Term = Any  # what bridge.etf decodes to


class Payload(Enum):
    """The value is not in the control tuple but is the payload term behind it."""

    PAYLOAD = "payload"


PAYLOAD: Final = Payload.PAYLOAD
NO_TOKEN: Final = (
    None  # no trace token; a token on the wire is a tuple or the atom [], never Python's None
)


@dataclass(frozen=True, slots=True)
class Link:
    sender: Pid
    to: Pid


@dataclass(frozen=True, slots=True)
class Unlink:
    """The unlink without an id, op 4: only OTP 25 takes it, and only without UNLINK_ID."""

    sender: Pid
    to: Pid


@dataclass(frozen=True, slots=True)
class UnlinkId:
    id: int
    sender: Pid
    to: Pid


@dataclass(frozen=True, slots=True)
class UnlinkIdAck:
    id: int
    sender: Pid
    to: Pid


@dataclass(frozen=True, slots=True)
class Send:
    """To a pid; `sender` is None in the forms that do not say who sent it."""

    sender: Pid | None
    to: Pid
    token: Term = NO_TOKEN

    unused: ClassVar = Atom("")  # an element that says nothing


@dataclass(frozen=True, slots=True)
class RegSend:
    sender: Pid
    name: Atom
    token: Term = NO_TOKEN

    unused: ClassVar = Atom("")


@dataclass(frozen=True, slots=True)
class AliasSend:
    sender: Pid
    alias: Reference
    token: Term = NO_TOKEN


@dataclass(frozen=True, slots=True)
class AltactSend:
    """Op 37 (OTP 28 and later): what it carries and to what is in `flags`, see `ALTACT_*`."""

    flags: int
    sender: Pid
    to: Pid | Reference | Atom
    token: Term = NO_TOKEN


ALTACT_PRIORITY, ALTACT_TOKEN, ALTACT_ALIAS, ALTACT_NAME, ALTACT_EXIT = 1, 2, 4, 8, 16


@dataclass(frozen=True, slots=True)
class Exit:
    """A link breaks because its other end died."""

    sender: Pid
    to: Pid
    reason: Term = PAYLOAD
    token: Term = NO_TOKEN


@dataclass(frozen=True, slots=True)
class Exit2:
    """exit/2: somebody asks `to` to exit."""

    sender: Pid
    to: Pid
    reason: Term = PAYLOAD
    token: Term = NO_TOKEN


@dataclass(frozen=True, slots=True)
class MonitorP:
    sender: Pid
    target: Pid | Atom
    ref: Reference


@dataclass(frozen=True, slots=True)
class DemonitorP:
    sender: Pid
    target: Pid | Atom
    ref: Reference


@dataclass(frozen=True, slots=True)
class MonitorPExit:
    """`source` died: the pid, or the name if it was monitored by name."""

    source: Pid | Atom
    to: Pid
    ref: Reference
    reason: Term = PAYLOAD


@dataclass(frozen=True, slots=True)
class GroupLeader:
    leader: Pid
    to: Pid


@dataclass(frozen=True, slots=True)
class SpawnRequest:
    """The payload is the argument list."""

    ref: Reference
    sender: Pid
    leader: Pid
    mfa: tuple[Atom, Atom, int]
    options: Term
    token: Term = NO_TOKEN


@dataclass(frozen=True, slots=True)
class SpawnReply:
    """`result` is the new pid, or an atom that says why there is none. Flags: 1 linked, 2
    monitored.
    """

    ref: Reference
    to: Pid
    flags: int
    result: Pid | Atom
    token: Term = NO_TOKEN


ControlMessage = (
    Link
    | Unlink
    | UnlinkId
    | UnlinkIdAck
    | Send
    | RegSend
    | AliasSend
    | AltactSend
    | Exit
    | Exit2
    | MonitorP
    | DemonitorP
    | MonitorPExit
    | GroupLeader
    | SpawnRequest
    | SpawnReply
)


def _is_int(value: Term, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high  # True and False are ints to isinstance


def _is_mfa(value: Term) -> bool:
    match value:
        case (Atom(), Atom(), arity):
            return _is_int(arity, 0, 255)
        case _:
            return False


# What a field may hold, and the rule to name when it does not.
_KINDS: dict[str, Callable[[Term], bool]] = {
    "a pid": lambda value: isinstance(value, Pid),
    "a pid or an atom": lambda value: isinstance(value, Pid | Atom) or _is_bare_atom(value),
    "an atom": lambda value: isinstance(value, Atom) or _is_bare_atom(value),
    "a reference": lambda value: isinstance(value, Reference),
    "a pid, a reference or an atom": lambda value: (
        isinstance(value, Pid | Reference | Atom) or _is_bare_atom(value)
    ),
    "an id of 1..2^64-1": lambda value: _is_int(value, 1, 2**64 - 1),
    "a non-negative integer": lambda value: type(value) is int and value >= 0,
    "{module, function, arity}": _is_mfa,
    "any term": lambda value: True,
}


def _is_bare_atom(value: Term) -> bool:
    return value is None or value is True or value is False  # nil, true and false are atoms too


@dataclass(frozen=True, slots=True)
class _Op:
    number: int
    cls: type[Any]
    layout: tuple[tuple[str, str], ...]  # (attribute, kind) in wire order; attribute "" is unused
    payload: bool

    @property
    def attributes(self) -> set[str]:
        return {attribute for attribute, _ in self.layout if attribute}

    @property
    def absent(self) -> dict[str, Term]:
        """The attributes that are not in the tuple, and what they are then."""
        defaults = {f.name: f.default for f in fields(self.cls) if f.name not in self.attributes}
        return {name: None if d is MISSING else d for name, d in defaults.items()}


_SENDER, _TO, _REF, _TOKEN = (
    ("sender", "a pid"),
    ("to", "a pid"),
    ("ref", "a reference"),
    ("token", "any term"),
)
_UNUSED, _REASON, _TARGET = ("", "any term"), ("reason", "any term"), ("target", "a pid or an atom")
_SOURCE, _NAME, _ALIAS = (
    ("source", "a pid or an atom"),
    ("name", "an atom"),
    ("alias", "a reference"),
)
_ID, _FLAGS = ("id", "an id of 1..2^64-1"), ("flags", "a non-negative integer")
_ANY_TO, _LEADER = ("to", "a pid, a reference or an atom"), ("leader", "a pid")
_SPAWN = (_REF, _SENDER, _LEADER, ("mfa", "{module, function, arity}"), ("options", "any term"))
_SPAWNED = (_REF, _TO, _FLAGS, ("result", "a pid or an atom"))

_OPS: dict[int, _Op] = {
    op.number: op
    for op in (
        _Op(1, Link, (_SENDER, _TO), False),
        _Op(2, Send, (_UNUSED, _TO), True),
        _Op(3, Exit, (_SENDER, _TO, _REASON), False),
        _Op(4, Unlink, (_SENDER, _TO), False),
        _Op(6, RegSend, (_SENDER, _UNUSED, _NAME), True),
        _Op(7, GroupLeader, (_LEADER, _TO), False),
        _Op(8, Exit2, (_SENDER, _TO, _REASON), False),
        _Op(12, Send, (_UNUSED, _TO, _TOKEN), True),
        _Op(13, Exit, (_SENDER, _TO, _TOKEN, _REASON), False),
        _Op(16, RegSend, (_SENDER, _UNUSED, _NAME, _TOKEN), True),
        _Op(18, Exit2, (_SENDER, _TO, _TOKEN, _REASON), False),
        _Op(19, MonitorP, (_SENDER, _TARGET, _REF), False),
        _Op(20, DemonitorP, (_SENDER, _TARGET, _REF), False),
        _Op(21, MonitorPExit, (_SOURCE, _TO, _REF, _REASON), False),
        _Op(22, Send, (_SENDER, _TO), True),
        _Op(23, Send, (_SENDER, _TO, _TOKEN), True),
        _Op(24, Exit, (_SENDER, _TO), True),
        _Op(25, Exit, (_SENDER, _TO, _TOKEN), True),
        _Op(26, Exit2, (_SENDER, _TO), True),
        _Op(27, Exit2, (_SENDER, _TO, _TOKEN), True),
        _Op(28, MonitorPExit, (_SOURCE, _TO, _REF), True),
        _Op(29, SpawnRequest, _SPAWN, True),
        _Op(30, SpawnRequest, (*_SPAWN, _TOKEN), True),
        _Op(31, SpawnReply, _SPAWNED, False),
        _Op(32, SpawnReply, (*_SPAWNED, _TOKEN), False),
        _Op(33, AliasSend, (_SENDER, _ALIAS), True),
        _Op(34, AliasSend, (_SENDER, _ALIAS, _TOKEN), True),
        _Op(35, UnlinkId, (_ID, _SENDER, _TO), False),
        _Op(36, UnlinkIdAck, (_ID, _SENDER, _TO), False),
    )
}
_ALTACT_NUMBER = 37


def has_payload(number: int) -> bool:
    """Whether a payload term follows the control tuple of operation `number` (False for unknown
    ones).
    """
    return number == _ALTACT_NUMBER or (number in _OPS and _OPS[number].payload)


# The kinds that the table in C knows, by its numbers. An operation with any other is left to parse.
_FAST_KINDS = {
    "any term": 0,
    "a pid": 1,
    "a reference": 2,
    "an atom": 3,
    "a pid or an atom": 4,
}
_FAST = TaggedReader(
    {
        op.number: (
            op.cls,
            tuple((attribute, _FAST_KINDS[kind]) for attribute, kind in op.layout),
            op.absent,
            op.payload,
        )
        for op in _OPS.values()
        if all(kind in _FAST_KINDS for _, kind in op.layout)
    }
)


def read(data: bytes, *, payload: bool) -> ControlMessage:
    """The control message in `data`, one bare term; `payload` says whether a payload followed it.

    Raises DecodeError, and RemoteProtocolError as `parse`.
    """
    message: ControlMessage | None = _FAST.read(data, payload)
    return message if message is not None else read_slowly(data, payload=payload)


def read_slowly(data: bytes, *, payload: bool) -> ControlMessage:
    """What `read` says, of any data whatever."""
    term, end = decode_bare(data)
    if end != len(data):
        raise RemoteProtocolError("nothing follows a control message but its payload")
    return parse(term, payload=payload)


def parse(term: Term, *, payload: bool) -> ControlMessage:
    """The control message in `term`; `payload` says whether a payload followed it.

    Raises RemoteProtocolError naming the rule: a tuple, a known operation, its arity, its types,
    its payload.
    """
    if not isinstance(term, tuple) or not term or type(term[0]) is not int:
        raise RemoteProtocolError(
            "a control message is a tuple that begins with an operation number"
        )
    number, *fields = term
    if number != _ALTACT_NUMBER and number not in _OPS:
        raise RemoteProtocolError(f"{number} is not an operation")
    if payload != has_payload(number):
        having = "has" if has_payload(number) else "has no"
        raise RemoteProtocolError(f"operation {number} {having} payload")
    if number == _ALTACT_NUMBER:
        return _parse_altact(fields)
    op = _OPS[number]
    if len(fields) != len(op.layout):
        raise RemoteProtocolError(f"operation {number} has {len(op.layout) + 1} elements")
    values: dict[str, Term] = {"sender": None} if op.cls is Send else {}
    for (attribute, kind), value in zip(op.layout, fields, strict=True):
        if not _KINDS[kind](value):
            raise RemoteProtocolError(f"{attribute} of operation {number} is {kind}")
        if attribute:
            values[attribute] = value
    message: ControlMessage = op.cls(**values)
    return message


def _parse_altact(fields: list[Term]) -> AltactSend:
    """Op 37: unknown flag bits and further elements are for later releases, so they are let be."""
    if len(fields) < 3 or type(fields[0]) is not int or fields[0] < 0:
        raise RemoteProtocolError("operation 37 has flags, sender and target")
    flags, sender, to, *rest = fields
    kind = "a reference" if flags & ALTACT_ALIAS else "an atom" if flags & ALTACT_NAME else "a pid"
    if not isinstance(sender, Pid) or not _KINDS[kind](to):
        raise RemoteProtocolError(f"operation 37 with flags {flags:#x} is from a pid to {kind}")
    if flags & ALTACT_TOKEN and not rest:
        raise RemoteProtocolError("operation 37 with flag 2 carries a token")
    return AltactSend(flags, sender, to, rest[0] if flags & ALTACT_TOKEN else NO_TOKEN)


def to_tuple(message: ControlMessage) -> tuple[Term, ...]:
    """The control tuple of `message`, ready for `encode_bare`. The inverse of `parse`."""
    if isinstance(message, AltactSend):
        fields = (message.flags, message.sender, message.to)
        token = (message.token,) if message.flags & ALTACT_TOKEN else ()
        return (_ALTACT_NUMBER, *fields, *token)
    number, elements = _FORMS[
        type(message),
        getattr(message, "sender", _HAS_NONE) is not None,
        getattr(message, "token", None) is not None,
        getattr(message, "reason", _HAS_NONE) is not PAYLOAD,
    ]
    return (number, *elements(message))


def _form(op: _Op) -> tuple[type[Any], bool, bool, bool]:
    """What tells `op` from others of its class: sender known, token carried, reason in the
    tuple.
    """
    return (
        op.cls,
        "sender" not in op.absent,
        "token" in op.attributes,
        "reason" not in op.absent,
    )


_HAS_NONE = object()
_FORMS = {
    _form(op): (op.number, attrgetter(*(attribute or "unused" for attribute, _ in op.layout)))
    for op in _OPS.values()
}
