"""What is to be beaten, DESIGN.md section 8, and which of its rows a report meets. Pure.

How a ratio is meant: of rates and medians alike ours is divided by the peer's, within a round.
"0.7 x its median" is therefore a time: at most 0.7 of the peer's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Goal:
    """A row of the table: `bar` is what must be shown, `goal` what is hoped for."""

    work: str  # the rows' own `work`
    beside: str | None
    size_bytes: int | None
    callers: int | None
    better: Literal["more", "less"]
    bar: float
    goal: float | None = None
    of: Literal["ratio", "ours"] = "ratio"

    def finds(self, row: Mapping[str, Any]) -> bool:
        return (
            row["work"] == self.work
            and row.get("beside") == self.beside
            and (self.size_bytes is None or row.get("size_bytes") == self.size_bytes)
            and (self.callers is None or row.get("callers") == self.callers)
        )

    def value(self, row: Mapping[str, Any]) -> float | None:
        if self.of == "ours":
            return row["ours"]  # type: ignore[no-any-return]
        return row["ratio"]["median"] if row["ratio"] else None

    def met(self, value: float, wanted: float | None) -> bool | None:
        if wanted is None:
            return None
        return value >= wanted if self.better == "more" else value <= wanted


RATE, MEDIAN, P99 = "plain call, rate", "plain call, median", "plain call, p99"
MIB = 1 << 20
GOALS = (
    Goal(RATE, "beam", 16, 128, "more", 2.5, 3.5),
    Goal(RATE, "ei", 16, 128, "more", 1.3, 1.6),
    Goal(MEDIAN, "beam", 16, 1, "less", 0.7),
    Goal(P99, "beam", 16, 1, "less", 1.0),
    Goal(RATE, "beam", MIB, 1, "more", 1.1, 1.17),
    Goal(RATE, "beam", MIB, 4, "more", 1.25, 1.43),
    Goal("submit_many, k = 64, 64 B, rate", "port", None, None, "more", 1.0, 2.0),
    Goal("NIF lane, 16 B, 128 callers, rate", "port", None, None, "more", 1.5, 2.0),
    Goal("NIF lane, 16 B, 1 caller, pinned apart, median", "port", None, None, "less", 1.0, 0.5),
    Goal(
        "NIF lane, 16 B, 1 caller, pinned on one CPU, median", "port", None, None, "less", 1.0, 0.5
    ),
    Goal("NIF lane, 64 KiB, 1 caller, rate", "port", None, None, "more", 4.0),
    Goal("NIF lane, 1 MiB, 1 caller, rate", "port", None, None, "more", 10.0),
    Goal("ring, there and back, CRC off", "line", None, None, "less", 3.0, 2.0),
    Goal("2 x overload, p99 of accepted", "80 % load", None, None, "less", 2.0),
    Goal("2 x overload, p99 of refusals", None, None, None, "less", 1000, of="ours"),
    # "Flat" is a word there: half as much again is what placing on so many may cost.
    Goal("CPU of the relay a job, 1,000 workers", "1 worker", None, None, "less", 1.5),
    Goal("crash to answered caller, p99", None, None, None, "less", 50, of="ours"),
    Goal("crash to a working replacement, p99", None, None, None, "less", 150, of="ours"),
    Goal("spawn to first job, p99", None, None, None, "less", 60, of="ours"),
    Goal("memory of shepherd and init, PSS", None, None, None, "less", 300, of="ours"),
    Goal("memory of a worker", None, None, None, "less", 4096, 1024, of="ours"),
)
CODEC = "codec "


def goals() -> Iterator[Goal]:
    yield from GOALS
    for way in ("decode", "encode"):
        for what in ("call", "200 maps", "3000 integers", "1 MB binary"):
            yield Goal(f"{CODEC}{way}, {what}", "msgspec MessagePack", None, None, "less", 1.5, 1.0)


def judged(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of each goal with a row: {work, value, bar, goal, met_bar, met_goal, spread}."""
    found = []
    for goal in goals():
        for row in filter(goal.finds, rows):
            value = goal.value(row)
            if value is None:
                continue
            found.append(
                {
                    "work": row["work"],
                    "size_bytes": row.get("size_bytes"),
                    "callers": row.get("callers"),
                    "beside": goal.beside,
                    "value": value,
                    "unit": "x" if goal.of == "ratio" else row["unit"],
                    "spread": row["ratio"] if goal.of == "ratio" else None,
                    "better": goal.better,
                    "bar": goal.bar,
                    "goal": goal.goal,
                    "met_bar": goal.met(value, goal.bar),
                    "met_goal": goal.met(value, goal.goal),
                }
            )
    return found
