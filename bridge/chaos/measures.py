"""What callers saw, stretch by stretch, and whether that is what the plan believes. Pure.

Of the steady state are calls that ended before the trouble began, to settle belong those that began
when it was over: all others met it. Times are in seconds from the beginning of the steady state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.chaos.plan import Plan

OK = "ok"


@dataclass(frozen=True, slots=True)
class Sample:
    """One call: when it began and ended, and `ok`, or the reason of its error."""

    began_s: float
    ended_s: float
    outcome: str


@dataclass(frozen=True, slots=True)
class Done:
    """Something was injected, or why it was not."""

    at_s: float
    what: str
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of the run, in figures."""

    name: str
    calls: int
    answered: int
    reasons: dict[str, int]
    per_s: float
    median_ms: float
    p99_ms: float
    slowest_ms: float

    @property
    def failed(self) -> int:
        return self.calls - self.answered


@dataclass(frozen=True, slots=True)
class Verdict:
    rule: str
    seen: str
    held: bool


@dataclass(frozen=True, slots=True)
class Report:
    hypothesis: str
    stretches: tuple[Stretch, ...]
    injected: tuple[Done, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def held(self) -> bool:
        return all(verdict.held for verdict in self.verdicts)


def judge(
    plan: Plan, samples: Sequence[Sample], injected: Sequence[Done], trouble_s: float
) -> Report:
    """The whole of what came of it. `trouble_s`: how long the trouble was."""
    steady_s = plan.steady_ms / 1000
    over_s = steady_s + trouble_s
    before = [sample for sample in samples if sample.ended_s < steady_s]
    after = [sample for sample in samples if sample.began_s >= over_s]
    during = [s for s in samples if s.ended_s >= steady_s and s.began_s < over_s]
    stretches = (
        stretch("steady", before, steady_s),
        stretch("trouble", during, trouble_s),
        stretch("settle", after, plan.settle_ms / 1000),
    )
    verdicts = (
        *_tried(plan, stretches[0], injected),
        *_expected(plan, stretches),
        _back(plan, after, over_s),
    )
    return Report(plan.hypothesis, stretches, tuple(injected), verdicts)


def stretch(name: str, samples: Sequence[Sample], long_s: float) -> Stretch:
    """The figures of one; milliseconds are 0 where there is no call."""
    took_ms = sorted((sample.ended_s - sample.began_s) * 1000 for sample in samples)
    reasons = Counter(sample.outcome for sample in samples if sample.outcome != OK)
    return Stretch(
        name,
        calls=len(samples),
        answered=len(samples) - reasons.total(),
        reasons=dict(reasons.most_common()),
        per_s=len(samples) / long_s,
        median_ms=quantile(took_ms, 0.5),
        p99_ms=quantile(took_ms, 0.99),
        slowest_ms=took_ms[-1] if took_ms else 0.0,
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest that `share` of them do not pass (nearest rank); 0 of none."""
    if not ordered:
        return 0.0
    rank = -(-len(ordered) * share // 1)  # rounded up
    return ordered[max(0, int(rank) - 1)]


def _tried(plan: Plan, steady: Stretch, injected: Sequence[Done]) -> Iterable[Verdict]:
    """Without these nothing was tried, whatever callers saw."""
    yield Verdict(
        "the steady state is one: calls, and all of them answered",
        f"{steady.answered} of {steady.calls} answered",
        steady.calls > 0 and steady.failed == 0,
    )
    failed = [done for done in injected if done.failed]
    wanted = plan.injections()
    yield Verdict(
        "all that the plan says was injected",
        failed[0].what if failed else f"{len(injected)} of {wanted} injections",
        len(injected) == wanted and not failed,
    )


def _expected(plan: Plan, stretches: Sequence[Stretch]) -> Iterable[Verdict]:
    expect, trouble = plan.expect, stretches[1]
    strange = {word: n for word, n in trouble.reasons.items() if word not in expect.reasons}
    yield Verdict(
        f"errors in trouble are {', '.join(expect.reasons) or 'none'}",
        ", ".join(f"{n} {word}" for word, n in (strange or trouble.reasons).items()) or "none",
        not strange,
    )
    yield Verdict(
        f"at most {expect.failed_max} calls fail in trouble",
        str(trouble.failed),
        trouble.failed <= expect.failed_max,
    )
    yield Verdict(
        f"at least {expect.answered_min} are answered in trouble",
        str(trouble.answered),
        trouble.answered >= expect.answered_min,
    )
    if expect.slowest_ms_max:
        slowest = max(each.slowest_ms for each in stretches)
        yield Verdict(
            f"no call takes more than {expect.slowest_ms_max} ms",
            f"{slowest:.0f} ms",
            slowest <= expect.slowest_ms_max,
        )


def _back(plan: Plan, after: Sequence[Sample], over_s: float) -> Verdict:
    """From when on, after the trouble, no call fails any more; and some come."""
    within_s = plan.expect.back_within_ms / 1000
    failed = [sample for sample in after if sample.outcome != OK]
    back_s = max((sample.ended_s for sample in failed), default=over_s) - over_s
    good = any(s.outcome == OK and s.began_s >= over_s + back_s for s in after)
    seen = f"after {back_s * 1000:.0f} ms" if good else "no call was answered again"
    rule = f"all are answered again {plan.expect.back_within_ms} ms after the trouble"
    return Verdict(rule, seen, good and back_s <= within_s)


def plain(report: Report) -> dict[str, Any]:
    """The report as JSON knows it."""
    return {
        "hypothesis": report.hypothesis,
        "held": report.held,
        "stretches": [
            {name: getattr(each, name) for name in Stretch.__slots__} for each in report.stretches
        ],
        "injected": [
            {name: getattr(each, name) for name in Done.__slots__} for each in report.injected
        ],
        "verdicts": [
            {name: getattr(each, name) for name in Verdict.__slots__} for each in report.verdicts
        ],
    }
