"""The ring (ring.h) and the gate (gate.h, core/gate.c) as two programs for the machine.

The producer publishes ITEMS items through a ring of two slots, in batches of any size, and rings
after each; the consumer takes them, and parks when it finds nothing. The sleep may also end by
itself once (a timeout, a stray signal). Labels and orders are those of the headers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

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
PRODUCER, CONSUMER = 0, 1
TAIL, HEAD, PARK, DOORBELL, SLOT = 0, 1, 2, 3, 4
AWAKE, PARKED = 0, 1  # the low bits of a park word


@dataclass(frozen=True)
class Rules:
    """The orders of the real thing; each field changed is a mutation."""

    r0: str = SEQ_CST
    r1: str = SEQ_CST
    r2: str = RELEASE
    r3: str = ACQUIRE
    g1: str = SEQ_CST
    g2: str = RELEASE
    g3: str = ACQUIRE
    g4: str = SEQ_CST
    g6: str = RELAXED
    look_before_announcing: bool = False  # G5 before G4
    bell_read_after_look: bool = False  # G3 after G5
    compare_doorbell: bool = True  # the futex's own comparison
    bump_doorbell: bool = True  # G2
    wake_before_bump: bool = False
    new_sequence: bool = True  # one for each parking
    drain_after_look: bool = False  # the eventfd read between G5 and the sleep
    eventfd: bool = False  # the way of sleeping


# Producer's private variables, and the consumer's.
P_TAIL, P_CLAIMED, P_HEAD, P_WOKEN = range(4)
C_HEAD, C_TAIL, C_BELL, C_SEQUENCE, C_STRAYS = range(5)


def _set(s: State, t: int, at: str, **variables: int) -> State:
    local = list(s.threads[t].local)
    for name, value in variables.items():
        local[globals()[name]] = value
    return moved(s, t, at=at, local=tuple(local))


def producer(rules: Rules) -> Steps:
    def claim(s: State, t: int) -> Iterator[State]:
        tail, _, head, *_ = s.threads[t].local
        if tail - head < SLOTS:
            yield from batches(s, t)
            return
        for position, after in load(s, t, HEAD, rules.r3):
            if tail - position < SLOTS:
                yield from batches(_set(after, t, "claim", P_HEAD=position), t)

    def batches(s: State, t: int) -> Iterator[State]:
        """Slots are written, one, or as many as there is room for; then published with one store.

        One step of the machine: a race is found by clocks, not by timing, so nothing is missed by
        letting nobody come in between plain accesses and the store that follows them.
        """
        tail, claimed, head, *_ = s.threads[t].local
        if claimed > tail:
            yield _set(store(s, t, TAIL, claimed, rules.r0), t, "ring", P_TAIL=claimed)
        if claimed < ITEMS and claimed - head < SLOTS:
            s = plain_write(s, t, SLOT + claimed % SLOTS, claimed + 1)
            yield from batches(_set(s, t, "claim", P_CLAIMED=claimed + 1), t)

    def on(s: State, t: int) -> State:
        return moved(s, t, at="claim" if s.threads[t].local[P_TAIL] < ITEMS else END)

    def ring(s: State, t: int) -> Iterator[State]:
        first = "wake" if rules.wake_before_bump or not rules.bump_doorbell else "bump"
        for park, after in load(s, t, PARK, rules.g1):
            if park & 3 == AWAKE or park == after.threads[t].local[P_WOKEN]:
                yield on(after, t)
            else:
                yield _set(after, t, first, P_WOKEN=park)

    def bump(s: State, t: int) -> Iterator[State]:
        value = s.messages[DOORBELL][-1][0] + 1  # its only writer
        s = store(s, t, DOORBELL, value, rules.g2)
        yield on(s, t) if rules.wake_before_bump else moved(s, t, at="wake")

    def wake(s: State, t: int) -> Iterator[State]:
        s = enter_kernel(s, t)
        if rules.eventfd:
            s = s._replace(bell=min(s.bell + 1, 2))
        elif s.bell:
            s = moved(s._replace(bell=0), CONSUMER, at="woken")
        yield moved(s, t, at="bump") if rules.wake_before_bump else on(s, t)

    return {
        "claim": claim,
        "ring": ring,
        "bump": bump,
        "wake": wake,
    }


def consumer(rules: Rules) -> Steps:
    parking = ["bell", "park", "look again", "sleep"]
    if rules.look_before_announcing:
        parking = ["bell", "look again", "park", "sleep"]
    if rules.bell_read_after_look:
        parking = ["park", "look again", "bell", "sleep"]
    if rules.eventfd and rules.drain_after_look:
        parking.insert(-1, "drain early")
    then = dict(pairwise(parking))

    def look(s: State, t: int) -> Iterator[State]:
        head = s.threads[t].local[C_HEAD]
        for tail, after in load(s, t, TAIL, rules.r1):
            if tail > head:
                yield _set(after, t, "take", C_TAIL=tail)
            else:
                yield moved(after, t, at=parking[0])

    def bell(s: State, t: int) -> Iterator[State]:  # G3
        for value, after in load(s, t, DOORBELL, rules.g3):
            yield _set(after, t, then["bell"], C_BELL=value)

    def park(s: State, t: int) -> Iterator[State]:  # G4
        sequence = s.threads[t].local[C_SEQUENCE] + (1 if rules.new_sequence else 0)
        s = store(s, t, PARK, sequence << 2 | PARKED, rules.g4)
        yield _set(s, t, then["park"], C_SEQUENCE=sequence)

    def look_again(s: State, t: int) -> Iterator[State]:  # G5
        head = s.threads[t].local[C_HEAD]
        for tail, after in load(s, t, TAIL, rules.r1):
            yield moved(after, t, at="retract" if tail > head else then["look again"])

    def sleep_futex(s: State, t: int) -> Iterator[State]:
        s = enter_kernel(s, t)
        for value, after in load(s, t, DOORBELL, RELAXED):
            if rules.compare_doorbell and value != after.threads[t].local[C_BELL]:
                yield moved(after, t, at="retract")
            else:
                yield moved(after._replace(bell=1), t, at="asleep")

    def asleep(s: State, t: int) -> Iterator[State]:
        strays = s.threads[t].local[C_STRAYS]
        if strays:
            s = s if rules.eventfd else s._replace(bell=0)
            yield _set(s, t, "retract", C_STRAYS=strays - 1)

    def woken(s: State, t: int) -> Iterator[State]:
        yield moved(enter_kernel(s, t), t, at="retract")

    def sleep_eventfd(s: State, t: int) -> Iterator[State]:
        if s.bell:
            yield moved(enter_kernel(s, t), t, at="drain")
        yield from asleep(s, t)

    def drain(s: State, t: int) -> Iterator[State]:
        yield moved(enter_kernel(s, t)._replace(bell=0), t, at="retract")

    def drain_early(s: State, t: int) -> Iterator[State]:
        yield moved(enter_kernel(s, t)._replace(bell=0), t, at="sleep")

    def retract(s: State, t: int) -> Iterator[State]:  # G6
        sequence = s.threads[t].local[C_SEQUENCE]
        s = store(s, t, PARK, sequence << 2 | AWAKE, rules.g6)
        yield _set(s, t, "look", C_BELL=0)

    def take(s: State, t: int) -> Iterator[State]:
        """Slots are read, one, or as many as were seen; then released with one store (R2)."""
        head, tail, *_ = s.threads[t].local
        for value, after in plain_read(s, t, SLOT + head % SLOTS):
            if value != head + 1:
                raise Broken(f"item {head + 1} reads as {value}")
            after = _set(after, t, "take", C_HEAD=head + 1)
            then_at = END if head + 1 == ITEMS else "take" if head + 1 < tail else "look"
            yield moved(store(after, t, HEAD, head + 1, rules.r2), t, at=then_at)
            if head + 1 < tail:
                yield from take(after, t)

    return {
        "look": look,
        "bell": bell,
        "park": park,
        "look again": look_again,
        "sleep": sleep_eventfd if rules.eventfd else sleep_futex,
        "asleep": asleep,
        "woken": woken,
        "drain": drain,
        "drain early": drain_early,
        "retract": retract,
        "take": take,
    }


def check(rules: Rules, strays: int = 1) -> int:
    """Explores all executions. Returns the number of states; raises machine.Broken."""
    start = initial(
        SLOT + SLOTS,
        [("claim", (0, 0, 0, 0)), ("look", (0, 0, 0, 0, strays))],
        plain=SLOTS,
    )
    return explore(start, [producer(rules), consumer(rules)])
