"""Where the time of one call goes, hop by hop, each with the way it was measured.

Measured from outside, one caller, 16 B, by the difference of calls that go further and further:

    refused     BEAM -> socket -> relay -> socket -> BEAM   a role that does not exist
    queue_us    relay -> ring -> worker has begun           as the answer's `detail` says
    run_us      begun -> completed                          the same
    echo        all of it                                   what remains is the way back
"""

from __future__ import annotations

from typing import Any

from integration.bench.figures import rounded
from integration.cluster import Driver

CALLS = 2000


def measure(load: Driver) -> list[dict[str, Any]]:
    """Rows {hop, us, how}; empty when our side does not run."""
    return _by_difference(load)


def _by_difference(load: Driver) -> list[dict[str, Any]]:
    refused = _median_us(load.ask(f"round_trip refused {CALLS}"))
    echo = _median_us(load.ask(f"round_trip echo {CALLS}"))
    if refused is None or echo is None:
        return []
    hops = [
        ("caller to relay and back", refused, "median round trip of a call that the relay refuses"),
        ("whole call through a worker", echo, "median round trip of a 16 B echo"),
        (
            "relay to worker and back",
            echo - refused,
            "difference of the two: relay to ring, ring to worker, and back",
        ),
    ]
    word, *detail = load.ask(f"detail {CALLS}").split()
    if word == "result":
        queue, run = map(float, detail)
        hops += [
            ("relay to ring to worker", queue, "queue_us of the answer's detail, median"),
            ("in the worker", run, "run_us of the answer's detail, median"),
            ("worker to ring to relay", echo - refused - queue - run, "what remains"),
        ]
    return [{"hop": hop, "us": rounded(us), "how": how} for hop, us, how in hops]


def _median_us(answer: str) -> float | None:
    word, *numbers = answer.split()
    return int(numbers[0]) / 1e3 if word == "result" else None
