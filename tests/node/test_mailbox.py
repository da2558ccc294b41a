"""The bounded mailbox: its order, and its policy when it is full."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from router_support import YOU

from bridge.etf import Atom
from bridge.node.gen import Call, Cast, Info, Sender, SystemRequest
from bridge.node.mailbox import SYSTEM_RESERVE, Mailbox

CALL = (Atom("$gen_call"), (YOU, Atom("tag")), Atom("request"))
CAST = (Atom("$gen_cast"), Atom("request"))
SYSTEM = (Atom("system"), (YOU, Atom("tag")), Atom("get_state"))


class Full:
    def __init__(self, capacity: int = 3) -> None:
        self.refused: list[tuple[Sender, Any]] = []
        self.box = Mailbox(
            capacity=capacity, refuse=lambda *answer: self.refused.append(answer), what="test"
        )
        for number in range(capacity):
            self.box.deliver(number)


async def test_messages_come_out_in_order_and_classified() -> None:
    box = Mailbox(capacity=9, refuse=lambda *_: None, what="test")
    for message in (CALL, CAST, SYSTEM, 1):
        box.deliver(message)
    await box.wait_message()
    sender = Sender(YOU, Atom("tag"))
    assert [box.take_nowait() for _ in range(4)] == [
        Call(sender, Atom("request")),
        Cast(Atom("request")),
        SystemRequest(sender, Atom("get_state")),
        Info(1),
    ]
    with pytest.raises(trio.WouldBlock):
        box.take_nowait()


async def test_a_call_without_room_is_refused_with_a_reason() -> None:
    full = Full()
    full.box.deliver(CALL)
    reason = (Atom("error"), (Atom("overloaded"), {Atom("retry_after_ms"): 100}))
    assert full.refused == [(Sender(YOU, Atom("tag")), reason)]
    assert full.box.statistics().refused_calls == 1
    assert len(full.box) == 3


async def test_other_messages_without_room_are_dropped_and_counted() -> None:
    full = Full()
    full.box.deliver(CAST)
    full.box.deliver("plain")
    assert full.box.statistics().dropped_messages == 2
    assert len(full.box) == 3


async def test_what_the_process_asked_for_is_always_taken() -> None:
    full = Full()
    full.box.deliver_signal((Atom("DOWN"), 1, 2, 3, 4))
    assert len(full.box) == 4


async def test_system_messages_have_some_room_of_their_own() -> None:
    full = Full()
    for _ in range(SYSTEM_RESERVE + 1):
        full.box.deliver(SYSTEM)
    assert len(full.box) == 3 + SYSTEM_RESERVE
    assert len(full.refused) == 1


async def test_there_is_room_again_after_a_take() -> None:
    full = Full()
    full.box.take_nowait()
    full.box.deliver(CALL)
    assert full.refused == []


async def test_deferred_messages_come_back_in_front_in_their_order() -> None:
    full = Full()
    for _ in range(2):
        full.box.defer(full.box.take_nowait())
    assert len(full.box) == 3, "deferred messages count"
    full.box.restore_deferred()
    assert [full.box.take_nowait() for _ in range(3)] == [Info(0), Info(1), Info(2)]
