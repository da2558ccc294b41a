"""What callers saw, and the judgement: each rule by itself, and each can fail."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.chaos.measures import Done, Report, Sample, judge, plain, quantile, stretch
from bridge.chaos.plan import Plan, parse

PLAN: dict[str, Any] = {
    "hypothesis": "nothing ever goes wrong",
    "role": "echo",
    "steady_ms": 1_000,
    "trouble_ms": 1_000,
    "settle_ms": 1_000,
    "inject": [{"what": "cut"}],
}
GOOD = [Sample(0.1 * n, 0.1 * n + 0.01, "ok") for n in range(30)]
TROUBLE_S = PLAN["trouble_ms"] / 1000
DID = [Done(1.0, "cut 1 connections")]


def plan(**expect: Any) -> Plan:
    return parse({**PLAN, "expect": expect})


def report(*more: Sample, did: list[Done] = DID, **expect: Any) -> Report:
    return judge(plan(**expect), [*GOOD, *more], did, TROUBLE_S)


def broken(of: Report) -> list[str]:
    return [verdict.rule for verdict in of.verdicts if not verdict.held]


def test_all_is_well_where_nothing_failed() -> None:
    good = report()
    assert good.held
    assert [(each.name, each.calls) for each in good.stretches] == [
        ("steady", 10),
        ("trouble", 10),
        ("settle", 10),
    ]


def test_a_call_that_trouble_met_is_of_the_trouble() -> None:
    met = report(Sample(0.9, 1.5, "late"), Sample(1.9, 2.5, "late"))
    assert [each.failed for each in met.stretches] == [0, 2, 0]


def test_a_steady_state_with_an_error_is_none() -> None:
    (rule,) = broken(report(Sample(0.1, 0.2, "busy"), reasons=["busy"], failed_max=9))
    assert rule.startswith("the steady state is one")


def test_a_steady_state_without_calls_is_none() -> None:
    rules = broken(judge(plan(), GOOD[10:], DID, TROUBLE_S))
    assert [rule.partition(":")[0] for rule in rules] == ["the steady state is one"]


NOT_DONE = Done(1.0, "no worker is ready", failed=True)


@pytest.mark.parametrize("did", [[], [NOT_DONE]])
def test_without_an_injection_nothing_was_tried(did: list[Done]) -> None:
    assert broken(report(did=did)) == ["all that the plan says was injected"]


def test_an_injection_too_few_is_one_that_was_not_tried() -> None:
    thrice = parse({**PLAN, "inject": [{"what": "cut", "every_ms": 400}]})
    assert judge(thrice, GOOD, DID * 3, TROUBLE_S).held
    few = judge(thrice, GOOD, DID * 2, TROUBLE_S)
    assert [v.seen for v in few.verdicts if not v.held] == ["2 of 3 injections"]


def test_reasons_that_the_plan_does_not_name_are_wrong_also_if_few() -> None:
    strange = report(Sample(1.2, 1.3, "strange"), reasons=["noconnection"], failed_max=9)
    assert broken(strange) == ["errors in trouble are noconnection"]
    assert [v.seen for v in strange.verdicts if not v.held] == ["1 strange"]


def test_more_failures_than_the_plan_has_are_wrong() -> None:
    two = [Sample(1.2, 1.3, "noconnection")] * 2
    assert report(*two, reasons=["noconnection"], failed_max=2).held
    few = report(*two, reasons=["noconnection"], failed_max=1)
    assert broken(few) == ["at most 1 calls fail in trouble"]


def test_too_few_answers_are_wrong() -> None:
    assert report(answered_min=10).held
    assert broken(report(answered_min=11)) == ["at least 11 are answered in trouble"]


def test_the_slowest_of_all_stretches_counts() -> None:
    slow = Sample(2.2, 2.75, "ok")
    assert report(slow, slowest_ms_max=600).held
    assert broken(report(slow, slowest_ms_max=500)) == ["no call takes more than 500 ms"]
    assert report(slow).held, "0 is no bound"


def test_who_fails_after_the_trouble_is_back_late() -> None:
    late = Sample(2.0, 2.4, "noconnection")
    assert report(late, back_within_ms=500).held
    assert len(broken(report(late, back_within_ms=300))) == 1


def test_who_is_never_answered_again_is_not_back() -> None:
    gone = judge(plan(), GOOD[:20], DID, TROUBLE_S)
    assert [v.seen for v in gone.verdicts if not v.held] == ["no call was answered again"]


def test_quantiles_are_by_nearest_rank() -> None:
    hundred = [float(n) for n in range(1, 101)]
    assert [quantile(hundred, share) for share in (0.5, 0.99, 1.0)] == [50.0, 99.0, 100.0]
    assert quantile([7.0], 0.5) == quantile([7.0], 0.99) == 7.0
    assert quantile([], 0.5) == 0.0


def test_the_figures_of_a_stretch() -> None:
    took = stretch("s", [Sample(0, 0.1, "ok"), Sample(0, 0.3, "x"), Sample(0, 0.2, "ok")], 2.0)
    assert (took.calls, took.answered, took.reasons) == (3, 2, {"x": 1})
    assert took.per_s == 1.5
    assert took.slowest_ms == pytest.approx(300)
    assert took.median_ms == pytest.approx(200)
    assert stretch("empty", [], 1.0).slowest_ms == 0.0


def test_a_report_as_json_has_all_of_it() -> None:
    whole = plain(report())
    assert whole["held"]
    assert whole["injected"] == [{"at_s": 1.0, "what": "cut 1 connections", "failed": False}]
    assert {each["name"] for each in whole["stretches"]} == {"steady", "trouble", "settle"}
    assert all(each["held"] for each in whole["verdicts"])
