"""Where the time of one call goes, hop by hop, each with the way it was measured.

The relay's own clock is the better witness: it times some of its jobs at each step. What it does
not see is measured from outside, one caller, 16 B, by the difference of calls that go further and
further:

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
CLOCK = "the relay's clock, average over its timed jobs of these calls"
# Steps that the relay times, in the order of a call's way.
STEPS = {
    "socket_to_queue_us": "socket to relay: read, parsed, queued",
    "queue_to_ring_us": "relay to ring",
    "ring_to_answer_us": "ring to worker and back to the relay",
    "worker_run_us": "  of that: in the worker's handler",
    "answer_to_socket_us": "relay to socket: answer written",
}


def measure(load: Driver) -> list[dict[str, Any]]:
    """Rows {hop, us, how}; empty when our side does not run."""
    refused = _median_us(load.ask(f"round_trip refused {CALLS}"))
    echo = _median_us(load.ask(f"round_trip echo {CALLS}"))
    if refused is None or echo is None:
        return []
    rows = [
        _row("whole call through a worker", echo, "median round trip of a 16 B echo, one caller"),
        _row("caller to relay and back", refused, "median round trip of a call that is refused"),
    ]
    word, *averages = load.ask(f"hops {CALLS}").split()
    if word != "result":
        return rows + _by_difference(load, echo - refused)
    known = {name: float(us) for name, us in (pair.split("=") for pair in averages)}
    rows += [_row(step, known[name], CLOCK) for name, step in STEPS.items() if name in known]
    inside = sum(us for name, us in known.items() if name != "worker_run_us")
    how = "what remains of the whole call: two socket hops and the caller's BEAM"
    return [*rows, _row("caller to socket, both ways", echo - inside, how)]


def _by_difference(load: Driver, beyond_relay: float) -> list[dict[str, Any]]:
    rows = [_row("relay to worker and back", beyond_relay, "difference of the two")]
    word, *detail = load.ask(f"detail {CALLS}").split()
    if word == "result":
        queue, run = map(float, detail)
        rows += [
            _row("relay to ring to worker", queue, "queue_us of the answer's detail, median"),
            _row("in the worker", run, "run_us of the answer's detail, median"),
            _row("worker to ring to relay", beyond_relay - queue - run, "what remains"),
        ]
    return rows


def _row(hop: str, us: float, how: str) -> dict[str, Any]:
    return {"hop": hop, "us": rounded(us), "how": how}


def _median_us(answer: str) -> float | None:
    word, *numbers = answer.split()
    return int(numbers[0]) / 1e3 if word == "result" else None
