"""The list of workers that BEAMs with a lane read: who has which place, as workers come and go."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.fabric import structs
from bridge.fabric._core import lib
from bridge.fabric.lanes import ListedState, ListedWorker
from bridge.fabric.relay import cut
from bridge.lanes import listing as listing_module
from bridge.lanes.listing import Listing, listed
from bridge.workers.worker import State


class Relay:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.places: dict[int, ListedWorker] = {}
        self.hidden = 0
        self.errors: list[Sequence[tuple[int, str]]] = []
        self.full = False

    def list_worker(self, place: int, worker: ListedWorker) -> None:
        if self.full:
            raise OSError(errno.ENOMEM, "no memory")
        if worker.state is ListedState.NONE:
            del self.places[place]
        else:
            self.places[place] = worker

    def list_hidden(self, workers: int) -> None:
        self.hidden = workers

    def list_errors(self, errors: Sequence[tuple[int, str]]) -> None:
        self.errors.append(errors)

    def ids(self) -> list[int]:
        return [self.places[place].worker for place in sorted(self.places)]


class Worker:
    """As much of one as is listed."""

    def __init__(self, **about: Any) -> None:
        self.__dict__ |= about


class Supervisor:
    """Tells its observers as the real one does: of one that is gone after it has gone."""

    def __init__(self) -> None:
        self.workers: list[Any] = []
        self.observers: list[Callable[[Any], None]] = []
        self.reports: list[Any] = []
        self.crashes = SimpleNamespace(newest_first=lambda: list(reversed(self.reports)))

    def add(self, id_: int, **about: Any) -> Any:
        known = {"state": State.STARTING, "index": 0, "os_pid": None, "restarts": 0, "kit": None}
        worker = Worker(id=id_, plan=SimpleNamespace(name="echo"), **{**known, **about})
        self.workers.append(worker)
        self.tell(worker)
        return worker

    def remove(self, worker: Any) -> None:
        self.workers.remove(worker)
        self.tell(worker)

    def tell(self, worker: Any) -> None:
        for observer in self.observers:
            observer(worker)


@pytest.fixture
def relay() -> Relay:
    return Relay()


@pytest.fixture
def supervisor() -> Supervisor:
    return Supervisor()


def begin(relay: Relay, supervisor: Any, errors_max: int = 16) -> Listing:
    return Listing(relay, supervisor, errors_max)


def test_who_is_there_already_is_listed_too(relay: Relay, supervisor: Supervisor) -> None:
    supervisor.add(1)
    begin(relay, supervisor)
    supervisor.add(2)
    assert relay.ids() == [1, 2]


def test_a_worker_keeps_its_place_through_its_lives(relay: Relay, supervisor: Supervisor) -> None:
    begin(relay, supervisor)
    one, two = supervisor.add(1), supervisor.add(2)
    one.id, one.state, one.os_pid, one.kit, one.restarts = 3, State.READY, 77, "c", 1
    supervisor.tell(one)
    wanted = ListedWorker(3, ListedState.READY, 0, 77, 1, "c", "echo")
    assert relay.places == {0: wanted, 1: listed(two)}


def test_a_place_that_is_free_is_taken_by_the_next(relay: Relay, supervisor: Supervisor) -> None:
    begin(relay, supervisor)
    workers = [supervisor.add(id_) for id_ in range(1, 5)]
    supervisor.remove(workers[1])
    supervisor.remove(workers[0])
    assert sorted(relay.places) == [2, 3]
    supervisor.add(9)
    assert relay.ids() == [9, 3, 4]


def test_who_finds_no_place_is_counted_and_gets_the_next_that_is_free(
    relay: Relay, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing_module, "PLACES_MAX", 2)
    begin(relay, supervisor)
    workers = [supervisor.add(id_) for id_ in range(1, 6)]
    assert (relay.ids(), relay.hidden) == ([1, 2], 3)
    supervisor.tell(workers[2])  # it changes, and is counted once
    assert relay.hidden == 3
    supervisor.remove(workers[3])
    assert (relay.ids(), relay.hidden) == ([1, 2], 2)
    supervisor.remove(workers[0])
    assert (relay.ids(), relay.hidden) == ([3, 2], 1)
    supervisor.remove(workers[1])
    assert (relay.ids(), relay.hidden) == ([3, 5], 0)


def test_errors_are_told_before_the_state_that_they_explain(
    relay: Relay, supervisor: Supervisor
) -> None:
    told: list[str] = []
    relay.list_errors = lambda errors: told.append(f"errors {list(errors)}")  # type: ignore[method-assign]
    relay.list_worker = lambda place, worker: told.append(worker.state.name)  # type: ignore[method-assign]
    begin(relay, supervisor, errors_max=2)
    worker = supervisor.add(1, state=State.READY)
    supervisor.reports = [SimpleNamespace(worker=n, why=f"why {n}") for n in (7, 8, 1)]
    worker.state = State.RESTARTING
    supervisor.tell(worker)
    supervisor.tell(worker)  # nothing new
    assert told == ["READY", "errors [(1, 'why 1'), (8, 'why 8')]", "RESTARTING", "RESTARTING"]


def test_a_relay_without_memory_stops_nobody(relay: Relay, supervisor: Supervisor) -> None:
    begin(relay, supervisor)
    relay.full = True
    supervisor.add(1)
    relay.full = False
    supervisor.add(2)
    assert relay.places == {}


def test_its_words_and_numbers_are_the_core_s() -> None:
    for state in ListedState:
        assert state.value == getattr(lib, f"RB_LISTED_{state.name}")
    assert {state.name for state in State} == {each.name for each in ListedState} - {"NONE"}
    longest = ListedWorker(1, ListedState.READY, 20_000, 2**31, 9, "k" * 31, "r" * 63)
    made = structs.filled("struct rb_listed_worker", longest).pointer
    assert (made.worker, made.state, made.index) == (1, 2, 20_000)


@pytest.mark.parametrize(
    ("text", "size", "wanted"),
    [
        ("signal 9", 8, b"signal 9"),
        ("signal 9", 7, b"sign..."),
        ("a\0b", 8, b"ab"),
        ("\N{EURO SIGN}" * 3, 8, "\N{EURO SIGN}...".encode()),
        (os.fsdecode(b"/caf\xe9"), 8, b"/caf?"),
    ],
)
def test_words_are_cut_between_characters(text: str, size: int, wanted: bytes) -> None:
    assert cut(text, size) == wanted
