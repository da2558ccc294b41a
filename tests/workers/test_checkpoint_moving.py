"""What a state's new owner is given, whatever its old one saves meanwhile."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import trio

from bridge.config import CheckpointSettings
from bridge.workers.channel.packets import Kind
from bridge.workers.checkpoints import moving
from bridge.workers.checkpoints.keeper import Keeper
from bridge.workers.checkpoints.store import Part, Place, Store

Saves = list[tuple[Kind, bytes]]
SOURCE, TARGET = Place("work", 0), Place("work", 1)


class Side:
    """One worker's states: all that it was given, a whole one in place of the rest."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.has: list[bytes] = []
        self.checkpoint: Any = None

    def announce(self, coming: object) -> None: ...
    def based(self) -> None: ...
    def save_before_leaving(self, kind: Kind) -> Kind:
        return kind

    async def restore(self, state: list[Part]) -> None:
        for part in state:
            self.has = [part.state] if part.kind is Kind.FULL else [*self.has, part.state]


async def move(monkeypatch: pytest.MonkeyPatch, first: Saves, last: Saves) -> list[bytes]:
    """A pre-copy in which the source saves `first` until it was copied, then `last`; returns what
    the target ends up with.
    """
    settings = CheckpointSettings(keep=True, incremental=True)
    keeper = Keeper(lambda: Store(None))
    giver, taker = Side(SOURCE), Side(TARGET)

    async def save(saves: Saves) -> None:
        for kind, state in saves:
            await keeper.save(SOURCE, kind, state, settings)

    async def checkpoint(kind: Kind) -> None:
        assert kind is Kind.FULL
        await save(first)

    async def drain(*_: object) -> None:
        await save(last)

    sides: dict[int, Any] = {0: giver, 1: taker}
    giver.checkpoint = checkpoint
    monkeypatch.setattr(moving, "states_of", lambda worker: sides[worker.index])
    monkeypatch.setattr(moving, "_drain", drain)
    plan = SimpleNamespace(id=1, name="work")
    source, target = (SimpleNamespace(plan=plan, id=i + 1, index=i) for i in (0, 1))
    try:
        with trio.fail_after(60):
            await moving.move(keeper, None, source, target, "pre_copy")  # type: ignore[arg-type]
            kept = await keeper.load(TARGET)
        assert [part.state for part in kept] == taker.has  # and it would begin with the same
        return taker.has
    finally:
        await keeper.aclose()


@pytest.mark.parametrize(
    ("first", "last", "has"),
    [
        ([(Kind.FULL, b"a")], [(Kind.INCREMENTAL, b"+b")], [b"a", b"+b"]),
        ([(Kind.FULL, b"a")], [(Kind.FULL, b"ab")], [b"ab"]),
        # of itself it saved the whole, and an increment on that, while the copy was taken
        ([(Kind.FULL, b"a")], [(Kind.FULL, b"ab"), (Kind.INCREMENTAL, b"+c")], [b"ab", b"+c"]),
        # an increment got into the copy already, and is not given twice
        (
            [(Kind.FULL, b"a"), (Kind.INCREMENTAL, b"+b")],
            [(Kind.INCREMENTAL, b"+c")],
            [b"a", b"+b", b"+c"],
        ),
    ],
)
async def test_what_the_source_saves_amid_a_pre_copy_reaches_the_target_once(
    monkeypatch: pytest.MonkeyPatch, first: Saves, last: Saves, has: list[bytes]
) -> None:
    assert await move(monkeypatch, first, last) == has
