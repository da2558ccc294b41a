"""What a worker writes to stdout and stderr, cut into lines and bounded: a pure core.

A worker is free to flood its stderr; the log is not. Lines are cut at LINE_BYTES_MAX, at most
LINES_PER_SECOND of them pass, and how many did not is told once the flood is over.
"""

from __future__ import annotations

from dataclasses import dataclass

LINE_BYTES_MAX = 4_096
LINES_PER_SECOND = 200


@dataclass(slots=True)
class LineCutter:
    """One stream of one worker. Time is an argument."""

    _rest: bytes = b""
    _second: int = 0
    _passed: int = 0
    _dropped: int = 0

    def feed(self, data: bytes, now_s: float) -> list[str]:
        """The whole lines that `data` completes; an overlong line is cut into several."""
        lines: list[str] = []
        *whole, self._rest = (self._rest + data).split(b"\n")
        while len(self._rest) >= LINE_BYTES_MAX:
            whole.append(self._rest[:LINE_BYTES_MAX])
            self._rest = self._rest[LINE_BYTES_MAX:]
        for line in whole:
            lines += self._admit(line, now_s)
        return lines

    def finish(self, now_s: float) -> list[str]:
        """The unfinished last line, and how many lines were dropped, at the end of the stream."""
        lines = self._admit(self._rest, now_s) if self._rest else []
        self._rest = b""
        return lines + self._told_drops()

    def _admit(self, line: bytes, now_s: float) -> list[str]:
        lines: list[str] = []
        if int(now_s) != self._second:
            lines = self._told_drops()
            self._second, self._passed = int(now_s), 0
        if self._passed >= LINES_PER_SECOND:
            self._dropped += 1
            return lines
        self._passed += 1
        lines.append(line[:LINE_BYTES_MAX].decode("utf-8", "replace").rstrip("\r"))
        return lines

    def _told_drops(self) -> list[str]:
        dropped, self._dropped = self._dropped, 0
        return [f"({dropped} lines were dropped: too many in a second)"] if dropped else []
