"""When a worker is started again: OTP's restart types and intensity, with backoff and jitter.

A pure core: time and randomness are arguments. One policy keeps the history of one worker.

permanent   started again whatever its end was
transient   started again unless it ended normally (exit status 0)
temporary   never started again

Each end that asks for a restart is remembered for `window_s`. With more than `max_restarts` of them
in the window the worker is given up: it breaks faster than it works, and starting it for ever would
only heat the machine. Within the window the n-th restart waits min * 2**(n-1), at most max, of
which a random half is taken off, so that workers that fell together do not start together.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

Restart = Literal["permanent", "transient", "temporary"]


@dataclass(frozen=True, slots=True)
class StartAgain:
    """Start the worker again after `delay_s`."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The intensity is used up; `why` says so in words."""

    why: str


@dataclass(frozen=True, slots=True)
class LeaveEnded:
    """The worker's restart type says that this end was its last one."""


Decision = StartAgain | GiveUp | LeaveEnded


@dataclass(slots=True)
class RestartPolicy:
    """The history of one worker's ends and what follows from it."""

    restart: Restart
    max_restarts: int
    window_s: float
    backoff_min_s: float
    backoff_max_s: float
    _ends: deque[float] = field(default_factory=deque)

    def decide(self, *, now_s: float, normal: bool, random: float) -> Decision:
        """What to do after an end at `now_s`. `normal`: exit status 0. `random` lies in [0, 1)."""
        if self.restart == "temporary" or (self.restart == "transient" and normal):
            return LeaveEnded()
        while self._ends and self._ends[0] <= now_s - self.window_s:
            self._ends.popleft()
        self._ends.append(now_s)
        count = len(self._ends)
        if count > self.max_restarts:
            return GiveUp(
                f"ended {count} times within {self.window_s:g} s; "
                f"max_restarts allows {self.max_restarts} restarts"
            )
        # 2.0 ** 1023 is the last float; the backoff has reached its maximum long before.
        longest = min(self.backoff_max_s, self.backoff_min_s * 2.0 ** min(count - 1, 1000))
        return StartAgain(longest * (1.0 - random / 2))

    def adjust(self, to: RestartPolicy) -> None:
        """Take the numbers of another policy; the history stays."""
        self.restart, self.max_restarts, self.window_s = to.restart, to.max_restarts, to.window_s
        self.backoff_min_s, self.backoff_max_s = to.backoff_min_s, to.backoff_max_s

    def forget(self) -> None:
        """Begin with a clean history: somebody who knows better asked for the worker."""
        self._ends.clear()
