"""Plots of a report as SVG: rows against their bar and goal, and lines over a logarithmic axis.

By hand, because these two are all that is needed and a plotting library is forty times the size of
the bench. Pure: text in, text out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

WIDTH, ROW, LEFT, TOP = 860, 26, 330, 60
COLOURS = ("#1b6ca8", "#c8553d", "#4a7c59", "#8a6fae", "#b08900")
STYLE = (
    "text{font:13px sans-serif;fill:#222}.t{font-size:16px;font-weight:bold}.s{fill:#666}"
    ".axis{stroke:#999}.bar{stroke:#c8553d;stroke-width:2}.goal{stroke:#4a7c59;stroke-width:2;"
    "stroke-dasharray:4 3}"
)


def bars(title: str, rows: Sequence[tuple[str, float, float, float | None, bool]]) -> str:
    """Rows (what, reached, bar, goal, met), all as shares of the bar: right of 1 is met."""
    most = max([1.5, *(min(row[1], 4.0) for row in rows), *(row[3] or 0 for row in rows)]) * 1.05
    height = TOP + ROW * len(rows) + 40
    scale = (WIDTH - LEFT - 80) / most
    parts = [
        _text(16, 26, title, "t"),
        _text(16, 46, "1 is the bar, the dashed line the goal; longer is better", "s"),
    ]
    for number, (what, reached, bar, goal, met) in enumerate(rows):
        y = TOP + ROW * number
        length = min(reached, most) * scale
        colour = COLOURS[0] if met else "#b9c6cf"
        parts.append(_text(LEFT - 8, y + 15, what, anchor="end"))
        parts.append(
            f'<rect x="{LEFT}" y="{y + 3}" width="{length:.1f}" height="{ROW - 9}" '
            f'fill="{colour}"/>'
        )
        parts.append(_text(LEFT + length + 6, y + 15, f"{reached:.2f}", "s"))
        parts.append(_line(LEFT + bar * scale, y, LEFT + bar * scale, y + ROW - 3, "bar"))
        if goal is not None:
            parts.append(_line(LEFT + goal * scale, y, LEFT + goal * scale, y + ROW - 3, "goal"))
    return _document(height, parts)


def lines(
    title: str,
    x_name: str,
    y_name: str,
    curves: Sequence[tuple[str, Sequence[tuple[float, float]]]],
) -> str:
    """Curves (name, points) over a logarithmic x; y from 0."""
    xs = [x for _name, points in curves for x, _y in points]
    ys = [y for _name, points in curves for _x, y in points]
    left, right, top, bottom = 80, WIDTH - 160, TOP + 10, 340
    low, high = math.log10(min(xs)), math.log10(max(xs))
    most = max(ys) * 1.1 or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        along = (math.log10(x) - low) / (high - low) if high > low else 0.5
        return left + along * (right - left), bottom - y / most * (bottom - top)

    parts = [
        _text(16, 26, title, "t"),
        _text(16, 46, y_name, "s"),
        _line(left, bottom, right, bottom, "axis"),
        _line(left, top, left, bottom, "axis"),
        _text((left + right) / 2, bottom + 40, x_name, "s", anchor="middle"),
    ]
    parts += [
        _text(place(x, 0)[0], bottom + 18, f"{x:,.0f}", anchor="middle") for x in sorted(set(xs))
    ]
    for share in (0, 0.5, 1):
        y = most / 1.1 * share
        parts.append(_text(left - 8, place(min(xs), y)[1] + 4, f"{y:,.4g}", anchor="end"))
    for number, (name, points) in enumerate(curves):
        colour = COLOURS[number % len(COLOURS)]
        placed = [place(x, y) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in placed]
        end = placed[-1]
        parts.append(_text(end[0] + 10, end[1] + 4, name))
    return _document(bottom + 60, parts)


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def _document(height: float, parts: Sequence[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}">',
            f"<style>{STYLE}</style>",
            '<rect width="100%" height="100%" fill="#fff"/>',
            *parts,
            "</svg>\n",
        ]
    )
