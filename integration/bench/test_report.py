"""What a run's rows become: goals met or missed, the bound of any callee, and plots that parse."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from integration.bench import report, svg
from integration.bench.costs import bound_of, cpus
from integration.bench.figures import single
from integration.bench.goals import goals, judged


def call(work: str, beside: str, callers: int, ratio: float, size: int = 16) -> dict[str, Any]:
    row = single(work, beside, ratio, 1.0, "calls/s")
    return {**row, "size_bytes": size, "callers": callers}


def test_of_a_rate_more_is_better_and_of_a_time_less() -> None:
    rate, median = judged(
        [
            call("plain call, rate", "beam", 128, 2.6),
            call("plain call, median", "beam", 1, 0.69),
        ]
    )
    assert (rate["met_bar"], rate["met_goal"]) == (True, False)
    assert (median["met_bar"], median["goal"]) == (True, None)
    (missed,) = judged([call("plain call, median", "beam", 1, 0.71)])
    assert not missed["met_bar"]


def test_a_goal_is_of_its_own_size_peer_and_number_of_callers_only() -> None:
    other = [
        call("plain call, rate", "beam", 127, 9.0),
        call("plain call, rate", "port", 128, 9.0),
        call("plain call, rate", "beam", 128, 9.0, size=17),
    ]
    assert judged(other) == []


def test_a_row_that_was_not_measured_is_no_goal_met() -> None:
    row = {**call("plain call, rate", "beam", 128, 1.0), "ratio": None}
    assert judged([row]) == []


def test_a_goal_without_a_peer_is_of_the_figure_itself() -> None:
    (memory,) = judged([single("memory of a worker", None, 1500.0, None, "KiB")])
    assert (memory["value"], memory["met_bar"], memory["met_goal"]) == (1500.0, True, False)


def test_every_goal_says_which_side_of_its_bar_is_better() -> None:
    for goal in goals():
        assert goal.goal is None or goal.met(goal.goal, goal.bar)


def test_a_callee_that_costs_nothing_leaves_all_cpus_to_the_calling_vm() -> None:
    rows = [
        {"side": "ours", "cell": "c", "rate": 80_000.0, "caller_us": 20.0, "callee_us": 3.0},
        {"side": "beam", "cell": "c", "rate": 50_000.0, "caller_us": 17.0, "callee_us": 13.0},
    ]
    bound = bound_of(rows, "beam")
    assert bound is not None
    assert bound["rate"] == pytest.approx(cpus() * 50_000)
    assert bound["ratio"] == pytest.approx(cpus(), rel=1e-3)
    assert bound_of(rows, "ei") is None


def test_plots_are_well_formed_and_take_any_name() -> None:
    bars = svg.bars("a < b & c", [("x <y>", 0.5, 1.0, None, False), ("z", 7.0, 1.0, 1.4, True)])
    curve = svg.lines("t", "workers", "us", [("relay", [(1, 0.5), (1000, 2.0)])])
    for text in (bars, curve, svg.lines("t", "x", "y", [("one point", [(10, 0.0)])])):
        assert ElementTree.fromstring(text).tag.endswith("svg")


def test_a_report_of_nothing_still_prints() -> None:
    machine = {
        "cpus": 2,
        "model": "m",
        "kernel": "k",
        "otp": "25",
        "python": "3.11",
        "load_average_1min": 0.0,
    }
    made = report.made_of(machine, {}, [])
    assert report.plots(made) == {}
    assert next(iter(report.lines(made, {}, ()))).startswith("2 x m")
