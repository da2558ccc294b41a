"""Runs rules and tells their verdicts, as they come or as JSON at the end."""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Protocol, TextIO

from workers.conformance.bench import Bench, Rule
from workers.conformance.jobs import Broke, NotHere, NotOffered

PATIENCE_S = 10.0


class Verdict(StrEnum):
    """How a rule ended. NOT_HERE: it cannot be tried on this machine or layout."""

    KEPT = "kept"
    BROKEN = "broken"
    NOT_OFFERED = "not offered"
    NOT_HERE = "not tried"


@dataclass(frozen=True)
class Outcome:
    number: int
    title: str
    verdict: Verdict
    why: str
    seconds: float


def try_rule(rule: Rule, argv: Sequence[str], patience_s: float) -> Outcome:
    """One rule, with workers of its own. An error of the battery itself counts as broken."""
    return try_on(rule, Bench(argv, patience_s))


def try_on(rule: Rule, bench: Bench) -> Outcome:
    """The same on a bench, which is closed then."""
    begin = time.monotonic()
    verdict, why = Verdict.KEPT, ""
    try:
        rule.attempt(bench)
    except Broke as error:
        verdict, why = Verdict.BROKEN, str(error)
    except NotOffered as error:
        verdict, why = Verdict.NOT_OFFERED, str(error)
    except NotHere as error:
        verdict, why = Verdict.NOT_HERE, str(error)
    except Exception:
        verdict, why = Verdict.BROKEN, "the battery failed: " + traceback.format_exc()
    finally:
        bench.close()
    return Outcome(rule.number, rule.title, verdict, why, time.monotonic() - begin)


MARKS = {
    Verdict.KEPT: "kept",
    Verdict.BROKEN: "BROKEN",
    Verdict.NOT_OFFERED: "not offered",
    Verdict.NOT_HERE: "not tried",
}


class Titled(Protocol):
    """A rule, as far as it is told of."""

    @property
    def number(self) -> int: ...
    @property
    def title(self) -> str: ...
    @property
    def chapter(self) -> str: ...


class Teller:
    """Writes one line a rule, the running one too where the output is a terminal."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._live = out.isatty()
        self._chapter = ""

    def begins(self, rule: Titled) -> None:
        if rule.chapter != self._chapter:
            self._chapter = rule.chapter
            self._out.write(f"\n{rule.chapter}\n")
        if self._live:
            self._out.write(f"{rule.number:4}  ...          {rule.title}")
        self._out.flush()

    def ended(self, outcome: Outcome) -> None:
        start = "\r\x1b[K" if self._live else ""
        mark = MARKS[outcome.verdict]
        self._out.write(f"{start}{outcome.number:4}  {mark:<12} {outcome.title}\n")
        for line in outcome.why.splitlines():
            self._out.write(f"                   {line}\n")
        self._out.flush()


def outcomes_of(
    rules: Sequence[Rule], argv: Sequence[str], patience_s: float, jobs: int, teller: Teller
) -> Iterator[Outcome]:
    """Each rule's outcome, in order; `jobs` at once, each in a process, as the battery forks."""
    if jobs == 1:
        for rule in rules:
            teller.begins(rule)
            yield try_rule(rule, argv, patience_s)
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        tried = [pool.submit(try_rule, rule, argv, patience_s) for rule in rules]
        for rule, outcome in zip(rules, tried, strict=True):
            teller.begins(rule)
            yield outcome.result()


def run(
    rules: Sequence[Rule],
    argv: Sequence[str],
    *,
    patience_s: float = PATIENCE_S,
    jobs: int = 1,
    strict: bool = False,
    as_json: bool = False,
) -> int:
    """Try them all. 0: none is broken (`strict`: and all are offered); 1 otherwise."""
    teller = Teller(sys.stderr if as_json else sys.stdout)
    outcomes = []
    for outcome in outcomes_of(rules, argv, patience_s, jobs, teller):
        teller.ended(outcome)
        outcomes.append(outcome)
    return told(outcomes, argv, strict=strict, as_json=as_json)


def told(outcomes: Sequence[Outcome], argv: Sequence[str], *, strict: bool, as_json: bool) -> int:
    """Sum them up; returns the exit status."""
    failing = {Verdict.BROKEN, Verdict.NOT_OFFERED} if strict else {Verdict.BROKEN}
    failed = sum(outcome.verdict in failing for outcome in outcomes)
    if as_json:
        print(json.dumps({"worker": list(argv), "rules": [asdict(o) for o in outcomes]}, indent=1))
    else:
        counts = {mark: sum(o.verdict is v for o in outcomes) for v, mark in MARKS.items()}
        words = ", ".join(f"{n} {mark.lower()}" for mark, n in counts.items() if n)
        print(f"\n{' '.join(argv)}: {words}")
    return 1 if failed else 0
