"""Many payloads by one call: submit_many beside a Port.

port     as many packets as payloads; its C echo answers in one write all that it finds
packed   all of them in one packet, which comes back as it went: no echo of jobs any more, but
         the most that a Port can do
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from integration.bench.figures import middle, ratios, spread
from integration.cluster import Driver

K, SIZE_BYTES, CALLERS = 64, 64, 16
SIDES = ("ours", "port", "packed")

Say = Callable[[str], None]


def rows(load: Driver, say: Say, *, rounds: int, window_ms: int) -> list[dict[str, Any]]:
    """Rows beside each of the two, jobs a second; none where a side refuses."""
    rates: dict[str, list[float | None]] = {side: [] for side in SIDES}
    errors = 0
    for number in range(rounds):
        for side in SIDES if number % 2 == 0 else SIDES[::-1]:
            answer = load.ask(f"many {side} {K} {SIZE_BYTES} {CALLERS} {window_ms}")
            word, *numbers = answer.split()
            if word != "result":
                say(f"submit_many: {side} {answer}")
                return []
            jobs, wrong, us = map(int, numbers)
            errors += wrong
            rates[side].append(jobs * 1e6 / us)
    made = []
    for side in SIDES[1:]:
        row = {
            "work": f"submit_many, k = {K}, {SIZE_BYTES} B, rate",
            "beside": side,
            "ours": middle(rates["ours"]),
            "peer": middle(rates[side]),
            "unit": "jobs/s",
            "ratio": spread(ratios(rates["ours"], rates[side])),
            "errors": errors,
        }
        say(f"{row['work']}: {row['ours']} beside {row['peer']} ({side})")
        made.append(row)
    return made
