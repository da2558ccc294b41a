"""What may be wanted of a worker, and by whom: words that its story and its supervisors share."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from bridge.workers.handshake_driver import RolePlan
from bridge.workers.restart_policy import Decision


class Wanted(Enum):
    RUN = "run"
    RESTART = "restart"
    DRAIN = "drain"
    STOP = "stop"
    # Of its siblings' supervisor only:
    HOLD = "hold"  # end, and wait for the others
    QUIT = "quit"  # end for good: they are given up together


class Fellow(Protocol):
    """A worker as its siblings' supervisor sees it."""

    id: int
    index: int
    plan: RolePlan

    def told(self, wanted: Wanted) -> None: ...
    def __hash__(self) -> int: ...


class Siblings(Protocol):
    """Its siblings' supervisor as a worker sees it: bridge/workers/together.py."""

    def leave(self, worker: Fellow) -> None: ...
    def come_back(self, worker: Fellow) -> None: ...
    def fell(self, worker: Fellow, *, normal: bool) -> Decision | None: ...
    def fell_alone(self, worker: Fellow, *, given_up: str | None) -> None: ...
    def up(self, worker: Fellow) -> None: ...
    def gone(self, worker: Fellow) -> None: ...
