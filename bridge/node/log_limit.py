"""A few log lines per key and window, however often a peer makes the same trouble."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

EVERY_S = 10.0
KEYS_MAX = 1024  # the least recently seen is forgotten first: its next line comes a little early


class LogLimit:
    """Says whether a line about `key` is due: `lines` of them in `every_s`. `now` is a clock in
    seconds.
    """

    def __init__(
        self,
        *,
        every_s: float = EVERY_S,
        lines: int = 1,
        keys_max: int = KEYS_MAX,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._every_s = every_s
        self._lines = lines
        self._keys_max = keys_max
        self._now = now
        self._seen: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()

    def due(self, key: Hashable) -> int | None:
        """How many lines were held back since the last one if one is due now, else None."""
        now = self._now()
        since, asked = self._seen.pop(key, (now, 0))
        held_back = max(0, asked - self._lines)
        if now - since >= self._every_s:
            since, asked = now, 0
        else:
            held_back = 0
        self._seen[key] = (since, asked + 1)
        if len(self._seen) > self._keys_max:
            self._seen.popitem(last=False)
        return held_back if asked < self._lines else None
