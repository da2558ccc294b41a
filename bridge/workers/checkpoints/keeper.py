"""The checkpoints of all workers, for the bridge's tasks: what a place may keep, and in what order.

The store's calls run in a thread, one at a time: a disk that stalls holds back checkpoints, and
nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import trio

from bridge.config import CheckpointSettings, ConfigError
from bridge.workers.channel.packets import Code, Kind, NotHad
from bridge.workers.checkpoints.store import Kept, Part, Place, Store, StoreFailed

T = TypeVar("T")


class Keeper:
    """Keeps checkpoints. `open_store` makes the store when it is first wanted."""

    def __init__(self, open_store: Callable[[], Store]) -> None:
        self._open_store = open_store
        self._store: Store | None = None
        self._lock = trio.Lock()

    async def open(self) -> None:
        """Open the store now. Raises what opening it does."""

        def run() -> None:
            if self._store is None:
                self._store = self._open_store()

        await self._run(run)

    async def aclose(self) -> None:
        if self._store is not None:
            await self._run(self._store.close)

    async def save(
        self, place: Place, kind: Kind, state: bytes, settings: CheckpointSettings
    ) -> None:
        """Keep a checkpoint. Raises NotHad; what was there before stands."""

        def put(store: Store) -> None:
            kept = store.kept(place)
            before = 0
            if kind is Kind.INCREMENTAL:
                if kept is None or kept.increments >= settings.increments_max:
                    raise NotHad(Code.FULL_WANTED)
                before = kept.bytes
            if before + len(state) > settings.bytes_max:
                # An increment too many is no reason to lose the state: the whole may be smaller.
                if before and len(state) <= settings.bytes_max:
                    raise NotHad(Code.FULL_WANTED)
                raise NotHad(Code.TOO_LARGE, settings.bytes_max)
            store.put(place, kind, state)

        await self._with_store(put)

    async def load(self, place: Place) -> list[Part]:
        """The latest state of a place; empty where there is none. Raises NotHad."""
        return await self._with_store(lambda store: store.get(place))

    async def kept(self, place: Place) -> Kept | None:
        """Raises NotHad."""
        return await self._with_store(lambda store: store.kept(place))

    async def move(self, source: Place, target: Place) -> None:
        """Raises NotHad."""
        await self._with_store(lambda store: store.move(source, target))

    async def _with_store(self, work: Callable[[Store], T]) -> T:
        def run() -> T:
            if self._store is None:
                self._store = self._open_store()
            return work(self._store)

        try:
            return await self._run(run)
        except (StoreFailed, ConfigError) as error:  # it was opened late, and its file is wrong
            raise NotHad(Code.STORE_FAILED, str(error)) from error

    async def _run(self, work: Callable[[], T]) -> T:
        async with self._lock:
            return await trio.to_thread.run_sync(work)


def parts_of(state: list[Part]) -> list[tuple[Kind, bytes]]:
    """A state as it goes to a worker."""
    return [(part.kind, part.state) for part in state]
