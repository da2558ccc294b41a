"""The bounded mailbox: its order, selective receive, and its policies when it is full."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from router_support import YOU

from bridge.etf import Atom
from bridge.node import MailboxPolicy, WhenFull
from bridge.node.process.mailbox import SYSTEM_RESERVE, Mailbox
from bridge.node.signals.gen import Sender

CALL = (Atom("$gen_call"), (YOU, Atom("tag")), Atom("request"))
CAST = (Atom("$gen_cast"), Atom("request"))
SYSTEM = (Atom("system"), (YOU, Atom("tag")), Atom("get_state"))
DOWN = (Atom("DOWN"), 1, 2, 3, 4)


class Box(Mailbox):
    """A mailbox that notes whom it refuses and why it closes."""

    def __init__(self, capacity: int = 3, when_full: WhenFull = WhenFull.REFUSE) -> None:
        self.refused: list[tuple[Sender, Any]] = []
        self.closed: list[Any] = []
        super().__init__(
            MailboxPolicy(capacity, when_full),
            refuse=lambda *answer: self.refused.append(answer),
            close=self.closed.append,
            what="test",
        )

    def fill(self) -> Box:
        for number in range(self.policy.capacity):
            self.deliver(number)
        return self

    def take_all(self) -> list[Any]:
        return [self.take_nowait() for _ in range(len(self))]


async def test_messages_come_out_in_order() -> None:
    box = Box(9)
    for message in (CALL, CAST, SYSTEM, 1):
        box.deliver(message)
    await box.wait_message()
    assert box.take_all() == [CALL, CAST, SYSTEM, 1]
    with pytest.raises(trio.WouldBlock):
        box.take_nowait()


async def test_priority_messages_go_first_in_their_own_order() -> None:
    box = Box(9)
    box.deliver(1)
    box.deliver_urgent(2)
    box.deliver(3)
    box.deliver_signal(4, urgent=True)
    box.deliver_signal(5)
    assert box.take_all() == [2, 4, 1, 3, 5]


# -- selective receive -----------------------------------------------------------------------------


async def test_what_is_not_wanted_stays_in_order() -> None:
    box = Box(9)
    for number in range(6):
        box.deliver(number)
    assert await box.receive(lambda message: message == 4) == 4
    assert await box.receive(lambda message: message > 1) == 2
    assert box.take_all() == [0, 1, 3, 5]


async def test_a_receive_waits_for_what_it_wants_and_asks_about_each_message_once() -> None:
    box = Box(9)
    box.deliver(0)
    asked: list[Any] = []

    def wanted(message: Any) -> bool:
        asked.append(message)
        return bool(message == "this")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(box.receive, wanted)
        for message in (1, 2, "this", 3):
            await trio.testing.wait_all_tasks_blocked()
            box.deliver(message)
    assert asked == [0, 1, 2, "this"]
    assert box.take_all() == [0, 1, 2, 3]


async def test_a_receive_that_is_cancelled_takes_nothing() -> None:
    box = Box(9)
    box.deliver(1)
    with trio.move_on_after(0):
        await box.receive(lambda message: message == 2)
    box.deliver(2)
    assert box.take_all() == [1, 2]


async def test_a_mailbox_has_one_reader() -> None:
    box = Box(9)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(box.receive)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await box.receive()
        box.deliver(1)


async def test_remove_drops_what_has_come() -> None:
    box = Box(9)
    for message in (1, DOWN, 2):
        box.deliver(message)
    assert box.remove(lambda message: message == DOWN) == 1
    assert box.take_all() == [1, 2]


# -- full ------------------------------------------------------------------------------------------


async def test_a_call_without_room_is_refused_with_a_reason() -> None:
    full = Box().fill()
    full.deliver(CALL)
    reason = (Atom("error"), (Atom("overloaded"), {Atom("retry_after_ms"): 100}))
    assert full.refused == [(Sender(YOU, Atom("tag")), reason)]
    assert full.statistics().refused_calls == 1
    assert len(full) == 3


async def test_other_messages_without_room_are_dropped_and_counted() -> None:
    full = Box().fill()
    full.deliver(CAST)
    full.deliver("plain")
    full.deliver_urgent("urgent")
    assert full.statistics().dropped_messages == 3
    assert len(full) == 3


async def test_with_drop_a_call_is_dropped_like_the_rest() -> None:
    full = Box(when_full=WhenFull.DROP).fill()
    full.deliver(CALL)
    assert full.refused == []
    assert full.statistics().dropped_messages == 1


async def test_with_close_the_process_ends_with_the_reason() -> None:
    full = Box(when_full=WhenFull.CLOSE).fill()
    assert full.closed == []
    full.deliver(CAST)
    assert full.closed == [(Atom("mailbox_full"), 3)]


@pytest.mark.parametrize("when_full", WhenFull)
async def test_what_the_process_asked_for_is_always_taken(when_full: WhenFull) -> None:
    full = Box(when_full=when_full).fill()
    full.deliver_signal(DOWN)
    assert len(full) == 4
    assert full.closed == []


async def test_system_messages_have_some_room_of_their_own() -> None:
    full = Box().fill()
    for _ in range(SYSTEM_RESERVE + 1):
        full.deliver(SYSTEM)
    assert len(full) == 3 + SYSTEM_RESERVE
    assert len(full.refused) == 1


async def test_there_is_room_again_after_a_take() -> None:
    full = Box().fill()
    full.take_nowait()
    full.deliver(CALL)
    assert full.refused == []


async def test_the_statistics_count() -> None:
    full = Box().fill()
    full.take_nowait()
    full.deliver(CAST)
    full.deliver(CAST)
    figures = full.statistics()
    assert (figures.length, figures.length_max, figures.received) == (3, 3, 4)
    assert figures.dropped_messages == 1


def test_a_mailbox_without_room_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        MailboxPolicy(0)
