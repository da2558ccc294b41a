"""The rules, one module a chapter; docs/workers-conformance.md has the list."""

from __future__ import annotations

from workers.conformance.bench import Rule
from workers.conformance.rules import (
    asking,
    beyond,
    compressed,
    ending,
    faults,
    health,
    hello,
    leftovers,
    room,
    serving,
    serving_others,
    state,
    streams,
    waking,
)

CHAPTERS = tuple(
    module.CHAPTER
    for module in (
        *(hello, serving, room, streams, ending, health, waking),
        *(beyond, state, asking, serving_others),
        *(faults, leftovers, compressed),
    )
)
RULES: tuple[Rule, ...] = tuple(rule for chapter in CHAPTERS for rule in chapter.rules)
