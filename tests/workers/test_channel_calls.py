"""A worker's call ends in the time that it may take, whatever of it is still in its way."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from bridge.etf import Atom
from bridge.workers.channel.callbacks import Callbacks
from bridge.workers.channel.packets import Call, Code, NotHad
from bridge.workers.channel.policy import AtomBudget, CallbackPolicy

AWAY = "app@there"
POLICY = CallbackPolicy(allow=[f"server@{AWAY}"], pids=[], own="bridge@here", connected=bool)


class FullNode:
    """A node whose socket has room after `room_s`, and is dialled for ever then."""

    def __init__(self, room_s: float) -> None:
        self.autoconnect = self
        self._room_s = room_s
        self.posted: list[Callable[[], None]] = []

    async def wait_room(self, node: str) -> None:
        assert node == AWAY
        await trio.sleep(self._room_s)

    def run(self, node: str, action: Callable[[], None]) -> bool:
        self.posted.append(action)
        return True


async def ended(node: Any, timeout_s: float) -> tuple[Code, float]:
    """Why a call of so long a timeout ends, and when."""
    call = Call((Atom("server"), Atom(AWAY)), Atom("question"), timeout_s)
    callbacks = Callbacks(node, lambda: SimpleNamespace(pid=None))  # type: ignore[arg-type,return-value]
    began_s = trio.current_time()
    with pytest.raises(NotHad) as error:
        await (await callbacks.ask(call, 100, POLICY, AtomBudget(()))).wait()
    return error.value.code, trio.current_time() - began_s


async def test_its_timeout_runs_while_it_waits_for_room(autojump_clock: object) -> None:
    node = FullNode(room_s=60)
    code, took_s = await ended(node, 2)
    assert (code, round(took_s, 3)) == (Code.TIMEOUT, 2)
    assert not node.posted  # nobody is asked what nobody waits for


async def test_what_it_waited_for_room_is_taken_off_its_time_for_the_answer(
    autojump_clock: object,
) -> None:
    node = FullNode(room_s=1.5)
    code, took_s = await ended(node, 2)
    assert (code, round(took_s, 3)) == (Code.TIMEOUT, 2)
    assert len(node.posted) == 1
