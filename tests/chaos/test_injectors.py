"""Injections into workers that come and go while the plan runs."""

from __future__ import annotations

from typing import Any, cast

import pytest

from bridge.chaos.injectors import Injectors
from bridge.chaos.plan import Hook
from bridge.chaos.proxy import Proxy
from bridge.etf import Atom
from bridge.ops.asking import Asking
from bridge.ops.errors import Refused


class Registry:
    """Answers for the WorkerRegistry, whose workers `ended` before they heard of a hook: one that
    is still `listed` as ready, and one whose successor has its place and an id of its own.
    """

    def __init__(self, ready: list[int], ended: dict[int, str | None], after: list[int]) -> None:
        self.ready = ready
        self.ended = ended
        self.after = after
        self.hooked: list[int] = []

    async def get(self, service: str, request: Any, *, within_s: float = 0) -> Any:
        if request[0] == Atom("lookup"):
            return {"workers": [{"id": id_, "state": "ready"} for id_ in self.ready]}
        worker = request[1]
        if worker in self.ended:
            reason = self.ended[worker]
            self.ready = self.after
            raise Refused(f"{worker}: {reason}", reason=reason)
        self.hooked.append(worker)
        return None


async def inject(registry: Registry, workers: int) -> list[str]:
    injectors = Injectors(cast("Asking", registry), "role", 0, cast("Proxy", None))
    notes: list[str] = []
    await injectors.inject(Hook(hook="crash", value=9, workers=workers), notes.append)
    return notes


async def test_a_worker_that_ended_before_it_heard_has_another_in_its_place() -> None:
    registry = Registry([1, 2], {1: "down"}, [1, 2])
    notes = await inject(registry, 1)
    assert registry.hooked == [2]
    assert notes == ["crash 9 for 1 jobs in workers [2]"]


async def test_so_has_one_that_the_registry_no_longer_knows() -> None:
    registry = Registry([1, 2], {1: "bad_request"}, [2, 3])
    await inject(registry, 0)
    assert registry.hooked == [2, 3]


async def test_a_refusal_of_a_worker_that_lives_is_a_refusal() -> None:
    registry = Registry([1, 2], {1: "unavailable"}, [1, 2])
    with pytest.raises(Refused, match="1: unavailable"):
        await inject(registry, 1)
    assert registry.hooked == []
