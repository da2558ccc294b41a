"""Recordings of what crosses between the relay and the world, and replays of them (docs/replay.md).

A recording holds payloads and answers as they were: its file is its owner's alone to read.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from bridge.fabric import structs
from bridge.fabric._core import ffi, lib

MIB = 1 << 20


class RecordingError(Exception):
    """A recording that cannot begin, or a file that cannot be replayed. Told in one line."""


@dataclass(frozen=True, slots=True)
class Recording:
    """Where to. The file must not exist; what waits for the disk is bounded too: a power of two."""

    path: Path
    file_bytes_max: int = 1024 * MIB
    buffer_bytes: int = 64 * MIB


class RecordEnd(IntEnum):
    STOPPED = 0
    FILE_FULL = 1
    DISK_SLOW = 2  # what waited for it was more than `buffer_bytes`
    WRITE_FAILED = 3
    NO_MEMORY = 4

    @property
    def words(self) -> str:
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True, slots=True)
class RecordFigures:
    """How far a recording is. `over`: nothing is added. `done`: the file is whole and closed."""

    bytes: int
    over: int
    done: int
    end: int
    failed: int  # errno of writing, or 0


@dataclass(frozen=True, slots=True)
class RelayCounts:
    """What the relay had counted when its record ended."""

    accepted: int
    in_flight: int
    answered: dict[str, int]
    refused: dict[str, int]
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True, slots=True)
class Replayed:
    """A second run: `difference` is "" when all that left was, byte for byte, what had left."""

    rounds: int
    items: int
    bytes: int
    end: RecordEnd
    difference: str
    stats: RelayCounts


def replay(path: Path) -> Replayed:
    """Run a recording again, without sockets and workers, to its end or the first difference.

    It takes about as long as the relay worked in it, and blocks that long.
    Raises RecordingError: no such file, no recording, or one of another version of the relay.
    """
    result = ffi.new("struct rb_replay *")
    code = lib.rb_replay(os.fsencode(path), result)
    words = ffi.string(result.words).decode(errors="replace")
    if code < 0:
        raise RecordingError(f"{path}: {words or os.strerror(-code)}")
    return Replayed(
        result.rounds,
        result.items,
        result.bytes,
        RecordEnd(result.end),
        words if result.differs else "",
        structs.record(RelayCounts, result.stats),
    )
