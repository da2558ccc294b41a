"""The option list of a spawn request: what of it concerns us, and whether a BEAM would take it.

A BEAM refuses a request with an option that it does not know or whose value is out of range, by
`badopt` in place of a pid; what is taken and what is refused here was compared with OTP 25 to 29
option by option. Heap sizes, priorities and the like are taken and mean nothing to us.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bridge.etf import Atom, Map

Term = Any

_SMALL_MAX = 2**59 - 1  # the greatest integer that a 64-bit BEAM keeps in one word
_MAX_HEAP_MIN = 233  # words: a BEAM's smallest heap
_SCHEDULERS_MAX = 1024
_PRIORITIES = frozenset({"low", "normal", "high", "max"})
_QUEUE_DATA = frozenset({"on_heap", "off_heap"})


@dataclass(frozen=True, slots=True)
class SpawnOptions:
    link: bool = False
    monitor: bool = False


def parse_options(options: Term) -> SpawnOptions | None:
    """What the options ask for; None: refuse the request with `badopt`."""
    if not isinstance(options, list):
        return None
    link = monitor = False
    for option in options:
        match option:
            case Atom("link"):
                link = True
            case Atom("monitor") | (Atom("monitor"), list()):
                monitor = True
            case (Atom(name), value) if name in _VALUES and _VALUES[name](value):
                pass
            case _:
                return None
    return SpawnOptions(link, monitor)


def _is_small(value: Term, least: int = 0, most: int = _SMALL_MAX) -> bool:
    return type(value) is int and least <= value <= most


def _is_max_heap_size(value: Term) -> bool:
    if isinstance(value, dict | Map):
        flags = (value.get(Atom(name), True) for name in ("kill", "error_logger"))
        return _is_heap_words(value.get(Atom("size"))) and all(type(flag) is bool for flag in flags)
    return _is_heap_words(value)


def _is_heap_words(value: Term) -> bool:
    return _is_small(value, least=_MAX_HEAP_MIN) or (type(value) is int and value == 0)


def _is_one_of(names: frozenset[str]) -> Callable[[Term], bool]:
    return lambda value: isinstance(value, Atom) and value.name in names


_VALUES: dict[str, Callable[[Term], bool]] = {
    "priority": _is_one_of(_PRIORITIES),
    "min_heap_size": _is_small,
    "min_bin_vheap_size": _is_small,
    "fullsweep_after": _is_small,
    "max_heap_size": _is_max_heap_size,
    "message_queue_data": _is_one_of(_QUEUE_DATA),
    "scheduler": lambda value: _is_small(value, most=_SCHEDULERS_MAX),
    "async_dist": lambda value: type(value) is bool,  # since OTP 26
}
