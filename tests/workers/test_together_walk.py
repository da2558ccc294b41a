"""Workers, siblings and groups through random falls, wishes and times: in the end all is as asked.

Whatever happened, once nothing more happens every worker is ready but those that somebody has
drained and those that were given up; nobody waits for ever. A life is started when the last one has
ended, and a role is told to the relay as its workers are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar, get_args

import msgspec
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from registry_fakes import Scene
from trio.testing import MockClock, wait_all_tasks_blocked

from bridge.config import GroupSettings
from bridge.workers.strategy import Siblings, Strategy
from bridge.workers.upgrade import Upgrade
from bridge.workers.wishes import Wanted
from bridge.workers.worker import State, Worker

T = TypeVar("T")
ROLES = ("a", "b", "c")
STRATEGIES: st.SearchStrategy[Strategy] = st.sampled_from(get_args(Strategy))
AT_REST = {State.READY, State.DRAINED, State.GIVEN_UP, State.FINISHED}


class Walk:
    """What can happen to a scene, one step at a time."""

    def __init__(self, scene: Scene, clock: MockClock, data: st.DataObject) -> None:
        self.scene, self.clock, self.data = scene, clock, data
        self.supervisor = scene.supervisor
        self.drained: set[Worker] = set()

    async def step(self) -> None:
        alive = [w for w in self.scene.workers if w.os_pid is not None]
        steps: list[Callable[[], None]] = [self.pass_time, self.wish]
        if alive:
            worker = self.draw(alive)
            steps += [lambda: self.scene.end(worker.id, signal=9)] * 2
            steps += [lambda: self.scene.end(worker.id, status=0)]
            steps += [lambda: self.scene.greet(worker.id)] * 4
        if not self.supervisor.upgrading.locked():
            steps += [self.upgrade, self.change]  # an upgrade refuses other changes
        self.draw(steps)()
        await wait_all_tasks_blocked()

    def draw(self, choices: list[T]) -> T:
        return choices[self.data.draw(st.integers(0, len(choices) - 1))]

    def pass_time(self) -> None:
        self.clock.jump(self.data.draw(st.sampled_from([0.01, 0.1, 1.0, 10.0])))

    def wish(self) -> None:
        worker = self.draw(self.scene.workers)
        wanted = self.draw([Wanted.DRAIN, Wanted.RESTART])
        if worker.leaves:
            return
        (self.drained.add if wanted is Wanted.DRAIN else self.drained.discard)(worker)
        worker.want(wanted)

    def change(self) -> None:
        plan = self.draw(self.supervisor.plans)
        config = msgspec.structs.replace(
            plan.config,
            workers=self.data.draw(st.integers(1, 3)),
            strategy=self.data.draw(STRATEGIES),
        )
        self.supervisor.change_role(replace(plan, config=config))

    def upgrade(self) -> None:
        plan = self.draw(self.supervisor.plans)
        argv = (f"{plan.argv[0]}+",)
        self.supervisor.begin(Upgrade(self.supervisor, replace(plan, argv=argv)).run)

    def is_at_rest(self) -> bool:
        together = self.supervisor.together
        siblings: list[Siblings[Any]] = [*together._roles.values(), *together._groups.values()]
        states = {worker.state for worker in self.scene.workers}
        return (
            states <= AT_REST
            and all(each.is_settled for each in siblings)
            and not self.supervisor.upgrading.locked()
        )

    async def settle(self) -> None:
        """Nothing goes wrong any more."""
        for _ in range(400):
            await wait_all_tasks_blocked()
            starting = [
                w for w in self.scene.workers if w.state is State.STARTING and w.os_pid is not None
            ]
            for worker in starting:
                self.scene.greet(worker.id)
            if starting:
                continue
            if self.is_at_rest():
                return
            self.clock.jump(1.0)
        raise AssertionError([(w.id, w.state, w._wanted) for w in self.scene.workers])


@settings(max_examples=60)
@given(data=st.data())
def test_after_any_walk_all_are_as_asked(data: st.DataObject) -> None:
    clock = MockClock()
    trio.run(walk_and_look, data, clock, clock=clock)


async def walk_and_look(data: st.DataObject, clock: MockClock) -> None:
    group = GroupSettings(roles=("a", "b"), strategy=data.draw(STRATEGIES), max_restarts=2)
    scene = Scene(
        names=ROLES,
        groups={"g": group} if data.draw(st.booleans()) else {},
        workers=2,
        strategy=data.draw(STRATEGIES),
        restart=data.draw(st.sampled_from(["permanent", "transient"])),
        max_restarts=data.draw(st.sampled_from([0, 2, 100])),
        start_ms=1_000,
    )
    walk = Walk(scene, clock, data)
    async with trio.open_nursery() as nursery:
        await nursery.start(scene.supervisor.run)
        for _ in range(data.draw(st.integers(0, 25))):
            await walk.step()
        await walk.settle()
        for plan in scene.supervisor.plans:
            workers = scene.supervisor.of_role(plan.id)
            assert [w.index for w in workers] == list(range(plan.config.workers))
            for worker in workers:
                drained = worker.state is State.DRAINED
                assert drained == (worker in walk.drained and worker._wanted is Wanted.DRAIN)
            role_state = scene.supervisor.role_state(plan.id)
            told = [c[2] for c in scene.relay.calls if c[:2] == ("set_role_state", plan.id)]
            assert not told or told[-1] is role_state, [(w.state, w._wanted) for w in workers]
        nursery.cancel_scope.cancel()
    assert all(guard.closed for guard in scene.guards)
    scene.relay.close()
