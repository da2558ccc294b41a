"""From samples to figures: one row for each thing measured and each peer beside it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

OURS = "ours"
PEERS = {
    "beam": "GenServer.call from BEAM to BEAM",
    "ei": "a C node on OTP's ei, echo in process",
    "port": "a GenServer's {packet, 4} Port, C echo",
}


@dataclass(frozen=True, order=True)
class Cell:
    """One load: `callers` closed loops, each with one echo of `size_bytes` under way."""

    size_bytes: int
    callers: int

    def __str__(self) -> str:
        callers = "caller" if self.callers == 1 else "callers"
        return f"{size_text(self.size_bytes)}, {self.callers} {callers}"


@dataclass(frozen=True)
class Sample:
    """What one side did in one window of one cell."""

    calls: int
    errors: int
    window_us: int
    median_ns: int
    p99_ns: int

    @property
    def rate(self) -> float:
        return self.calls * 1e6 / self.window_us

    @classmethod
    def parse(cls, answer: str) -> Sample | None:
        """The load generator's line; None where the side refused the call."""
        word, *numbers = answer.split()
        return cls(*map(int, numbers)) if word == "result" else None


# Of each side one sample for each round: samples[i] of all sides were taken one after the other.
Samples = Mapping[str, Sequence[Sample | None]]


@dataclass(frozen=True)
class Figure:
    work: str
    unit: str
    of: Callable[[Sample], float]  # 0 where the sample gives none


FIGURES = (
    Figure("plain call, rate", "calls/s", lambda sample: sample.rate),
    Figure("plain call, median", "us", lambda sample: sample.median_ns / 1e3),
    Figure("plain call, p99", "us", lambda sample: sample.p99_ns / 1e3),
)


def values(figure: Figure, samples: Sequence[Sample | None]) -> list[float | None]:
    """The figure in each round, None where there is none."""
    return [(figure.of(sample) or None) if sample else None for sample in samples]


def ratios(ours: Sequence[float | None], peer: Sequence[float | None]) -> list[float]:
    """Taken within a round: what the machine did just then is in both terms."""
    return [a / b for a, b in zip(ours, peer, strict=True) if a and b]


def rows_of(cell: Cell, samples: Samples) -> list[dict[str, Any]]:
    """The rows of one cell: each figure beside each peer that ran."""
    rows = []
    ours = samples.get(OURS, [None] * max(map(len, samples.values())))
    for figure in FIGURES:
        for peer in (side for side in samples if side != OURS):
            a, b = values(figure, ours), values(figure, samples[peer])
            row = {
                "work": figure.work,
                "size_bytes": cell.size_bytes,
                "callers": cell.callers,
                "beside": peer,
                "ours": middle(a),
                "peer": middle(b),
                "unit": figure.unit,
                "ratio": spread(ratios(a, b)),
                "errors": sum(sample.errors for sample in ours if sample),
            }
            if row["ours"] is not None or row["peer"] is not None:
                rows.append(row)
    return rows


def middle(taken: Iterable[float | None]) -> float | None:
    known = [value for value in taken if value]
    return rounded(median(known)) if known else None


def spread(between: Sequence[float]) -> dict[str, float] | None:
    if not between:
        return None
    return {
        "min": rounded(min(between)),
        "median": rounded(median(between)),
        "max": rounded(max(between)),
    }


def single(
    work: str, beside: str | None, ours: float, peer: float | None, unit: str
) -> dict[str, Any]:
    """A row of one measurement each; its ratio has no spread."""
    ratio = rounded(ours / peer) if peer else None
    return {
        "work": work,
        "beside": beside,
        "ours": rounded(ours),
        "peer": None if peer is None else rounded(peer),
        "unit": unit,
        "ratio": None if ratio is None else {"min": ratio, "median": ratio, "max": ratio},
    }


def rounded(value: float) -> float:
    """Four digits: more would be noise."""
    return float(f"{value:.4g}")


def size_text(size: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} B"
