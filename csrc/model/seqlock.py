"""The telemetry block (telemetry.h, core/telemetry.c): two words under a sequence number.

The writer writes twice, the same number into both words; the reader tries twice. What it accepts
must be of one moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from machine import (
    ACQUIRE,
    END,
    RELAXED,
    RELEASE,
    Broken,
    State,
    Steps,
    explore,
    initial,
    load,
    moved,
    store,
)

WRITES, TRIES = 2, 2
SEQUENCE, FIRST, SECOND = 0, 1, 2


@dataclass(frozen=True)
class Rules:
    t0: str = RELAXED
    t1: str = RELEASE
    t2: str = RELEASE
    t3: str = ACQUIRE
    t4: str = ACQUIRE
    t5: str = RELAXED
    odd_while_writing: bool = True
    look_again: bool = True


def writer(rules: Rules) -> Steps:
    def begin(s: State, t: int) -> Iterator[State]:
        (n,) = s.threads[t].local
        if rules.odd_while_writing:
            s = store(s, t, SEQUENCE, 2 * n + 1, rules.t0)
        yield moved(s, t, at="first")

    def first(s: State, t: int) -> Iterator[State]:
        (n,) = s.threads[t].local
        yield moved(store(s, t, FIRST, n + 1, rules.t1), t, at="second")

    def second(s: State, t: int) -> Iterator[State]:
        (n,) = s.threads[t].local
        yield moved(store(s, t, SECOND, n + 1, rules.t1), t, at="finish")

    def finish(s: State, t: int) -> Iterator[State]:
        (n,) = s.threads[t].local
        s = store(s, t, SEQUENCE, 2 * n + 2, rules.t2)
        yield moved(s, t, at="begin" if n + 1 < WRITES else END, local=(n + 1,))

    return {"begin": begin, "first": first, "second": second, "finish": finish}


def reader(rules: Rules) -> Steps:
    # Private variables: tries left, sequence, the two words.
    def again(s: State, t: int) -> State:
        tries = s.threads[t].local[0] - 1
        return moved(s, t, at="sequence" if tries else END, local=(tries, 0, 0, 0))

    def sequence(s: State, t: int) -> Iterator[State]:
        for value, after in load(s, t, SEQUENCE, rules.t3):
            tries = after.threads[t].local[0]
            yield (
                again(after, t)
                if value & 1
                else moved(after, t, at="first", local=(tries, value, 0, 0))
            )

    def first(s: State, t: int) -> Iterator[State]:
        for value, after in load(s, t, FIRST, rules.t4):
            tries, number, *_ = after.threads[t].local
            yield moved(after, t, at="second", local=(tries, number, value, 0))

    def second(s: State, t: int) -> Iterator[State]:
        for value, after in load(s, t, SECOND, rules.t4):
            yield moved(after, t, at="check", local=(*after.threads[t].local[:3], value))

    def check_again(s: State, t: int) -> Iterator[State]:
        _, number, one, two = s.threads[t].local
        for value, after in load(s, t, SEQUENCE, rules.t5):
            if rules.look_again and value != number:
                yield again(after, t)
                continue
            if one != two or 2 * one != number:
                raise Broken(f"sequence {number} was accepted with the words {one} and {two}")
            yield again(after, t)

    return {"sequence": sequence, "first": first, "second": second, "check": check_again}


def check(rules: Rules) -> int:
    start = initial(3, [("begin", (0,)), ("sequence", (TRIES, 0, 0, 0))])
    return explore(start, [writer(rules), reader(rules)])
