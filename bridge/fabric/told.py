"""What the relay tells, from a struct rb_event to a record of bridge.fabric.events."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from bridge.fabric import layout, structs
from bridge.fabric._core import ffi, lib
from bridge.fabric.events import (
    BreakerChanged,
    ConnectionLost,
    Event,
    JobLost,
    LaneEnded,
    LaneReady,
    Operation,
    RoleGone,
    Signal,
    Stream,
    WorkerBroke,
    WorkerEnded,
    WorkerOutput,
    WorkerReady,
    WorkerRefused,
)

_OBITUARY_CORE, _OBITUARY_OOM = 1, 2
_OPERATION = struct.Struct("<HH28s")  # struct.worker_op (csrc/layout.toml)
_ENCODINGS = {"zstd": layout.FEATURE_ZSTD}
_TAKES = {"raw": layout.TAKES_RAW, "term": layout.TAKES_TERM, "parts": layout.TAKES_PARTS}
assert _OPERATION.size == layout.WORKER_OP.size


def event(raw: Any) -> Event:
    """The record of a struct rb_event. Raises AssertionError for a kind that nobody knows."""
    data: bytes = ffi.buffer(raw.data, raw.size)[:]
    match raw.kind:
        case lib.RB_EVENT_SIGNAL:
            control = data[: raw.a]
            return Signal(raw.connection, control, data[raw.a :] or None)
        case lib.RB_EVENT_CONNECTION_LOST:
            return ConnectionLost(raw.connection, data.decode())
        case lib.RB_EVENT_WORKER_READY:
            kit, role, operations = data.split(b"\0", 2)
            return WorkerReady(
                raw.worker,
                raw.a,
                kit.decode("utf-8", "replace"),
                _version(raw.b),
                role.decode("utf-8", "replace"),
                _version(raw.c & 0xFFFFFFFF),
                tuple(_operations(operations)),
                tuple(word for word, bit in _ENCODINGS.items() if raw.c >> 32 & bit),
            )
        case lib.RB_EVENT_WORKER_REFUSED:
            return WorkerRefused(raw.worker, data.decode("utf-8", "replace"))
        case lib.RB_EVENT_WORKER_BROKE:
            return WorkerBroke(raw.worker, data.decode())
        case lib.RB_EVENT_WORKER_ENDED:
            return WorkerEnded(
                raw.worker,
                status=None if raw.a < 0 else raw.a,
                signal=raw.b or None,
                core=bool(raw.c & _OBITUARY_CORE),
                oom=bool(raw.c & _OBITUARY_OOM),
            )
        case lib.RB_EVENT_JOB_LOST:
            return JobLost(raw.worker, raw.a, structs.reasons()[raw.b], data)
        case lib.RB_EVENT_ROLE_GONE:
            return RoleGone(raw.a)
        case lib.RB_EVENT_WORKER_OUTPUT:
            stream: Stream = "stdout" if raw.a == 1 else "stderr"
            return WorkerOutput(raw.worker, stream, data, raw.b or None)
        case lib.RB_EVENT_BREAKER:
            return BreakerChanged(raw.a, raw.worker or None, data.decode())
        case lib.RB_EVENT_LANE_READY:
            return LaneReady(raw.worker, raw.connection, raw.a)
        case lib.RB_EVENT_LANE_ENDED:
            return LaneEnded(raw.worker, raw.connection, data.decode())
        case kind:
            raise AssertionError(f"unknown event kind {kind}")


def _version(word: int) -> tuple[int, int]:
    return word >> 16, word & 0xFFFF


def _operations(data: bytes) -> Iterator[Operation]:
    """The table that a worker declares; the relay has checked it."""
    for opcode, takes, name in _OPERATION.iter_unpack(data):
        words = tuple(word for word, bit in _TAKES.items() if takes & bit)
        yield Operation(opcode, name.rstrip(b"\0").decode("utf-8", "replace"), words)
