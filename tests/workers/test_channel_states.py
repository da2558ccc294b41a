"""What a worker answers where the bridge asks for its state, or gives it one."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from bridge.config import CheckpointSettings
from bridge.etf import Atom, encode_bare
from bridge.workers.channel import packets
from bridge.workers.channel.packets import Code, Coming, Kind, NotHad, Outgoing
from bridge.workers.channel.states import States
from bridge.workers.checkpoints.keeper import Keeper
from bridge.workers.checkpoints.store import Place, Store


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ((Atom("unavailable"), b"no room"), "no room"),
        ((Atom("unavailable"), b"x" * 5_000), "x" * 256),
        ((Atom("unavailable"), b"\xff"), "\N{REPLACEMENT CHARACTER}"),
        ([Atom(f"new_{i}") for i in range(5_000)], None),
        (b"x" * 50_000, None),
    ],
)
async def test_its_reason_is_told_as_a_text_and_no_term_of_its_own(reason: Any, told: Any) -> None:
    sent: list[Outgoing] = []
    settings = CheckpointSettings(keep=True)
    states = States(
        Keeper(lambda: Store(None)), Place("work", 0), lambda: settings, send=sent.append
    )
    states.listens = True
    heard: list[NotHad] = []

    async def ask() -> None:
        with pytest.raises(NotHad) as error:
            await states.checkpoint()
        heard.append(error.value)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            while not sent:
                await trio.lowlevel.checkpoint()
            states.replied(sent[0].id, packets.Reply(reason))
    (error,) = heard
    assert error.code is Code.UNAVAILABLE
    word, text = error.reason()
    assert word == Atom("unavailable")
    assert isinstance(text, bytes)
    assert told is None or text.decode() == told
    assert len(encode_bare(error.reason())) < 1_500


async def test_an_operator_whose_worker_ends_is_told_that_it_is_down() -> None:
    """Of what was asked before, and of what is asked after: not that it would not."""
    sent: list[Outgoing] = []
    states = States(
        Keeper(lambda: Store(None)), Place("work", 0), CheckpointSettings, send=sent.append
    )
    told: list[object] = []

    async def trouble() -> None:
        with pytest.raises(NotHad) as error:
            await states.trouble("crash", 9, 1)
        told.append(error.value.reason())

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trouble)
            while not sent:
                await trio.lowlevel.checkpoint()
            states.over()
        await trouble()
    assert told == [(Atom("down"), b"the worker has ended")] * 2


class Taker:
    """A worker in place 1 that is given what place 0 has."""

    source, target = Place("work", 0), Place("work", 1)

    def __init__(self) -> None:
        self.sent: list[Outgoing] = []
        self.settings = CheckpointSettings(keep=True, incremental=True)
        self.keeper = Keeper(lambda: Store(None))
        self.states = States(self.keeper, self.target, lambda: self.settings, send=self.sent.append)
        self.states.listens = True

    async def save(self, kind: Kind, state: bytes) -> None:
        await self.states.save(self.states.admit_save(1), packets.Save(kind, state))

    async def refused(self, kind: Kind, state: bytes) -> Code:
        with pytest.raises(NotHad) as error:
            await self.save(kind, state)
        return error.value.code

    async def take(self, state: bytes) -> None:
        """It has taken over what the other one saved, which the store does not know yet."""
        await self.keeper.save(self.source, Kind.FULL, state, self.settings)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.states.restore, await self.keeper.load(self.source))
            await trio.testing.wait_all_tasks_blocked()
            self.states.replied(self.sent[-1].id, packets.Reply(None))

    async def moved(self) -> None:
        await self.keeper.move(self.source, self.target)
        self.states.based()

    async def kept(self) -> list[bytes]:
        return [part.state for part in await self.keeper.load(self.target)]


async def test_what_was_saved_amid_a_move_is_not_what_an_increment_stands_on() -> None:
    """The target saved between its restoring and the store's: its next save is a whole one."""
    taker = Taker()
    with trio.fail_after(60):
        await taker.save(Kind.FULL, b"own")
        await taker.take(b"source")
        await taker.moved()
        await taker.save(Kind.INCREMENTAL, b"+a")
        assert await taker.kept() == [b"source", b"+a"]
        await taker.take(b"again")
        assert await taker.refused(Kind.INCREMENTAL, b"+b") is Code.FULL_WANTED
        await taker.moved()
        assert await taker.refused(Kind.INCREMENTAL, b"+c") is Code.FULL_WANTED
        await taker.save(Kind.FULL, b"again+b+c")
        await taker.save(Kind.INCREMENTAL, b"+d")
        assert await taker.kept() == [b"again+b+c", b"+d"]


async def test_a_save_from_before_a_move_does_not_overtake_it() -> None:
    taker = Taker()
    with trio.fail_after(60):
        late = taker.states.admit_save(1)  # it has come, and waits to be stored
        await taker.take(b"source")
        await taker.moved()
        with pytest.raises(NotHad) as error:
            await taker.states.save(late, packets.Save(Kind.FULL, b"own"))
        assert error.value.code is Code.FULL_WANTED
        assert await taker.kept() == [b"source"]


async def test_nothing_is_told_to_be_kept_that_a_move_throws_away() -> None:
    taker = Taker()
    with trio.fail_after(60):
        await taker.take(b"source")
        assert await taker.refused(Kind.FULL, b"source, and more") is Code.FULL_WANTED
        await taker.moved()
        await taker.save(Kind.FULL, b"source, and more")
        assert await taker.kept() == [b"source, and more"]


async def test_after_a_move_that_failed_it_saves_as_its_own_again_and_the_whole_first() -> None:
    taker = Taker()
    with trio.fail_after(60):
        await taker.save(Kind.FULL, b"own")
        await taker.take(b"source")
        taker.states.announce(Coming.ABANDONED)
        assert await taker.refused(Kind.INCREMENTAL, b"+a") is Code.FULL_WANTED
        await taker.save(Kind.FULL, b"source+a")
        assert await taker.kept() == [b"source+a"]
