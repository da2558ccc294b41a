"""One slot of a remote worker between a link and its messages, both played."""

from __future__ import annotations

import os
import struct
from collections import deque
from typing import Any, cast

import pytest

from bridge.etf import Atom
from bridge.fabric import layout
from bridge.fabric.proxy import NoRoom, Proxy, Request
from bridge.workers.remote.messages import Began, BrokenRule, Bytes, Ended, Said
from bridge.workers.remote.slot import Desk, Slot

OK, CANCELLED, PROGRESS = layout.STATUS_OK, layout.STATUS_CANCELLED, layout.STATUS_PROGRESS


class PlayedProxy:
    """A link that holds what the test puts into it."""

    def __init__(self) -> None:
        self.ring: deque[Request] = deque()
        self.cancelled: set[int] = set()
        self.parts = 0
        self.draining = False
        self.room = True
        self.started = 0
        self.answers: list[tuple[int, int, bytes]] = []

    def take(self) -> Request | None:
        return self.ring.popleft() if self.ring else None

    def is_cancelled(self, position: int, job: int) -> bool:
        return job in self.cancelled

    def demand(self, position: int, sent: int) -> int:
        return max(0, self.parts - sent)

    def is_draining(self) -> bool:
        return self.draining

    def is_empty(self) -> bool:
        return not self.ring

    def start(self) -> None:
        self.started += 1

    def pulse(self) -> None: ...

    def answer(self, job: int, status: int, payload: bytes, **_how: Any) -> None:
        if not self.room:
            raise NoRoom
        self.answers.append((job, status, payload))


class PlayedDesk:
    """A registration whose worker's node has room, or not."""

    answer_bytes_max = 100
    idempotent = False
    over = False

    def __init__(self, credit: int) -> None:
        self.credit = credit
        self.room = True
        self.told: list[Any] = []

    def has_room(self) -> bool:
        return self.room

    def tell(self, message: Any) -> None:
        self.told.append(message)

    def take_told(self, kind: str) -> list[dict[str, Any]]:
        found = [
            {key.name: value for key, value in message[2].items()}
            for message in self.told
            if message[1] == Atom(kind)
        ]
        self.told = [message for message in self.told if message[1] != Atom(kind)]
        return found


class Scene:
    def __init__(self, credit: int = 2) -> None:
        self.proxy, self.desk = PlayedProxy(), PlayedDesk(credit)
        self.obituary, obituary_end = os.pipe()
        self.stderr, stderr_end = os.pipe()
        self.slot = Slot(
            cast(Desk, self.desk), 3, cast(Proxy, self.proxy), obituary_end, stderr_end
        )

    def put(self, *jobs: int, flags: int = 0) -> None:
        for job in jobs:
            request = Request(job, job, 0, 0, flags, 2, bytes(16), bytes(8), 0, b"work")
            self.proxy.ring.append(request)
        self.slot.turn()

    def given(self) -> list[int]:
        return [said["job"] for said in self.desk.take_told("job")]

    def end(self, job: int, status: int = OK, data: bytes = b"done") -> None:
        self.slot.take(Ended(job, status, Bytes(data)))

    def last(self) -> tuple[int, int, bytes]:
        """Exit status, signal and last words, once it is dead."""
        _magic, status, signal, _flags = struct.unpack("<IiII", os.read(self.obituary, 16))
        assert os.read(self.obituary, 1) == b""
        return status, signal, os.read(self.stderr, 4096)


def test_no_more_jobs_are_out_than_the_credit_says() -> None:
    scene = Scene(credit=2)
    scene.put(1, 2, 3, 4)
    assert scene.given() == [1, 2]
    scene.slot.take(Began(1))
    assert scene.given() == []
    scene.end(1)
    assert scene.given() == [3]
    scene.desk.credit = 0
    scene.slot.take(Began(2))
    scene.end(2)
    assert scene.given() == []


def test_while_the_node_has_no_room_jobs_stay_in_the_ring() -> None:
    scene = Scene(credit=9)
    scene.desk.room = False
    scene.put(1, 2)
    assert scene.given() == []
    assert len(scene.proxy.ring) == 2
    scene.desk.room = True
    scene.slot.turn()
    assert scene.given() == [1, 2]


def test_a_cancel_is_told_once_and_more_demand_as_it_grows() -> None:
    scene = Scene()
    scene.proxy.parts = 2
    scene.put(1, flags=layout.FLAG_PARTS)
    assert scene.desk.take_told("job")[0]["parts"] == 2
    scene.proxy.parts = 5
    scene.proxy.cancelled.add(1)
    for _ in range(3):
        scene.slot.turn()
    assert scene.desk.take_told("demand") == [{"job": 1, "parts": 5}]
    assert scene.desk.take_told("cancel") == [{"job": 1}]


def test_an_answer_waits_for_room_and_progress_does_not() -> None:
    scene = Scene()
    scene.put(1, flags=layout.FLAG_PROGRESS)
    scene.slot.take(Began(1))
    scene.proxy.room = False
    scene.slot.take(Said(1, PROGRESS, Bytes(b"dropped")))
    scene.end(1)
    assert scene.proxy.answers == []
    scene.proxy.room = True
    scene.slot.turn()
    assert scene.proxy.answers == [(1, OK, b"done")]


def test_one_that_is_cancelled_unbegun_is_begun_for_the_relay() -> None:
    scene = Scene()
    scene.put(1)
    scene.proxy.cancelled.add(1)
    scene.end(1, CANCELLED, b"")
    assert scene.proxy.started == 1
    assert scene.proxy.answers == [(1, CANCELLED, b"")]


def test_patience_counts_while_the_way_has_room_only() -> None:
    scene = Scene(credit=1)
    scene.put(1)
    scene.slot.take(Began(1))
    scene.proxy.cancelled.add(1)
    scene.slot.turn()
    scene.slot.overdue(0.0, 2.0)
    scene.desk.room = False
    scene.slot.overdue(100.0, 2.0)
    scene.desk.room = True
    for now_s in (101.0, 103.0):
        scene.slot.overdue(now_s, 2.0)
    with pytest.raises(BrokenRule, match="remote_cancel_ignored"):
        scene.slot.overdue(103.1, 2.0)


def test_drained_it_ends_when_all_is_answered_and_not_before() -> None:
    scene = Scene(credit=1)
    scene.put(1, 2)
    scene.proxy.draining = True
    scene.slot.turn()
    assert scene.desk.take_told("drain") == [{"slots": [3]}]
    for job in (1, 2):
        scene.slot.take(Began(job))
        scene.end(job)
    assert [job for job, _, _ in scene.proxy.answers] == [1, 2]
    assert scene.last() == (0, 0, b"")
    scene.slot.turn()
    assert scene.desk.take_told("drain") == []


def test_what_came_before_the_end_counts_and_nothing_after_it() -> None:
    scene = Scene()
    scene.put(1)
    scene.slot.take(Began(1))
    scene.proxy.room = False
    scene.end(1)
    scene.proxy.room = True
    scene.slot.die(-1, 9, "it has gone")
    assert scene.proxy.answers == [(1, OK, b"done")]
    assert scene.last() == (-1, 9, b"it has gone")
    scene.slot.die(0, 0, "again")
    scene.put(2)
    assert scene.given() == [1]


@pytest.mark.parametrize(
    ("idempotent", "has_ended", "lost"), [(False, False, 2), (False, True, 1), (True, False, 1)]
)
def test_who_may_still_begin_what_it_was_given_has_begun_it(
    idempotent: bool, has_ended: bool, lost: int
) -> None:
    scene = Scene(credit=2)
    scene.desk.idempotent = idempotent
    scene.put(1, 2, 3)  # the last one stays in the ring, and runs elsewhere
    scene.slot.take(Began(1))
    scene.slot.die(-1, 9, "it is let go", has_ended=has_ended)
    assert scene.proxy.started == lost


def test_what_it_may_not_say_leaves_no_trace_in_the_link() -> None:
    scene = Scene()
    scene.put(1)
    with pytest.raises(BrokenRule, match="remote_out_of_turn"):
        scene.end(1)
    scene.slot.take(Began(1))
    with pytest.raises(BrokenRule, match="remote_too_large"):
        scene.end(1, data=bytes(101))
    assert scene.proxy.answers == []
    assert scene.proxy.started == 1
