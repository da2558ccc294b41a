"""Lanes as the core knows them: what they are made of, what they carried (relay.h, lane.h)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import Final

from bridge.fabric._core import ffi, lib

# How many workers the list has places for: telemetry_workers_max of csrc/lane.toml.
PLACES_MAX: Final[int] = lib.RB_LISTED_MAX


@dataclass(frozen=True, slots=True)
class LaneConfig:
    """struct rb_lane_config: `slots` and the number of result blocks are powers of two.

    `rings`: of requests, with `slots` and `arena_bytes` each; the last one is shared.
    """

    lane: int
    rings: int
    slots: int
    arena_bytes: int
    result_bytes: int
    result_block_bytes: int


class ListedState(IntEnum):
    """A worker's state as BEAMs with a lane read it (csrc/lane.toml)."""

    NONE = 0  # nobody has this place
    STARTING = 1
    READY = 2
    DRAINING = 3
    RESTARTING = 4
    DRAINED = 5
    GIVEN_UP = 6
    FINISHED = 7
    STOPPED = 8


@dataclass(frozen=True, slots=True)
class ListedWorker:
    """struct rb_listed_worker. `worker`: the id of its present life, or of the last one."""

    worker: int = 0
    state: ListedState = ListedState.NONE
    index: int = 0
    os_pid: int = 0  # 0: it has none
    restarts: int = 0
    kit: str = ""  # "": it has not greeted
    role: str = ""


@dataclass(frozen=True, slots=True)
class LaneStats:
    """Of one lane. `open`: requests without an answer; `kept_bytes`: answers that wait for room in
    its result region; `wakes`: how often its BEAM was rung; `lent_blocks`: of the region, that the
    BEAM holds.
    """

    connection: int
    pid: int
    open: int
    requests: int
    answered: int
    dropped: int
    cancelled: int
    bytes_in: int
    bytes_out: int
    kept_bytes: int
    wakes: int
    lent_blocks: int


@dataclass(frozen=True, slots=True)
class LaneLayout:
    """What both ends of a lane must have been built with (csrc/lane.toml)."""

    version: int
    digest: bytes

    @property
    def words(self) -> str:
        return f"{self.version >> 16}.{self.version & 0xFFFF}"


@cache
def lane_layout() -> LaneLayout:
    digest = bytes(ffi.buffer(lib.rb_lane_digest(), lib.RB_LANE_DIGEST_BYTES))
    return LaneLayout(lib.rb_lane_version(), digest)
