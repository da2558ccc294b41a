"""What the relay counts: records with the field names of the structs that it keeps (relay.h)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NewType

Rule = NewType("Rule", str)  # by which a job was told to come back: enum rb_rule, small letters


@dataclass(frozen=True, slots=True)
class RelayStats:
    """accepted == sum(answered.values()) + in_flight; refused jobs were never accepted.

    sum(overloaded_by.values()) == answered["overloaded"] + refused["overloaded"].
    """

    accepted: int
    in_flight: int
    answered: dict[str, int]
    refused: dict[str, int]
    streams: int  # open subscriptions
    events: int  # parts that left to consumers
    overloaded_by: dict[Rule, int]
    connections: int
    rounds: int
    sleeps: int
    parks: int
    bytes_in: int
    bytes_out: int


class BreakerState(IntEnum):
    """Of a circuit breaker (docs/dispatch.md). HELD_OPEN and HELD_CLOSED: by hand, until let go."""

    CLOSED = 0
    OPEN = 1
    HALF_OPEN = 2
    RECLOSING = 3
    HELD_OPEN = 4
    HELD_CLOSED = 5


@dataclass(frozen=True, slots=True)
class RoleStats:
    """`breaker`: the role's own; `breaker_openings`: since it was last closed."""

    queued: int
    placed: int
    workers_ready: int
    accepted: int
    answered: dict[str, int]
    refused: dict[str, int]
    stopped_waiting: int  # cancelled or past their deadline before a worker had them, and after
    stopped_placed: int
    told_word: int  # of the latter: by the cancel word, SIGTERM, SIGKILL
    told_term: int
    told_kill: int
    noticed: int  # given back as cancelled, and how long after the word, in ns together
    noticed_ns: int
    stolen: int  # by another worker than the one that their key belongs to
    retried: int
    breaker: BreakerState
    breaker_openings: int
    deferred: int  # accepted, and not in its queue yet
    adaptive_limit: int  # of jobs in flight; 0: none
    overloaded_by: dict[Rule, int]


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """`service_ns`: moving average of run time. `credit`: jobs. Clock: CLOCK_MONOTONIC."""

    in_flight: int
    done: int
    lost: int
    service_ns: int
    credit: int
    heartbeats: int
    heartbeat_ns: int
    wakes: int
    gate: int
    state: int
    breaker: BreakerState
    share: int  # of the jobs that it would be given, in thousandths
    failed: int  # as its kit counts them
    run_ns: int  # of its last job
    pulses: int  # signs of jobs that get on
    silent_ns: int  # as the relay saw it: without a heartbeat; with jobs, and no sign of them
    still_ns: int
    last_code: int  # of its last job that failed
    ring_queued: int  # jobs that wait in its ring
    unready: int  # 1: it lives, and wants no jobs for now
    placed: int  # jobs put into its ring, in its life
    begun: int  # of those, entered by its handler by the relay's last look (each half second)


@dataclass(frozen=True, slots=True)
class Hops:
    """Mean time in us between the stations of a job, over `samples` jobs that were timed."""

    samples: int
    socket_to_queue_us: float
    queue_to_ring_us: float
    ring_to_answer_us: float
    worker_run_us: float
    answer_to_socket_us: float
