"""Who wants to hear of changes, and what each has not heard yet: a pure core.

Changes have keys; of each key a watcher is told the newest value only, in the order in which the
keys changed first. So what waits for a slow watcher is bounded by the number of keys, and by
`pending_max`: past that all of it is dropped, and he is told that he has missed something.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

W = TypeVar("W", bound=Hashable)
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

WATCHERS_MAX = 256
WATCHERS_OF_GROUP_MAX = 32
PENDING_MAX = 1_024


class Full(Exception):
    """No watcher more; the text names the bound."""


@dataclass(slots=True)
class _Watching(Generic[K, V]):
    group: str
    pending: dict[K, V] = field(default_factory=dict)
    missed: bool = False


@dataclass(frozen=True, slots=True)
class Batch(Generic[V]):
    """`missed`: changes before these were dropped."""

    changes: list[V]
    missed: bool


class WatchList(Generic[W, K, V]):
    """The watchers. `group`: a bound holds for each of them, too (a watcher's node)."""

    def __init__(
        self,
        *,
        watchers_max: int = WATCHERS_MAX,
        of_group_max: int = WATCHERS_OF_GROUP_MAX,
        pending_max: int = PENDING_MAX,
    ) -> None:
        self._watchers_max = watchers_max
        self._of_group_max = of_group_max
        self._pending_max = pending_max
        self._watching: dict[W, _Watching[K, V]] = {}

    def __len__(self) -> int:
        return len(self._watching)

    def __contains__(self, watcher: W) -> bool:
        return watcher in self._watching

    def add(self, watcher: W, group: str) -> None:
        """From now on it hears of changes; one that does already goes on. Raises Full."""
        if watcher in self._watching:
            return
        if len(self._watching) >= self._watchers_max:
            raise Full(f"{self._watchers_max} watchers are the most")
        if sum(other.group == group for other in self._watching.values()) >= self._of_group_max:
            raise Full(f"{self._of_group_max} watchers are the most of one node, {group} has them")
        self._watching[watcher] = _Watching(group)

    def remove(self, watcher: W) -> None:
        self._watching.pop(watcher, None)

    def changed(self, key: K, value: V) -> list[W]:
        """Note a change for all. Returns those that had nothing to hear before."""
        woken = []
        for watcher, its in self._watching.items():
            if not its.pending and not its.missed:
                woken.append(watcher)
            its.pending[key] = value
            if len(its.pending) > self._pending_max:
                its.pending.clear()
                its.missed = True
        return woken

    def take(self, watcher: W) -> Batch[V] | None:
        """What the watcher is to be told now; None: nothing."""
        its = self._watching.get(watcher)
        if its is None or not (its.pending or its.missed):
            return None
        batch = Batch(list(its.pending.values()), its.missed)
        its.pending, its.missed = {}, False
        return batch
