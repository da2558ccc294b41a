"""watch_list.py: what each watcher is told, held against a model that remembers everything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bridge.workers.watch_list import Batch, Full, WatchList

PENDING_MAX = 3


class Watching(RuleBasedStateMachine):
    """All changes since a watcher's last batch are remembered here, and cut down when it asks."""

    def __init__(self) -> None:
        super().__init__()
        self.subject: WatchList[int, str, int] = WatchList(
            watchers_max=4, of_group_max=2, pending_max=PENDING_MAX
        )
        self.heard: dict[int, list[tuple[str, int]]] = {}
        self.groups: dict[int, str] = {}
        self.value = 0

    @rule(watcher=st.integers(0, 6), group=st.sampled_from("ab"))
    def add(self, watcher: int, group: str) -> None:
        others = [g for w, g in self.groups.items() if w != watcher]
        if watcher not in self.heard and (len(others) >= 4 or others.count(group) >= 2):
            with pytest.raises(Full):
                self.subject.add(watcher, group)
            return
        self.subject.add(watcher, group)
        self.heard.setdefault(watcher, [])
        self.groups.setdefault(watcher, group)

    @rule(watcher=st.integers(0, 6))
    def remove(self, watcher: int) -> None:
        self.subject.remove(watcher)
        self.heard.pop(watcher, None)
        self.groups.pop(watcher, None)

    @rule(key=st.sampled_from("pqrst"))
    def change(self, key: str) -> None:
        self.value += 1
        woken = self.subject.changed(key, self.value)
        assert woken == [w for w, heard in self.heard.items() if not heard]
        for heard in self.heard.values():
            heard.append((key, self.value))

    @precondition(lambda self: self.heard)
    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        watcher = data.draw(st.sampled_from(sorted(self.heard)))
        heard, self.heard[watcher] = self.heard[watcher], []
        missed, since = False, dict[str, int]()
        for key, value in heard:
            since[key] = value
            if len(since) > PENDING_MAX:
                missed, since = True, {}
        expected = Batch(list(since.values()), missed) if heard else None
        assert self.subject.take(watcher) == expected
        assert self.subject.take(watcher) is None

    @invariant()
    def all_are_there(self) -> None:
        assert len(self.subject) == len(self.heard)
        assert all(watcher in self.subject for watcher in self.heard)


TestWatching = Watching.TestCase


@given(st.integers(1, 50))
def test_a_slow_watcher_is_told_the_newest_of_each_key_once(changes: int) -> None:
    watchers: WatchList[str, str, int] = WatchList()
    watchers.add("slow", "node")
    for value in range(changes):
        watchers.changed("a" if value % 2 else "b", value)
    batch = watchers.take("slow")
    assert batch is not None
    assert sorted(batch.changes) == list(range(max(0, changes - 2), changes))
    assert not batch.missed


def test_nobody_is_told_of_what_was_before() -> None:
    watchers: WatchList[str, str, int] = WatchList()
    assert watchers.changed("a", 1) == []
    watchers.add("late", "node")
    assert watchers.take("late") is None
