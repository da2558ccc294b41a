"""One direction of a troubled connection: bytes and times in, pieces and times out. No socket.

What TCP promises still holds: each byte once and in order, or the connection is cut. Trouble is
only what a network may do with it: any delay, any boundaries between the reads, any rate down to
nothing, and an end at any byte.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, fields
from random import Random

HELD_BYTES_MAX = 1 << 20  # past it the proxy reads no further, and TCP holds the sender back
_THROTTLED_STEP_S = 0.02  # a throttled lane lets go what its rate gives in that time


@dataclass(frozen=True, slots=True)
class Shape:
    """What is done to bytes on their way. As it stands here: nothing.

    `delay_ms` plus up to `jitter_ms` count from a byte's arrival. `bytes_per_s` 0 is no limit.
    `piece_bytes`: no piece is longer, and each has a length of its own from 1 on; 0 is no limit.
    `cut_after_bytes`: the connection is reset once so many have gone in this direction; 0 is
    never. `still`: nothing goes, as if the wire were gone, and nobody is told.
    Raises ValueError for what no wire can do.
    """

    delay_ms: float = 0
    jitter_ms: float = 0
    bytes_per_s: int = 0
    piece_bytes: int = 0
    cut_after_bytes: int = 0
    still: bool = False

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"{each.name} is {value}; it has to be 0 or more")


@dataclass(frozen=True, slots=True)
class Send:
    data: bytes


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before `until`, a time in seconds; infinity: before more bytes or another shape
    come.
    """

    until: float


@dataclass(frozen=True, slots=True)
class Cut:
    """Both directions end now, without a goodbye."""


@dataclass(frozen=True, slots=True)
class End:
    """All that came has gone, and the sender has ended."""


Step = Send | Wait | Cut | End


class Lane:
    """Times are seconds of whatever clock the caller has, and never go back."""

    def __init__(self, random: Random) -> None:
        self.passed = 0  # bytes that have gone
        self.held = 0  # bytes that have come and not gone
        self._random = random
        self._pieces: deque[tuple[float, memoryview]] = deque()
        self._ended = False
        self._due = -math.inf  # of the last byte that came: none overtakes another
        self._free = -math.inf  # when the rate lets the next byte go

    @property
    def has_room(self) -> bool:
        return self.held < HELD_BYTES_MAX

    def receive_data(self, data: bytes, now: float, shape: Shape) -> None:
        """Bytes that came at `now`; b"": the sender has ended."""
        if not data:
            self._ended = True
            return
        delay_s = (shape.delay_ms + self._random.uniform(0, shape.jitter_ms)) / 1000
        self._due = max(self._due, now + delay_s)
        self._pieces.append((self._due, memoryview(data)))
        self.held += len(data)

    def next_step(self, now: float, shape: Shape) -> Step:
        """What is to be done now. A `Send` counts as done."""
        if shape.cut_after_bytes and self.passed >= shape.cut_after_bytes:
            return Cut()
        if shape.still:
            return Wait(math.inf)
        if not self._pieces:
            return End() if self._ended else Wait(math.inf)
        due, data = self._pieces[0]
        if shape.bytes_per_s:
            due = max(due, self._free)
        if due > now:
            return Wait(due)
        size = self._size(len(data), shape)
        self._take(size)
        if shape.bytes_per_s:
            self._free = max(now, self._free) + size / shape.bytes_per_s
        return Send(bytes(data[:size]))

    def _size(self, size: int, shape: Shape) -> int:
        if shape.bytes_per_s:
            size = min(size, max(1, int(shape.bytes_per_s * _THROTTLED_STEP_S)))
        if shape.piece_bytes:
            size = min(size, self._random.randint(1, shape.piece_bytes))
        if shape.cut_after_bytes:
            size = min(size, shape.cut_after_bytes - self.passed)
        return size

    def _take(self, size: int) -> None:
        due, data = self._pieces.popleft()
        if size < len(data):
            self._pieces.appendleft((due, data[size:]))
        self.held -= size
        self.passed += size
