"""The duct between the relay and the trio thread (relay/duct.h) as two programs for the machine.

The producer puts ITEMS notes into a ring of two places, one or several before it rings; the
consumer takes them and sleeps when it finds none. Two consumers are modelled. The trio thread
hushes the eventfd, announces that it will sleep, takes until there is none, and sleeps: it stays
announced meanwhile. The relay takes, hushes what rang, announces only around its sleep, looks once
more, and retracts. The sleep may also end by itself once (a timeout, another descriptor).

`parked` has two writers: the consumer sets it, either clears it. Their stores are explored in
every order in which they can be made; labels and orders are those of duct.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from machine import (
    ACQUIRE,
    END,
    RELAXED,
    RELEASE,
    SEQ_CST,
    Broken,
    State,
    Steps,
    enter_kernel,
    explore,
    initial,
    load,
    moved,
    plain_read,
    plain_write,
    store,
)

ITEMS, SLOTS = 3, 2
TAIL, HEAD, PARKED, SLOT = range(4)
P_TAIL, P_HEAD = range(2)  # the producer's private variables
C_HEAD, C_STRAYS, C_RUNG = range(3)  # the consumer's


@dataclass(frozen=True)
class Rules:
    """The orders of the real thing; each field changed is a mutation."""

    d0: str = ACQUIRE
    d1: str = SEQ_CST
    d2: str = RELEASE
    d3: str = SEQ_CST
    d4: str = SEQ_CST
    d5: str = SEQ_CST
    relay: bool = False  # the other of the two consumers
    clear_after_ring: bool = False
    look_before_announcing: bool = False  # D3 before D5
    hush_before_sleep: bool = False  # after the last look
    clear: bool = True  # the producer clears `parked`


def _with(s: State, t: int, at: str, variable: int, value: int) -> State:
    local = list(s.threads[t].local)
    local[variable] = value
    return moved(s, t, at=at, local=tuple(local))


def producer(rules: Rules) -> Steps:
    def put(s: State, t: int) -> Iterator[State]:
        tail, head = s.threads[t].local
        if tail - head < SLOTS:
            s = plain_write(s, t, SLOT + tail % SLOTS, tail + 1)
            s = store(s, t, TAIL, tail + 1, rules.d1)
            yield _with(s, t, "ring", P_TAIL, tail + 1)
            if tail + 1 < ITEMS:  # or another first
                yield _with(s, t, "put", P_TAIL, tail + 1)
            return
        for position, after in load(s, t, HEAD, rules.d0):
            if tail - position < SLOTS:
                yield _with(after, t, "put", P_HEAD, position)
            else:  # a full duct is an answer; its caller rings, and tries again
                yield moved(after, t, at="ring full")

    def on(s: State, t: int) -> State:
        return moved(s, t, at="put" if s.threads[t].local[P_TAIL] < ITEMS else END)

    def ring(s: State, t: int) -> Iterator[State]:
        for parked, after in load(s, t, PARKED, rules.d4):
            if not parked:
                yield on(after, t)
            elif not rules.clear or rules.clear_after_ring:
                yield moved(after, t, at="write")
            else:
                yield moved(store(after, t, PARKED, 0, RELAXED), t, at="write")

    def write(s: State, t: int) -> Iterator[State]:
        s = enter_kernel(s, t)._replace(bell=1)
        yield moved(s, t, at="clear late") if rules.clear_after_ring else on(s, t)

    def clear_late(s: State, t: int) -> Iterator[State]:
        yield on(store(s, t, PARKED, 0, RELAXED), t)

    return {
        "put": put,
        "ring": ring,
        "ring full": ring,
        "write": write,
        "clear late": clear_late,
    }


def take_from(s: State, t: int, then: str) -> Iterator[State]:
    """One note, whose place is then free (D2)."""
    head = s.threads[t].local[C_HEAD]
    for value, after in plain_read(s, t, SLOT + head % SLOTS):
        if value != head + 1:
            raise Broken(f"note {head + 1} reads as {value}")
        yield _with(after, t, END if head + 1 == ITEMS else then, C_HEAD, head + 1)


def consumer(rules: Rules) -> Steps:
    sleep_at = "hush late" if rules.hush_before_sleep else "sleep"
    first, second = ("look", "announce") if rules.look_before_announcing else ("announce", "look")

    def hush(s: State, t: int) -> Iterator[State]:
        yield moved(enter_kernel(s, t)._replace(bell=0), t, at=first)

    def hush_late(s: State, t: int) -> Iterator[State]:
        yield moved(enter_kernel(s, t)._replace(bell=0), t, at="sleep")

    def announce(s: State, t: int) -> Iterator[State]:  # D5
        at = sleep_at if rules.look_before_announcing else second
        yield moved(store(s, t, PARKED, 1, rules.d5), t, at=at)

    def look(s: State, t: int) -> Iterator[State]:  # D3, the last before the sleep
        nothing = second if rules.look_before_announcing else sleep_at
        for tail, after in load(s, t, TAIL, rules.d3):
            found = tail > after.threads[t].local[C_HEAD]
            at = ("retract" if rules.relay else "take") if found else nothing
            yield moved(after, t, at=at)

    def sleep(s: State, t: int) -> Iterator[State]:
        strays = s.threads[t].local[C_STRAYS]
        awake = "retract" if rules.relay else "hush"
        if s.bell:
            yield _with(enter_kernel(s, t), t, awake, C_RUNG, 1)
        if strays:
            yield _with(s, t, awake, C_STRAYS, strays - 1)

    def take(s: State, t: int) -> Iterator[State]:
        for after in take_from(s, t, "again" if rules.relay else "look"):
            yield store(after, t, HEAD, after.threads[t].local[C_HEAD], rules.d2)

    # The relay: it takes all that there is, and hushes what woke it behind that.
    def retract(s: State, t: int) -> Iterator[State]:
        yield moved(store(s, t, PARKED, 0, RELAXED), t, at="again")

    def again(s: State, t: int) -> Iterator[State]:
        rung = s.threads[t].local[C_RUNG]
        for tail, after in load(s, t, TAIL, rules.d3):
            if tail > after.threads[t].local[C_HEAD]:
                yield moved(after, t, at="take")
            else:
                yield _with(after, t, "hush" if rung else first, C_RUNG, 0)

    return {
        "hush": hush,
        "hush late": hush_late,
        "announce": announce,
        "look": look,
        "sleep": sleep,
        "take": take,
        "retract": retract,
        "again": again,
    }


def check(rules: Rules, strays: int = 1) -> int:
    """Explores all executions. Returns the number of states; raises machine.Broken."""
    begin = "again" if rules.relay else "hush"
    start = initial(SLOT + SLOTS, [("put", (0, 0)), (begin, (0, strays, 0))], plain=SLOTS)
    return explore(start, [producer(rules), consumer(rules)])
