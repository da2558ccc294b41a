"""Patterns for selective receive: terms with holes, compared as Erlang's `=:=` compares.

`(Atom("DOWN"), ref, ANY, ANY, ANY)`: a term matches itself, `ANY` matches everything, a class
(`Pid`, `int`, `Atom | Pid`) its instances, a tuple or list item by item, a dict the maps that have
at least its keys. A function is asked instead.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from enum import Enum
from typing import Any, Final

Term = Any
Predicate = Callable[[Term], bool]


class Hole(Enum):
    ANY = "any"


ANY: Final = Hole.ANY


def predicate_of(pattern: Any) -> Predicate | None:
    """What asks a message whether it matches; None for a pattern that all do."""
    if pattern is None or pattern is ANY:
        return None
    if isinstance(pattern, types.FunctionType | types.MethodType | types.BuiltinFunctionType):
        return pattern
    return lambda term: matches(pattern, term)


def matches(pattern: Any, term: Term) -> bool:
    """Whether `term` has the shape of `pattern`. 1, 1.0 and true are three different terms."""
    if pattern is ANY:
        return True
    if isinstance(pattern, type | types.UnionType):
        return isinstance(term, pattern) and (type(term) is not bool or pattern is not int)
    if isinstance(pattern, tuple | list):
        return (
            type(term) is type(pattern)
            and len(term) == len(pattern)
            and all(map(matches, pattern, term))
        )
    if isinstance(pattern, dict):
        return isinstance(term, dict) and all(
            key in term and matches(value, term[key]) for key, value in pattern.items()
        )
    return type(pattern) is type(term) and bool(pattern == term)
