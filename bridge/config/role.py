"""[roles.<name>] and its sub-tables: a kind of work, the command that does it, and its bounds.

A sub-table [roles.<name>.<subject>] is a Section of its own and a field here; what the relay needs
of it goes on to the record of the same subject in bridge/fabric/limits.py (bridge/limits.py).
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from bridge.config.admission import AdmissionSettings, BreakerSettings
from bridge.config.groups import Strategy
from bridge.config.ops import OpSettings
from bridge.config.sandbox import SandboxSettings, WorkerLimits
from bridge.config.section import GIB, KIB, MIB, Milliseconds, Section

Restart = Literal["permanent", "transient", "temporary"]


class OrderSettings(Section, frozen=True):
    """[roles.<name>.order]: which of the waiting jobs is next. 0: no aging, no patience."""

    aging_ms: Annotated[int, Meta(ge=0, le=86_400_000)] = 1_000
    patience_ms: Annotated[int, Meta(ge=0, le=86_400_000)] = 2_000


class ChoiceSettings(Section, frozen=True):
    """[roles.<name>.choice]: which worker gets a job. `weights`: of the workers in turn; 1 for
    those past its end."""

    policy: Literal[
        "shortest_queue", "round_robin", "weighted", "two_choices", "consistent_hash", "sticky"
    ] = "shortest_queue"
    weights: tuple[Annotated[int, Meta(ge=1, le=100)], ...] = ()
    ramp_ms: Annotated[int, Meta(ge=0, le=3_600_000)] = 0
    ordered: bool = False
    steal: bool = True

    def weight_of(self, index: int) -> int:
        return self.weights[index] if index < len(self.weights) else 1


class CallbackSettings(Section, frozen=True):
    """[roles.<name>.callback]: what its workers may write to in the cluster, and how much."""

    allow: Annotated[tuple[str, ...], Meta(max_length=256)] = ()
    pids: Annotated[tuple[str, ...], Meta(max_length=256)] = ()
    packets_per_s: Annotated[int, Meta(ge=1, le=1_000_000)] = 1_000
    bytes_max: Annotated[int, Meta(ge=64, le=64 * MIB)] = MIB
    calls_max: Annotated[int, Meta(ge=1, le=1_024)] = 64


class CheckpointSettings(Section, frozen=True):
    """[roles.<name>.checkpoint]: whether and when its workers' state is kept. 0: never by that."""

    keep: bool = False
    every_ms: Annotated[int, Meta(ge=0, le=86_400_000)] = 0
    every_jobs: Annotated[int, Meta(ge=0, le=2**53)] = 0
    on_drain: bool = True
    incremental: bool = False
    increments_max: Annotated[int, Meta(ge=0, le=10_000)] = 32
    bytes_max: Annotated[int, Meta(ge=0, le=GIB // 2)] = 64 * MIB
    save_ms: Milliseconds = 30_000


class PeerSettings(Section, frozen=True):
    """[roles.<name>.peers]: links of its workers to those of other roles, and from them."""

    allow: Annotated[tuple[str, ...], Meta(max_length=256)] = ()
    links_max: Annotated[int, Meta(ge=1, le=256)] = 16
    served_max: Annotated[int, Meta(ge=1, le=256)] = 64


class RemoteSettings(Section, frozen=True):
    """[roles.<name>.remote]: processes of which nodes may serve the role, and how many."""

    nodes: Annotated[tuple[str, ...], Meta(max_length=256)] = ()
    slots_max: Annotated[int, Meta(ge=1, le=64)] = 16
    workers_max: Annotated[int, Meta(ge=1, le=1_024)] = 64


class RoleConfig(Section, frozen=True):
    """[roles.<name>]: a kind of work, the command that does it, and its bounds."""

    command: tuple[str, ...] = ()
    workers: Annotated[int, Meta(ge=0, le=1_024)] = 1
    env: dict[str, str] = field(default_factory=dict)
    cwd: str | None = None
    terminal: bool = False
    chaos: bool = False

    payload_bytes_max: Annotated[int, Meta(ge=64, le=2 * GIB)] = 64 * MIB
    pool_bytes: Annotated[int, Meta(ge=64 * KIB, le=64 * GIB)] = 256 * MIB
    depth_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 4_096
    timeout_default_ms: Milliseconds = 60_000
    timeout_max_ms: Milliseconds = 3_600_000
    credit_us: Annotated[int, Meta(ge=1, le=1_000_000)] = 200
    atoms: Annotated[tuple[str, ...], Meta(max_length=64)] = ()
    idempotent: bool = False
    cancel_term_ms: Annotated[int, Meta(ge=1, le=600_000)] = 1_000
    cancel_kill_ms: Annotated[int, Meta(ge=1, le=600_000)] = 1_000

    hang_ms: Annotated[int, Meta(ge=0, le=3_600_000)] = 2_000
    progress_timeout_ms: Annotated[int, Meta(ge=0, le=86_400_000)] = 0
    start_ms: Milliseconds = 10_000
    probation_ms: Annotated[int, Meta(ge=0, le=3_600_000)] = 1_000
    grace_ms: Annotated[int, Meta(ge=1, le=600_000)] = 2_000
    restart: Restart = "permanent"
    strategy: Strategy = "one_for_one"
    shutdown_ms: Annotated[int, Meta(ge=0, le=3_600_000)] = 5_000
    max_restarts: Annotated[int, Meta(ge=0, le=10_000)] = 10
    window_s: Annotated[int, Meta(ge=1, le=86_400)] = 60
    backoff_min_ms: Milliseconds = 50
    backoff_max_ms: Milliseconds = 10_000

    order: OrderSettings = field(default_factory=OrderSettings)
    choice: ChoiceSettings = field(default_factory=ChoiceSettings)
    admission: AdmissionSettings = field(default_factory=AdmissionSettings)
    breaker: BreakerSettings = field(default_factory=BreakerSettings)
    ops: dict[str, OpSettings] = field(default_factory=dict)
    sandbox: SandboxSettings = field(default_factory=SandboxSettings)
    limits: WorkerLimits = field(default_factory=WorkerLimits)
    callback: CallbackSettings = field(default_factory=CallbackSettings)
    peers: PeerSettings = field(default_factory=PeerSettings)
    remote: RemoteSettings = field(default_factory=RemoteSettings)
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)

    @property
    def workers_most(self) -> int:
        """How many there may be, the slots of remote ones included."""
        return self.workers + (self.remote.workers_max if self.remote.nodes else 0)
