"""One log line per key and window, however often a peer makes the same trouble."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

EVERY_S = 10.0
KEYS_MAX = 1024  # the least recently seen is forgotten first: its next line comes a little early


class LogLimit:
    """Says whether a line about `key` is due. `now` is a clock in seconds."""

    def __init__(
        self,
        *,
        every_s: float = EVERY_S,
        keys_max: int = KEYS_MAX,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._every_s = every_s
        self._keys_max = keys_max
        self._now = now
        self._seen: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()

    def due(self, key: Hashable) -> int | None:
        """How many lines were held back since the last one if one is due now, else None."""
        now = self._now()
        since, held = self._seen.get(key, (None, 0))
        if since is not None and now - since < self._every_s:
            self._seen[key] = (since, held + 1)
            self._seen.move_to_end(key)
            return None
        self._seen[key] = (now, 0)
        self._seen.move_to_end(key)
        if len(self._seen) > self._keys_max:
            self._seen.popitem(last=False)
        return held
