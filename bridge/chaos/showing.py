"""A report for people: figures, what was done when, and the judgement."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from bridge.chaos.measures import Report


def show(report: Report, console: Console) -> None:
    console.print(f"Hypothesis: {report.hypothesis}\n", markup=False, highlight=False)
    figures = Table(box=None, pad_edge=False)
    for name in ("", "calls", "answered", "a second", "median ms", "p99 ms", "slowest ms"):
        figures.add_column(name, justify="right" if name else "left")
    figures.add_column("errors")
    for each in report.stretches:
        figures.add_row(
            each.name,
            str(each.calls),
            str(each.answered),
            f"{each.per_s:.0f}",
            *(f"{ms:.2f}" for ms in (each.median_ms, each.p99_ms, each.slowest_ms)),
            ", ".join(f"{count} {reason}" for reason, count in each.reasons.items()),
        )
    console.print(figures)
    console.print()
    for done in report.injected:
        how = "NOT DONE: " if done.failed else ""
        console.print(f"{done.at_s:8.3f} s  {how}{done.what}", markup=False, highlight=False)
    console.print()
    for verdict in report.verdicts:
        mark = "held  " if verdict.held else "FAILED"
        console.print(f"{mark}  {verdict.rule}: {verdict.seen}", markup=False, highlight=False)
    console.print("\nthe hypothesis held" if report.held else "\nthe hypothesis did NOT hold")
