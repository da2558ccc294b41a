"""The printed table: sizes and callers down, sides across, ratios to each peer with spread."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from integration.bench.figures import (
    FIGURES,
    OURS,
    Cell,
    Figure,
    Sample,
    Samples,
    middle,
    ratios,
    spread,
    values,
)

SHORT = {OURS: "ours", "beam": "BEAM", "ei": "ei", "port": "Port"}


FORMS = {"calls/s": "{:,.0f}", "us": "{:,.1f}"}


def lines_of(results: Mapping[Cell, Samples], sides: Sequence[str]) -> Iterator[str]:
    """A block for each figure that at least one cell gives (round trips: those with one caller)."""
    for figure in FIGURES:
        cells = {
            cell: samples
            for cell, samples in results.items()
            if any(middle(values(figure, taken)) for taken in samples.values())
        }
        if cells:
            yield f"{figure.work}, {figure.unit}"
            yield from _block(figure, cells, sides)
            yield ""


def _block(figure: Figure, cells: Mapping[Cell, Samples], sides: Sequence[str]) -> Iterator[str]:
    peers = [side for side in sides if side != OURS] if OURS in sides else []
    heads = [" " * 20, *(SHORT[side].rjust(10) for side in sides)]
    yield "  ".join([*heads, *(f"ours/{SHORT[peer]}".rjust(18) for peer in peers)])
    for cell, samples in cells.items():
        columns = [str(cell).ljust(20)]
        for side in sides:
            known = middle(values(figure, samples[side]))
            text = "-" if known is None else FORMS[figure.unit].format(known)
            columns.append((text + _mark(samples[side])).rjust(10))
        for peer in peers:
            between = ratios(values(figure, samples[OURS]), values(figure, samples[peer]))
            columns.append(ratio_text(spread(between)).rjust(18))
        yield "  ".join(columns)


def _mark(samples: Sequence[Sample | None]) -> str:
    """ "!" where calls were answered with an error, "x" where none was answered."""
    if None in samples:
        return "x"
    return "!" if any(s.errors for s in samples if s) else ""


def ratio_text(ratio: Mapping[str, float] | None) -> str:
    if ratio is None:
        return "-"
    low, middle, high = (
        f"{ratio[key]:.2f}" if ratio[key] >= 0.1 else f"{ratio[key]:.2g}"
        for key in ("min", "median", "max")
    )
    return f"{middle} ({low}..{high})"


def row_line(row: Mapping[str, Any]) -> str:
    """One row of another benchmark (the codec's, for instance) as a line."""
    what = f"{row['work']}, {row['size_bytes']:,} B" if row.get("size_bytes") else str(row["work"])
    beside = "" if row["peer"] is None else f" beside {row['peer']}"
    values = f"{row['ours']}{beside} {row['unit']}"
    return (
        f"{what:<50} {values:<34} {ratio_text(row['ratio']):<20} {row.get('beside') or ''}".rstrip()
    )
