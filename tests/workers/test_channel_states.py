"""What a worker answers where the bridge asks for its state, or gives it one."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from bridge.config import CheckpointSettings
from bridge.etf import Atom, encode_bare
from bridge.workers.channel import packets
from bridge.workers.channel.packets import Code, Kind, NotHad, Outgoing
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

    with trio.fail_after(10):
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


async def test_what_was_saved_amid_a_move_is_not_what_an_increment_stands_on() -> None:
    """The target saved between its restoring and the store's: its next save is a whole one."""
    sent: list[Outgoing] = []
    settings = CheckpointSettings(keep=True, incremental=True)
    keeper = Keeper(lambda: Store(None))
    source, target = Place("work", 0), Place("work", 1)
    states = States(keeper, target, lambda: settings, send=sent.append)
    states.listens = True

    async def save(kind: Kind, state: bytes) -> None:
        assert states.admit_save(1) is None
        await states.save(None, packets.Save(kind, state))

    async def take(amid: bytes | None) -> None:
        await keeper.save(source, Kind.FULL, b"source", settings)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(states.restore, await keeper.load(source))
            await trio.testing.wait_all_tasks_blocked()
            states.replied(sent[-1].id, packets.Reply(None))
        if amid is not None:
            await save(Kind.INCREMENTAL, amid)
        await keeper.move(source, target)
        states.based()

    with trio.fail_after(10):
        await save(Kind.FULL, b"own")
        await take(None)
        await save(Kind.INCREMENTAL, b"+a")
        assert [part.state for part in await keeper.load(target)] == [b"source", b"+a"]
        await take(b"+b")
        with pytest.raises(NotHad) as error:
            await save(Kind.INCREMENTAL, b"+c")
        assert error.value.code is Code.FULL_WANTED
        await save(Kind.FULL, b"source+b+c")
        await save(Kind.INCREMENTAL, b"+d")
        assert [part.state for part in await keeper.load(target)] == [b"source+b+c", b"+d"]
