"""How fast a worker's channel is read: so many packets a second, and a tenth of the thread. Pure.

A worker that sends more is not read for a while. Its socket fills, and it alone waits; nothing is
dropped, and nobody is ended for sending too much.
"""

from __future__ import annotations

from dataclasses import dataclass

SHARE = 0.1  # of the bridge's one thread that the packets of one worker may take
BURST_S = 1.0
TOOK_MAX_S = 0.1  # what one packet is counted for at most: others may have run meanwhile


@dataclass(slots=True)
class Pace:
    """A bucket that holds BURST_S of reading. Times are arguments, in seconds."""

    packets_per_s: float
    _full_at_s: float = 0.0  # when the bucket is full again

    def spend(self, now_s: float, took_s: float) -> float:
        """One packet was read, and took so long; returns how long to wait before the next."""
        cost_s = max(1 / self.packets_per_s, min(took_s, TOOK_MAX_S) / SHARE)
        self._full_at_s = max(self._full_at_s, now_s) + cost_s
        return max(0.0, self._full_at_s - now_s - BURST_S)
