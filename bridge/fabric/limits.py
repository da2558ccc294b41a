"""What the relay is told: the bounds of every connection, and of each role with its subjects.

The records of a role have the shape of struct rb_role_config (csrc/include/ringbridge/dispatch.h)
and are copied into it field by field; each subject of dispatching has one of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal, NamedTuple

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """Bounds of every connection, and how the relay waits. Times in ms or us as named."""

    tick_ms: int = 15_000
    silence_ms: int = 75_000
    frame_bytes_max: int = 2**31 - 1  # a BEAM's own bound; what is kept of it is bounded below
    signal_bytes_max: int = 128 * MIB  # signals being assembled on one connection
    upward_bytes_max: int = 64 * MIB  # of one connection, waiting for the interpreter
    upward_total_max: int = 256 * MIB  # of all; past it those above 1 MiB are closed
    outgoing_bytes_max: int = 128 * MIB  # waiting on one socket; past it the connection is closed
    outgoing_high_bytes: int = MIB  # above it `wait_writable` waits
    outgoing_low_bytes: int = MIB // 2  # until so few are left
    arrival_ms: int = 30_000  # a payload that has not come further for so long is given up
    kept_bytes_max: int = 64 * MIB  # of answers that dedupe keeps, all together
    monitors_max: int = 100_000  # held on the relay's service by one connection
    busy_sleep_us: int = 100
    spin_us: int = 50
    arrange_cpus: bool = True  # where there are two (csrc/relay/cpus.h)


@dataclass(frozen=True, slots=True)
class OrderLimits:
    """Which of the waiting jobs is next. 0: no aging, no patience."""

    aging_ms: int = 1_000
    patience_ms: int = 2_000


@dataclass(frozen=True, slots=True)
class ChoiceLimits:
    """Which worker gets a job, and how far ahead of it."""

    policy: str = "shortest_queue"  # enum rb_choice_policy
    credit_us: int = 200
    ramp_ms: int = 0  # 0: a worker has its whole share at once
    ordered: bool = False
    steal: bool = True


@dataclass(frozen=True, slots=True)
class RateLimits:
    """So many jobs in so many ms. `burst`: tokens kept, or jobs that wait for a leaky bucket."""

    kind: str = "none"  # enum rb_rate_kind
    jobs: int = 1000
    per_ms: int = 1000
    burst: int = 1000


@dataclass(frozen=True, slots=True)
class AdaptiveLimits:
    """How many jobs may be in flight, found from their latency. limit_max 0: no such limit."""

    limit_max: int = 0
    limit_min: int = 4
    window_ms: int = 100
    tolerance_percent: int = 150
    headroom: int = 4


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """Which jobs are taken in. 0: no such bound."""

    depth_max: int = 4096
    node_depth_max: int = 0  # of these, called from one node
    tenant_depth_max: int = 0
    on_full: str = "reject"  # enum rb_admission_policy
    defer_max: int = 1024
    defer_ms: int = 1000
    rate: RateLimits = field(default_factory=RateLimits)
    adaptive: AdaptiveLimits = field(default_factory=AdaptiveLimits)


@dataclass(frozen=True, slots=True)
class BreakerLimits:
    """When a worker, or its role, is left alone. failure_percent 0: never."""

    failure_percent: int = 0
    window_ms: int = 10_000
    volume_min: int = 20
    open_ms: int = 1_000
    open_max_ms: int = 60_000
    jitter_percent: int = 20
    probes: int = 3
    reclose_ms: int = 5_000
    failures: tuple[str, ...] = ("worker_crashed", "worker_broke", "deadline_exceeded")


@dataclass(frozen=True, slots=True)
class HealthLimits:
    """When a worker is no good any more. 0: never."""

    hang_ms: int = 0  # hung after so long without a heartbeat
    progress_timeout_ms: int = 0  # stuck, when its jobs show no sign for so long


class SchemaKind(IntEnum):
    """enum rb_schema_kind."""

    ANY = 0
    INTEGER = 1
    FLOAT = 2
    NUMBER = 3
    BINARY = 4
    ATOM = 5
    TEXT = 6
    LIST = 7
    TUPLE = 8
    MAP = 9
    ONE_OF = 10


@dataclass(frozen=True, slots=True)
class SchemaNode:
    """Of a schema: struct rb_schema_node."""

    kind: SchemaKind = SchemaKind.ANY
    flags: int = 0
    first: int = 0
    count: int = 0
    text_at: int = 0
    text_bytes: int = 0
    low: int = 0
    high: int = 0


@dataclass(frozen=True, slots=True)
class OpLimits:
    """An operation; `schema` is the node that says what it takes."""

    name: str
    opcode: int
    schema: int


@dataclass(frozen=True, slots=True)
class OpsLimits:
    """What the operations of a role take, compiled (bridge/config/ops.py). None: all."""

    table: tuple[OpLimits, ...] = ()
    nodes: tuple[SchemaNode, ...] = ()
    text: tuple[int, ...] = ()  # bytes


@dataclass(frozen=True, slots=True)
class AllowanceLimits:
    """What one calling node, or one tenant, may ask of all roles. depth_max 0: no such bound."""

    depth_max: int = 0
    rate: RateLimits = field(default_factory=RateLimits)


@dataclass(frozen=True, slots=True)
class RoleLimits:
    """What one role may hold and how long its jobs may take. A role keeps its name and pool."""

    name: str
    payload_bytes_max: int = 64 * MIB
    pool_bytes: int = 256 * MIB
    timeout_default_ms: int = 60_000
    timeout_max_ms: int = 3_600_000
    cancel_term_ms: int = 1000
    cancel_kill_ms: int = 1000
    atoms: tuple[str, ...] = ()  # that its answers may hold: 64, each of 127 bytes at most
    idempotent: bool = False  # a job that its worker did not survive may be run again
    order: OrderLimits = field(default_factory=OrderLimits)
    choice: ChoiceLimits = field(default_factory=ChoiceLimits)
    admission: AdmissionLimits = field(default_factory=AdmissionLimits)
    breaker: BreakerLimits = field(default_factory=BreakerLimits)
    health: HealthLimits = field(default_factory=HealthLimits)
    ops: OpsLimits = field(default_factory=OpsLimits)


@dataclass(frozen=True, slots=True)
class TenantLimits:
    """What one tenant is given, in every role."""

    weight: int = 10


@dataclass(frozen=True, slots=True)
class LinkConfig:
    """One worker's link: `slots` and the number of result blocks are powers of two."""

    slots: int = 1024
    result_bytes: int = 64 * MIB
    result_block_bytes: int = 4096
    crc: Literal["off", "envelope", "payload"] = "payload"


class LinkFds(NamedTuple):
    """A link's descriptors in the order in which a worker inherits them. The relay closes them."""

    relay_side: int
    worker_side: int
    pool: int
    wake_worker: int
    wake_relay: int


class Service(IntEnum):
    """Processes of the node that the relay answers for."""

    JOBS = 0
    STREAMS = 1


class RoleState(IntEnum):
    RUNNING = 0
    DRAINING = 1  # new jobs are answered :draining
    GIVEN_UP = 2  # all jobs are answered :no_worker


class AccountKind(IntEnum):
    NODE = 0
    TENANT = 1


class BreakerForce(IntEnum):
    OPEN = 0
    CLOSED = 1
    AUTO = 2  # nobody holds it any more
