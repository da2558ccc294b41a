"""What is taken in: [roles.<name>.admission] and .breaker, allowances of tenants and nodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from msgspec import Meta, field

from bridge.config.section import Milliseconds, Section

Depth = Annotated[int, Meta(ge=0, le=1_000_000)]
Broken = tuple[str, Any, str, str]  # key, value, rule, mend


class RateSettings(Section, frozen=True):
    """A table `rate`: how many jobs may begin in a time. `burst`: tokens that are kept, or jobs
    that may wait for a leaky bucket."""

    kind: Literal["none", "token_bucket", "leaky_bucket", "sliding_window"] = "none"
    jobs: Annotated[int, Meta(ge=1, le=1_000_000)] = 1_000
    per_ms: Annotated[int, Meta(ge=1, le=3_600_000)] = 1_000
    burst: Annotated[int, Meta(ge=1, le=1_000_000)] = 1_000


class AdaptiveSettings(Section, frozen=True):
    """[roles.<name>.admission.adaptive]: how many jobs may be in flight, found from latency."""

    limit_max: Annotated[int, Meta(ge=0, le=1_048_576)] = 0
    limit_min: Annotated[int, Meta(ge=1, le=1_048_576)] = 4
    window_ms: Annotated[int, Meta(ge=1, le=60_000)] = 100
    tolerance_percent: Annotated[int, Meta(ge=100, le=1_000)] = 150
    headroom: Annotated[int, Meta(ge=1, le=1_000)] = 4


class AdmissionSettings(Section, frozen=True):
    """[roles.<name>.admission]: which jobs are taken in. 0: no such bound."""

    on_full: Literal["reject", "drop_oldest", "defer"] = "reject"
    node_depth_max: Depth = 0
    tenant_depth_max: Depth = 0
    defer_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 1_024
    defer_ms: Milliseconds = 1_000
    rate: RateSettings = field(default_factory=RateSettings)
    adaptive: AdaptiveSettings = field(default_factory=AdaptiveSettings)


class BreakerSettings(Section, frozen=True):
    """[roles.<name>.breaker]: when a worker, or the role, is left alone. 0 percent: never."""

    failure_percent: Annotated[int, Meta(ge=0, le=100)] = 0
    window_ms: Annotated[int, Meta(ge=10, le=3_600_000)] = 10_000
    volume_min: Annotated[int, Meta(ge=1, le=1_000_000)] = 20
    open_ms: Annotated[int, Meta(ge=1, le=3_600_000)] = 1_000
    open_max_ms: Annotated[int, Meta(ge=1, le=3_600_000)] = 60_000
    jitter_percent: Annotated[int, Meta(ge=0, le=100)] = 20
    probes: Annotated[int, Meta(ge=1, le=1_000)] = 3
    reclose_ms: Annotated[int, Meta(ge=0, le=3_600_000)] = 5_000
    failures: Annotated[
        tuple[
            Literal["worker_crashed", "worker_broke", "deadline_exceeded", "job_failed"],
            ...,
        ],
        Meta(min_length=1, max_length=4),
    ] = ("worker_crashed", "worker_broke", "deadline_exceeded")


class AllowanceSettings(Section, frozen=True):
    """[nodes.<name>]: what one calling node may ask of all roles together. 0: no such bound."""

    depth_max: Depth = 0
    rate: RateSettings = field(default_factory=RateSettings)


def broken_admission_rules(
    key: str, admission: AdmissionSettings, breaker: BreakerSettings
) -> Iterator[Broken]:
    adaptive = admission.adaptive
    if 0 < adaptive.limit_max < adaptive.limit_min:
        rule = f"it must not be above limit_max, which is {adaptive.limit_max}"
        mend = "Lower it, or raise limit_max"
        yield f"{key}.admission.adaptive.limit_min", adaptive.limit_min, rule, mend
    if breaker.open_ms > breaker.open_max_ms:
        rule = f"it must not be above open_max_ms, which is {breaker.open_max_ms}"
        yield f"{key}.breaker.open_ms", breaker.open_ms, rule, "Lower it, or raise open_max_ms"
