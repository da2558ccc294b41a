"""A chaos plan: what is believed, what is done, and what may come of it (docs/chaos.md). Pure.

The file is checked as ringbridge.toml is: a key that nobody knows is an error with its place.
"""

from __future__ import annotations

import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, field

from bridge.chaos.lane import Shape
from bridge.ops.errors import Refused

Count = Annotated[int, Meta(ge=0, le=1_000_000)]
Span = Annotated[int, Meta(ge=0, le=3_600_000)]  # ms
WireNumber = Annotated[float, Meta(ge=0)]


class _Injection(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="what", kw_only=True
):
    """`at_ms` counts from the end of the steady state; `every_ms`: again and again, 0: once."""

    at_ms: Span = 0
    every_ms: Span = 0


class Hook(_Injection, frozen=True, tag="hook", kw_only=True):
    """A hook of the kit, for that many jobs of each of `workers` workers; 0 workers: all."""

    hook: Annotated[str, Meta(pattern="^[a-z_]{1,15}$")]
    value: Annotated[int, Meta(ge=0, le=9_999_999_999)] = 0
    jobs: Count = 1
    workers: Count = 1


class Signal(_Injection, frozen=True, tag="signal", kw_only=True):
    """A signal to the processes of workers; one that is stopped goes on after `for_ms`."""

    signal: Literal["KILL", "STOP", "TERM", "SEGV", "ABRT"]
    workers: Count = 1
    for_ms: Span = 0


class Wire(_Injection, frozen=True, tag="wire", kw_only=True):
    """The wire between the callers and the bridge has this shape for `for_ms`."""

    for_ms: Span
    delay_ms: WireNumber = 0
    jitter_ms: WireNumber = 0
    bytes_per_s: Count = 0
    piece_bytes: Count = 0
    cut_after_bytes: Count = 0
    still: bool = False

    def shape(self) -> Shape:
        return Shape(**{each.name: getattr(self, each.name) for each in fields(Shape)})


class Cut(_Injection, frozen=True, tag="cut", kw_only=True):
    """All connections of the callers are reset."""


class Suspend(_Injection, frozen=True, tag="suspend", kw_only=True):
    """The bridge and all its workers stand still for `for_ms`, as on a machine that sleeps: when
    they go on, every clock of theirs has jumped.
    """

    for_ms: Annotated[int, Meta(ge=1, le=600_000)]


class NoFiles(_Injection, frozen=True, tag="no_files", kw_only=True):
    """The bridge can open nothing more for `for_ms`."""

    for_ms: Annotated[int, Meta(ge=1, le=600_000)]


class DiskFull(_Injection, frozen=True, tag="disk_full", kw_only=True):
    """No file of the bridge takes more bytes for `for_ms`, checkpoints above all; nor can it make
    shared memory, so a worker that ends meanwhile has to wait for its successor.
    """

    for_ms: Annotated[int, Meta(ge=1, le=600_000)]


Injection = Hook | Signal | Wire | Cut | Suspend | NoFiles | DiskFull


class Expect(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What callers may see. `reasons`: of errors, while there is trouble; `failed_max`: how many of
    them; `slowest_ms_max`: of any call, 0: no bound; `back_within_ms`: when trouble is over, from
    then on all calls are answered.
    """

    reasons: tuple[str, ...] = ()
    failed_max: Count = 0
    answered_min: Count = 1
    slowest_ms_max: Span = 0
    back_within_ms: Span = 1_000


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One experiment: `callers` call `role` one after the other through three stretches of time."""

    hypothesis: Annotated[str, Meta(min_length=10)]
    role: Annotated[str, Meta(min_length=1)]
    inject: Annotated[tuple[Injection, ...], Meta(min_length=1, max_length=64)]
    payload: str = "hello"
    opcode: Annotated[int, Meta(ge=0, le=65_535)] = 0
    callers: Annotated[int, Meta(ge=1, le=1_000)] = 4
    timeout_ms: Annotated[int, Meta(ge=1, le=3_600_000)] = 10_000
    steady_ms: Annotated[int, Meta(ge=100, le=3_600_000)] = 500
    trouble_ms: Annotated[int, Meta(ge=100, le=3_600_000)] = 1_000
    settle_ms: Annotated[int, Meta(ge=100, le=3_600_000)] = 1_000
    expect: Expect = field(default_factory=Expect)

    def times_ms(self, injection: Injection) -> list[int]:
        """When it is done, from the beginning of the trouble on."""
        step = injection.every_ms
        return list(range(injection.at_ms, self.trouble_ms, step)) if step else [injection.at_ms]

    def injections(self) -> int:
        """How many there are in all."""
        return sum(len(self.times_ms(injection)) for injection in self.inject)


def read(path: Path) -> Plan:
    """Raises Refused: it cannot be read, or breaks a rule."""
    try:
        return parse(tomllib.loads(path.read_text()))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Refused(f"{path}: {error}") from error
    except ValueError as error:
        raise Refused(f"{path}: {error}") from error


def parse(document: dict[str, Any]) -> Plan:
    """Raises ValueError, which names the place."""
    plan = msgspec.convert(document, Plan)
    for number, injection in enumerate(plan.inject):
        if injection.at_ms >= plan.trouble_ms:
            raise ValueError(f"inject[{number}].at_ms is not within trouble_ms {plan.trouble_ms}")
    return plan
