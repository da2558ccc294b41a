"""What a worker writes to stdout and stderr, cut into lines and bounded: a pure core.

A worker is free to flood its stderr; the log is not. Lines are cut at LINE_BYTES_MAX, at most
LINES_PER_SECOND of them pass, and how many did not is told once the flood is over. What it wrote
last is kept whole, whatever of it passed: `Tail`, for the report of its crash.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

LINE_BYTES_MAX = 4_096
LINES_PER_SECOND = 200
TAIL_BYTES_MAX = 65_536


class Line(NamedTuple):
    """A line, and the job in whose course it began, as far as that is known."""

    text: str
    job: int | None


@dataclass(slots=True)
class LineCutter:
    """One stream of one worker. Time is an argument."""

    _rest: bytes = b""
    _job: int | None = None  # of the unfinished line
    _second: int = 0
    _passed: int = 0
    _dropped: int = 0

    def feed(self, data: bytes, now_s: float, job: int | None = None) -> list[Line]:
        """The whole lines that `data` completes; an overlong line is cut into several."""
        lines: list[Line] = []
        begun = self._job if self._rest else job
        *whole, rest = (self._rest + data).split(b"\n")
        while len(rest) >= LINE_BYTES_MAX:
            whole.append(rest[:LINE_BYTES_MAX])
            rest = rest[LINE_BYTES_MAX:]
        for line in whole:
            lines += self._admit(line, begun, now_s)
            begun = job
        self._rest, self._job = rest, begun
        return lines

    def finish(self, now_s: float) -> list[Line]:
        """The unfinished last line, and how many lines were dropped, at the end of the stream."""
        lines = self._admit(self._rest, self._job, now_s) if self._rest else []
        self._rest = b""
        return lines + self._told_drops()

    def _admit(self, line: bytes, job: int | None, now_s: float) -> list[Line]:
        lines: list[Line] = []
        if int(now_s) != self._second:
            lines = self._told_drops()
            self._second, self._passed = int(now_s), 0
        if self._passed >= LINES_PER_SECOND:
            self._dropped += 1
            return lines
        self._passed += 1
        text = line[:LINE_BYTES_MAX].decode("utf-8", "replace").rstrip("\r")
        return [*lines, Line(text, job)]

    def _told_drops(self) -> list[Line]:
        dropped, self._dropped = self._dropped, 0
        words = f"({dropped} lines were dropped: too many in a second)"
        return [Line(words, None)] if dropped else []


@dataclass(slots=True)
class Tail:
    """The last bytes of what was added, TAIL_BYTES_MAX at most; `forgotten`: how many came before.

    Adding costs no more than what is added: whole pieces are dropped, and the first one is cut when
    it is read.
    """

    bytes_max: int = TAIL_BYTES_MAX
    _pieces: deque[bytes] = field(default_factory=deque)
    _size: int = 0
    _added: int = 0

    def add(self, data: bytes) -> None:
        self._added += len(data)
        if data := data[-self.bytes_max :]:
            self._pieces.append(data)
            self._size += len(data)
        while self._pieces and self._size - len(self._pieces[0]) >= self.bytes_max:
            self._size -= len(self._pieces.popleft())

    def read(self) -> bytes:
        return b"".join(self._pieces)[-self.bytes_max :]

    @property
    def forgotten(self) -> int:
        return max(0, self._added - self.bytes_max)
