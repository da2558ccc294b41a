"""What the relay has to say, in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

Stream = Literal["stdout", "stderr"]


class Signal(NamedTuple):
    """A frame that is not the relay's own business: bare terms, without the leading 131.

    `message` is None where the control message carries no payload.
    """

    conn: int
    control: bytes
    message: bytes | None


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """The relay has closed a connection; nothing more comes from it. `reason` is a short rule."""

    conn: int
    reason: str


@dataclass(frozen=True, slots=True)
class Operation:
    """What a worker declares that it can do. `takes`: of "raw", "term", "parts"; none: anything."""

    opcode: int
    name: str
    takes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """A worker has greeted and its layout fits: jobs flow to it. `pid` is as the worker sees it.

    `operations`: those that it declares; a worker that declares none takes every opcode.
    `encodings`: of payloads and answers, those that it takes besides plain ones.
    """

    worker_id: int
    pid: int
    kit: str
    kit_version: tuple[int, int]
    role: str
    layout_version: tuple[int, int]
    operations: tuple[Operation, ...] = ()
    encodings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LaneReady:
    """The BEAM at a lane's other end has greeted. `pid` is as it says itself."""

    lane: int
    conn: int
    pid: int


@dataclass(frozen=True, slots=True)
class LaneEnded:
    """The relay has let go of a lane: its jobs are ended, its memory is gone. `reason`: a rule."""

    lane: int
    conn: int
    reason: str


@dataclass(frozen=True, slots=True)
class WorkerRefused:
    """A worker's greeting broke a rule (`why` names both layout digests) and it was killed."""

    worker_id: int
    why: str


@dataclass(frozen=True, slots=True)
class WorkerBroke:
    """A worker broke `rule` of its link: fenced and killed, its started jobs answered."""

    worker_id: int
    rule: str


@dataclass(frozen=True, slots=True)
class WorkerEnded:
    """A worker's process is gone: exit code, or the signal that ended it."""

    worker_id: int
    status: int | None
    signal: int | None
    core: bool
    oom: bool


@dataclass(frozen=True, slots=True)
class JobLost:
    """A job ended with its worker. `meta`: what its caller noted, an external term, or nothing."""

    worker_id: int
    job: int
    reason: str  # "worker_crashed", "worker_broke"
    meta: bytes


@dataclass(frozen=True, slots=True)
class WorkerOutput:
    """Bytes that a worker wrote. Cut anywhere; dropped when nobody takes events for long.

    `job`: the one under way as they were read, or that had ended a moment before; of jobs of a few
    microseconds it may be a neighbour.
    """

    worker_id: int
    stream: Stream
    data: bytes
    job: int | None = None


@dataclass(frozen=True, slots=True)
class RoleGone:
    """A removed role has seen its last job's end: its memory is free, and so is its number."""

    role: int


@dataclass(frozen=True, slots=True)
class BreakerChanged:
    """A circuit breaker is in another state: that of a worker, or with None of the whole role."""

    role: int
    worker_id: int | None
    state: str  # as BreakerState names it, in small letters


Event: TypeAlias = (
    Signal
    | ConnectionLost
    | WorkerReady
    | WorkerRefused
    | WorkerBroke
    | WorkerEnded
    | JobLost
    | WorkerOutput
    | RoleGone
    | BreakerChanged
    | LaneReady
    | LaneEnded
)
