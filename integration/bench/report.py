"""What a run found, in words and plots: goals first, every figure, then what explains a miss."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from integration.bench import svg, table
from integration.bench.figures import PEERS, Cell, Samples, size_text
from integration.bench.goals import judged

FOLDER = Path(__file__).parent / "report"
MARK = {True: "yes", False: "no", None: "-"}


def write(report: Mapping[str, Any], text: Sequence[str]) -> Path:
    """latest.json, latest.txt and plots. Returns their folder."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "latest.json").write_text(json.dumps(report, indent=1) + "\n")
    (FOLDER / "latest.txt").write_text("\n".join(text) + "\n")
    for old in FOLDER.glob("*.svg"):  # of a run with other rows
        old.unlink()
    for name, drawn in plots(report).items():
        (FOLDER / f"{name}.svg").write_text(drawn)
    return FOLDER


def lines(
    report: Mapping[str, Any], cells: Mapping[Cell, Samples], sides: Sequence[str]
) -> Iterator[str]:
    here = report["machine"]
    yield (
        f"{here['cpus']} x {here['model']}, Linux {here['kernel']}, OTP {here['otp']}, "
        f"Python {here['python']}, load average {here['load_average_1min']}"
    )
    known = [line["median_ns"] for line in report["cache_line_round_trip_ns"] if line]
    if known:
        spread = f"{min(known):.0f} to {max(known):.0f} ns over the rounds"
        yield f"cache line from core to core and back: {spread}"
    yield from (f"  {table.SHORT[side]:<5} {PEERS[side]}" for side in sides if side in PEERS)
    if report["goals"]:
        yield ""
        yield from goal_lines(report["goals"])
    if cells:
        yield ""
        yield from table.lines_of(cells, sides)
    others = [row for row in report["rows"] if not str(row["work"]).startswith("plain call")]
    if others:
        yield "Other work (ours beside the peer, ratio)"
        yield from map(table.row_line, others)
    yield from cost_lines(report["costs"], report["bounds"])
    if report["hops"]:
        yield "\nWhere the time of one 16 B call goes"
        yield from (f"  {h['hop']:<40} {h['us']:>8.1f} us   {h['how']}" for h in report["hops"])


def goal_lines(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield f"{'goal':<48} {'beside':<20} {'found':>22} {'bar':>7} {'met':>4} {'goal':>7} {'met':>4}"
    for row in found:
        sign = ">=" if row["better"] == "more" else "<="
        goal = "-" if row["goal"] is None else f"{row['goal']:g}"
        value = (
            table.ratio_text(row["spread"]) if row["spread"] else f"{row['value']:g} {row['unit']}"
        )
        yield (
            f"{what(row):<48} {row['beside'] or '':<20} {value:>22} "
            f"{sign + format(row['bar'], 'g'):>7} "
            f"{MARK[row['met_bar']]:>4} {goal:>7} {MARK[row['met_goal']]:>4}"
        )


def what(row: Mapping[str, Any]) -> str:
    if row.get("callers"):
        return f"{row['work']}, {Cell(row['size_bytes'], row['callers'])}"
    return (
        f"{row['work']}, {size_text(row['size_bytes'])}"
        if row.get("size_bytes")
        else str(row["work"])
    )


def cost_lines(
    costs: Sequence[Mapping[str, Any]], bounds: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    if not costs:
        return
    yield "\nCPU time of a call, by the kernel's account (us)"
    for row in costs:
        yield (
            f"  {row['cell']:<20} {table.SHORT[row['side']]:<6} "
            f"caller's VM {row['caller_us']:>8.1f}   "
            f"who answers {row['callee_us']:>8.1f}   {row['rate']:>9,.0f} calls/s"
        )
    for bound in bounds:
        yield (
            f"  {bound['cell']}: this VM could call a callee that costs nothing "
            f"{bound['rate']:,.0f} times a second, {bound['ratio']:.2f} x "
            f"{table.SHORT[bound['beside']]}"
        )


def plots(report: Mapping[str, Any]) -> dict[str, str]:
    made = {}
    rows = []
    for row in report["goals"]:
        less = row["better"] == "less"
        reached = row["bar"] / row["value"] if less else row["value"] / row["bar"]
        goal = row["goal"] and (row["bar"] / row["goal"] if less else row["goal"] / row["bar"])
        rows.append((what(row), reached, 1.0, goal, bool(row["met_bar"])))
    if rows:
        made["goals"] = svg.bars("What is to be beaten", rows)
    for row in report["rows"]:
        if "curve" not in row:
            continue
        name = str(row["work"]).rsplit(" ", 1)[1]
        points = [(float(point["count"]), float(point["relay_us"])) for point in row["curve"]]
        made[name] = svg.lines(
            f"The relay's CPU time a job by {name}", name, "us a job", [("relay", points)]
        )
    return made


def made_of(
    machine: Mapping[str, Any],
    plan: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    **parts: Any,
) -> dict[str, Any]:
    """The report as it is written: `parts` are the lists that only some rows of a run give."""
    empty: dict[str, Any] = {"cache_line_round_trip_ns": [], "hops": [], "costs": [], "bounds": []}
    return {
        "machine": dict(machine),
        "plan": dict(plan),
        "beside": PEERS,
        **empty,
        **parts,
        "rows": list(rows),
        "goals": judged(rows),
    }
