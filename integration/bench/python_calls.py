"""A Python process beside a BEAM's: calls that it answers, calls that it makes, links, monitors.

The two sides take turns within a round, as everywhere here: `python` is a node of bridge.node
without workers, `beam` the plainest GenServer of another BEAM.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from integration.bench.figures import FIGURES, Cell, Sample, middle, ratios, spread, values
from integration.cluster import Driver

SIDES = ("python", "beam")
CELLS = (Cell(16, 1), Cell(16, 128))
HELD = 10_000

Say = Callable[[str], None]


def rows(load: Driver, say: Say, *, rounds: int, window_ms: int) -> list[dict[str, Any]]:
    """Rows beside `beam`, with the python node's figure as `ours`."""
    answered = [row for cell in CELLS for row in _answered(load, say, cell, rounds, window_ms)]
    called = [row for callers in (1, 128) for row in _called(load, say, callers, rounds, window_ms)]
    return [*answered, *called, *_ends(load, say, rounds)]


def _answered(
    load: Driver, say: Say, cell: Cell, rounds: int, window_ms: int
) -> list[dict[str, Any]]:
    taken: dict[str, list[Sample | None]] = {side: [] for side in SIDES}
    for number in range(rounds):
        for side in _turn(number):
            answer = load.ask(f"run {side} {cell.size_bytes} {cell.callers} {window_ms}")
            taken[side].append(Sample.parse(answer))
    made = []
    for figure in FIGURES:
        ours, peer = (values(figure, taken[side]) for side in SIDES)
        if middle(ours) is not None:
            work = f"{figure.work.replace('plain', 'Python-answered')}, {cell}"
            errors = sum(sample.errors for sample in taken["python"] if sample)
            made.append({**_row(work, figure.unit, ours, peer), "errors": errors})
    for row in made:
        say(f"{row['work']}: {row['ours']} beside {row['peer']} {row['unit']}")
    return made


def _called(
    load: Driver, say: Say, callers: int, rounds: int, window_ms: int
) -> list[dict[str, Any]]:
    """`node.call` from trio tasks to a BEAM, beside a BEAM's processes that call the same."""
    rates: dict[str, list[float | None]] = {side: [] for side in SIDES}
    medians: dict[str, list[float | None]] = {side: [] for side in SIDES}
    for number in range(rounds):
        for side in _turn(number):
            if side == "python":
                answer = load.ask(f"calls_out {callers} {window_ms}").split()
                rates[side].append(int(answer[1]) * 1e3 / window_ms)
                medians[side].append(int(answer[2]) / 1e3)
            else:
                sample = Sample.parse(load.ask(f"run beam 16 {callers} {window_ms}"))
                rates[side].append(sample.rate if sample else None)
                medians[side].append(sample.median_ns / 1e3 if sample else None)
    made = [_row(f"call from Python, rate, {Cell(16, callers)}", "calls/s", *rates.values())]
    if callers == 1:
        made.append(_row("call from Python, median, 16 B, 1 caller", "us", *medians.values()))
    for row in made:
        say(f"{row['work']}: {row['ours']} beside {row['peer']} {row['unit']}")
    return made


def _ends(load: Driver, say: Say, rounds: int) -> list[dict[str, Any]]:
    """One process ends that so many others are linked with and watch, each both."""
    held: dict[str, list[float | None]] = {side: [] for side in SIDES}
    broken: dict[str, list[float | None]] = {side: [] for side in SIDES}
    for number in range(rounds):
        for side in _turn(number):
            word, *numbers = load.ask(f"ends {side} {HELD}").split()
            hold_us, break_us, arrived = map(int, numbers) if word == "result" else (0, 0, 0)
            whole = arrived == 2 * HELD
            held[side].append(hold_us / 1e3 if whole else None)
            broken[side].append(break_us / 1e3 if whole else None)
    both = f"{HELD:,} links and {HELD:,} monitors"
    made = [
        _row(f"{both}, made", "ms", *held.values()),
        _row(f"{both}, all ends heard", "ms", *broken.values()),
    ]
    for row in made:
        say(f"{row['work']}: {row['ours']} beside {row['peer']} {row['unit']}")
    return made


def _turn(number: int) -> tuple[str, ...]:
    return SIDES if number % 2 == 0 else SIDES[::-1]


def _row(
    work: str, unit: str, ours: list[float | None], peer: list[float | None]
) -> dict[str, Any]:
    return {
        "work": work,
        "beside": "beam",
        "ours": middle(ours),
        "peer": middle(peer),
        "unit": unit,
        "ratio": spread(ratios(ours, peer)),
    }
