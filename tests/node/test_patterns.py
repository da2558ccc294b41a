"""Patterns of a selective receive."""

from __future__ import annotations

from typing import Any

import pytest
from router_support import YOU

from bridge.etf import Atom, Pid
from bridge.node import ANY
from bridge.node.process.patterns import matches, predicate_of


@pytest.mark.parametrize(
    ("pattern", "term", "yes"),
    [
        (Atom("a"), Atom("a"), True),
        (Atom("a"), Atom("b"), False),
        (Atom("a"), b"a", False),
        (1, 1, True),
        (1, 1.0, False),  # =:=, not ==
        (1, True, False),
        (int, True, False),
        (int, 3, True),
        (bool, True, True),
        (Pid, YOU, True),
        (Pid | Atom, Atom("a"), True),
        (ANY, {}, True),
        ((Atom("x"), ANY, Pid), (Atom("x"), 1, YOU), True),
        ((Atom("x"), ANY), (Atom("x"), 1, YOU), False),
        ((1, 2), [1, 2], False),
        ([1, ANY], [1, 2], True),
        ({Atom("k"): int}, {Atom("k"): 1, Atom("more"): 2}, True),
        ({Atom("k"): int}, {}, False),
        ({}, [], False),
        (None, None, True),
    ],
)
def test_matches(pattern: Any, term: Any, yes: bool) -> None:
    assert matches(pattern, term) is yes


def test_a_function_is_asked_and_a_class_is_not_called() -> None:
    assert predicate_of(lambda term: term == 1)(1)  # type: ignore[misc]
    assert predicate_of(int)("1") is False  # type: ignore[misc]
    assert predicate_of(None) is None
    assert predicate_of(ANY) is None
