"""What happens in a handshake, and in which order: events, states, and both roles as tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

from bridge.dist.flags import OFFERED


class Status(Enum):
    """What an acceptor answers to a name. To a peer that asked for one, OK goes out as `named:`."""

    OK = "ok"
    OK_SIMULTANEOUS = "ok_simultaneous"
    NOK = "nok"
    NOT_ALLOWED = "not_allowed"
    ALIVE = "alive"


@dataclass(frozen=True, slots=True)
class Identity:
    """What we say about ourselves: full name, creation (never 0), offered flags."""

    name: str
    creation: int
    flags: int = OFFERED


@dataclass(frozen=True, slots=True)
class Peer:
    """What the other side said: full name, creation, and the flags both sides have."""

    name: str
    creation: int
    flags: int


@dataclass(frozen=True, slots=True)
class Offered:
    """Acceptor: a peer gave a valid name and sufficient flags. Answer with `decide`."""

    peer: Peer


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """Acceptor: the peer answered `alive` with "false"; it keeps the connection it has."""


@dataclass(frozen=True, slots=True)
class Proven:
    """Acceptor: the peer has the cookie. Take an older connection down now, then `confirm`."""

    peer: Peer


@dataclass(frozen=True, slots=True)
class Refused:
    """Initiator: the acceptor said `nok` (its own attempt goes on) or `not_allowed` (final)."""

    status: Status


@dataclass(frozen=True, slots=True)
class AskedToReplace:
    """Initiator: the acceptor still holds a connection from our name. Answer with
    `answer_alive`.
    """


@dataclass(frozen=True, slots=True)
class Established:
    """Both sides have proved the cookie; frames with u32 lengths begin."""

    peer: Peer


Event = Offered | Withdrawn | Proven | Refused | AskedToReplace | Established


class State(Enum):
    AWAIT_NAME = auto()
    DECIDING = auto()
    AWAIT_REPLACE_ANSWER = auto()
    AWAIT_REPLY = auto()
    PROVEN = auto()
    AWAIT_STATUS = auto()
    ASKED_TO_REPLACE = auto()
    AWAIT_CHALLENGE = auto()
    AWAIT_ACK = auto()
    ESTABLISHED = auto()
    CLOSED = auto()


class Step(Enum):
    """What moves a handshake: a message that was read and found right, or a decision of ours."""

    NAME = auto()
    GRANT = auto()
    REFUSE = auto()
    ASK_TO_REPLACE = auto()
    REPLACE = auto()
    KEEP = auto()
    REPLY = auto()
    CONFIRM = auto()
    CHALLENGE = auto()
    ACK = auto()


Table = Mapping[State, Mapping[Step, State]]

ACCEPTOR_TABLE: Table = {
    State.AWAIT_NAME: {Step.NAME: State.DECIDING},
    State.DECIDING: {
        Step.GRANT: State.AWAIT_REPLY,
        Step.ASK_TO_REPLACE: State.AWAIT_REPLACE_ANSWER,
        Step.REFUSE: State.CLOSED,
    },
    State.AWAIT_REPLACE_ANSWER: {Step.REPLACE: State.AWAIT_REPLY, Step.KEEP: State.CLOSED},
    State.AWAIT_REPLY: {Step.REPLY: State.PROVEN},
    State.PROVEN: {Step.CONFIRM: State.ESTABLISHED},
}

INITIATOR_TABLE: Table = {
    State.AWAIT_STATUS: {
        Step.GRANT: State.AWAIT_CHALLENGE,
        Step.ASK_TO_REPLACE: State.ASKED_TO_REPLACE,
        Step.REFUSE: State.CLOSED,
    },
    State.ASKED_TO_REPLACE: {Step.REPLACE: State.AWAIT_CHALLENGE, Step.KEEP: State.CLOSED},
    State.AWAIT_CHALLENGE: {Step.CHALLENGE: State.AWAIT_ACK},
    State.AWAIT_ACK: {Step.ACK: State.ESTABLISHED},
}
