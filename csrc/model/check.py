#!/usr/bin/env python3
"""Explores ring, gate, duct and seqlock, as they are and with each line of order taken away.

As they are, every execution is right; each mutation must be shown to break, else the model would
check nothing. Lines that may be weak by design are shown to be enough. Closes with
"N passed, N failed". `check.py --why` also prints how each mutation breaks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import duct
import ring_and_gate
import seqlock
from machine import ACQUIRE, RELAXED, RELEASE, Broken

Case = tuple[str, Callable[[], int], str]  # name, run, what must break ("": nothing)
Gate = ring_and_gate.Rules

LOST, EARLY, LATE = "a wake-up is lost", "a slot is read before", "a slot is written while"

# What is taken away, and what must break by it.
RING_AND_GATE: list[tuple[str, Gate, str]] = [
    ("R0 relaxed: the slot is not there when its position is", Gate(r0=RELAXED), EARLY),
    ("R0 release: not ordered before the look at the park word", Gate(r0=RELEASE), LOST),
    ("R1 relaxed: the slot is read before its position", Gate(r1=RELAXED), EARLY),
    ("R1 acquire: the second look is done before the parking shows", Gate(r1=ACQUIRE), LOST),
    ("R2 relaxed: the slot is still being read when it is free", Gate(r2=RELAXED), LATE),
    ("R3 relaxed: the slot is written before it is known to be free", Gate(r3=RELAXED), LATE),
    ("G1 relaxed: the park word is looked at too early", Gate(g1=RELAXED), LOST),
    ("G1 acquire: the park word is looked at too early", Gate(g1=ACQUIRE), LOST),
    ("G4 release: the parking shows after the second look", Gate(g4=RELEASE), LOST),
    ("G4 relaxed: the parking shows after the second look", Gate(g4=RELAXED), LOST),
    ("G5 before G4: look, then announce", Gate(look_before_announcing=True), LOST),
    (
        "G3 after G5: the bell that rang is taken for the old one",
        Gate(bell_read_after_look=True),
        LOST,
    ),
    ("no comparison of the doorbell in the futex", Gate(compare_doorbell=False), LOST),
    ("no G2: the doorbell is not bumped", Gate(bump_doorbell=False), LOST),
    ("G2 after the wake", Gate(wake_before_bump=True), LOST),
    ("one sequence for all parkings", Gate(new_sequence=False), LOST),
    ("eventfd, R0 release", Gate(eventfd=True, r0=RELEASE), LOST),
    ("eventfd, G5 before G4", Gate(eventfd=True, look_before_announcing=True), LOST),
    ("eventfd, drained between look and sleep", Gate(eventfd=True, drain_after_look=True), LOST),
    ("eventfd, one sequence for all parkings", Gate(eventfd=True, new_sequence=False), LOST),
]

# Weak by design, and enough: the comments in gate.h and gate.c say why.
ENOUGH: list[tuple[str, Gate]] = [
    ("ring and gate by futex", Gate()),
    (
        "ring and gate by eventfd (a blocked signal is the same with a count of one)",
        Gate(eventfd=True),
    ),
    ("G2 relaxed is enough: the system call after it is a full barrier", Gate(g2=RELAXED)),
    ("the eventfd and the signal need no doorbell", Gate(eventfd=True, bump_doorbell=False)),
]

TORN = "was accepted with the words"
SEQLOCK: list[tuple[str, seqlock.Rules, str]] = [
    ("seqlock", seqlock.Rules(), ""),
    ("T1 relaxed: a word shows before the odd number", seqlock.Rules(t1=RELAXED), TORN),
    ("T2 relaxed: the even number shows before the words", seqlock.Rules(t2=RELAXED), TORN),
    ("T3 relaxed: the words are read before the number", seqlock.Rules(t3=RELAXED), TORN),
    ("T4 relaxed: the number is read again before the words", seqlock.Rules(t4=RELAXED), TORN),
    ("no T0: the number is not odd meanwhile", seqlock.Rules(odd_while_writing=False), TORN),
    ("no T5: the number is not looked at again", seqlock.Rules(look_again=False), TORN),
]


Duct = duct.Rules
DUCT: list[tuple[str, Duct, str]] = [
    ("duct to the trio thread", Duct(), ""),
    ("duct to the relay", Duct(relay=True), ""),
    ("without clearing: rung more often, never too seldom", Duct(clear=False), ""),
    *(
        (f"{name}{', to the relay' if relay else ''}", replace(rules, relay=relay), breaks)
        for relay in (False, True)
        for name, rules, breaks in (
            ("D0 relaxed: a place is written while it is read", Duct(d0=RELAXED), LATE),
            ("D2 relaxed: a place is free while it is read", Duct(d2=RELAXED), LATE),
            ("D1 relaxed: the tail shows before the note", Duct(d1=RELAXED), EARLY),
            ("D1 release: not ordered before the look at parked", Duct(d1=RELEASE), LOST),
            ("D3 relaxed: the note is read before the tail", Duct(d3=RELAXED), EARLY),
            ("D3 acquire: the last look is done before parked shows", Duct(d3=ACQUIRE), LOST),
            ("D4 acquire: parked is looked at too early", Duct(d4=ACQUIRE), LOST),
            ("D5 release: parked shows after the last look", Duct(d5=RELEASE), LOST),
            ("D3 before D5: look, then announce", Duct(look_before_announcing=True), LOST),
            ("hushed between look and sleep", Duct(hush_before_sleep=True), LOST),
            (
                "cleared after the ring: over the next announcement",
                Duct(clear_after_ring=True),
                LOST,
            ),
        )
    ),
]


def cases() -> Iterator[Case]:
    for name, enough in ENOUGH:
        yield name, partial(ring_and_gate.check, enough), ""
    for name, gate, breaks in RING_AND_GATE:
        yield name, partial(ring_and_gate.check, gate), breaks
    for name, of_duct, breaks in DUCT:
        yield name, partial(duct.check, of_duct), breaks
    for name, rules, breaks in SEQLOCK:
        yield name, partial(seqlock.check, rules), breaks


def main() -> int:
    passed = failed = 0
    for name, run, breaks in cases():
        try:
            outcome, story = "", f"{run()} states"
        except Broken as broken:
            outcome, story = str(broken).splitlines()[0], str(broken)
        right = breaks in outcome if breaks else not outcome
        passed, failed = passed + right, failed + (not right)
        if not right:
            print(f"model, {name}: expected {breaks or 'no breach'}: {story}")
        elif "--why" in sys.argv:
            print(f"{name}: {story}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
