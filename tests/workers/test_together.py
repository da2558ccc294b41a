"""Workers that fall together, over fakes and a clock that jumps: strategies and groups at work."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import msgspec
import trio
from registry_fakes import Scene
from trio.testing import MockClock, wait_all_tasks_blocked

from bridge.config import GroupSettings
from bridge.fabric.relay import RoleState
from bridge.workers.upgrade import Stage, Upgrade
from bridge.workers.wishes import Wanted
from bridge.workers.worker import State


@asynccontextmanager
async def running(scene: Scene, *, settled: bool = True) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        await nursery.start(scene.supervisor.run)
        if settled:
            await settle(scene)
        yield
        nursery.cancel_scope.cancel()
    assert all(guard.closed for guard in scene.guards)
    scene.relay.close()


async def settle(scene: Scene) -> None:
    """All that start greet."""
    await wait_all_tasks_blocked()
    while starting := started(scene):
        for worker_id in starting:
            scene.greet(worker_id)
        await wait_all_tasks_blocked()


def started(scene: Scene) -> list[int]:
    """Ids of those whose process runs and has not greeted."""
    return [w.id for w in scene.workers if w.state is State.STARTING and w.os_pid is not None]


def states(scene: Scene) -> list[str]:
    return [worker.state.value for worker in scene.workers]


async def fall(scene: Scene, worker_id: int) -> None:
    scene.end(worker_id, signal=9)
    await wait_all_tasks_blocked()


async def after(clock: MockClock, seconds: float) -> None:
    clock.jump(seconds)
    await wait_all_tasks_blocked()


def told(scene: Scene, role: int = 0) -> list[RoleState]:
    return [c[2] for c in scene.relay.calls if c[:2] == ("set_role_state", role)]  # type: ignore[misc]


async def test_workers_of_one_for_all_start_one_after_the_other(mock_clock: MockClock) -> None:
    scene = Scene(workers=3, strategy="one_for_all")
    async with running(scene, settled=False):
        await wait_all_tasks_blocked()
        assert started(scene) == [1]
        scene.greet(1)
        await wait_all_tasks_blocked()
        assert started(scene) == [2]
        assert scene.supervisor.role_state(0) is RoleState.RUNNING


async def test_with_one_for_all_the_others_end_and_all_start_again_in_order(
    mock_clock: MockClock,
) -> None:
    scene = Scene(workers=3, strategy="one_for_all", backoff_min_ms=100)
    async with running(scene):
        await fall(scene, 2)
        assert {("drain_worker", 1), ("drain_worker", 3)} <= set(scene.relay.calls)
        assert states(scene) == ["restarting"] * 3
        await after(mock_clock, 0.099)
        assert started(scene) == []
        await after(mock_clock, 0.001)
        assert started(scene) == [4]
        await settle(scene)
        assert [(w.id, w.index, w.restarts) for w in scene.workers] == [
            (4, 0, 1),
            (5, 1, 1),
            (6, 2, 1),
        ]
        assert states(scene) == ["ready"] * 3
        assert told(scene) == []  # jobs waited, none was refused


async def test_with_rest_for_one_those_before_it_do_not_notice(mock_clock: MockClock) -> None:
    scene = Scene(workers=3, strategy="rest_for_one", backoff_min_ms=100)
    async with running(scene):
        await fall(scene, 2)
        assert states(scene) == ["ready", "restarting", "restarting"]
        await after(mock_clock, 0.1)
        await settle(scene)
        assert [w.id for w in scene.workers] == [1, 4, 5]


async def test_a_sibling_may_finish_its_jobs_for_shutdown_ms_and_no_longer(
    mock_clock: MockClock,
) -> None:
    scene = Scene(workers=2, strategy="one_for_all", shutdown_ms=3_000, backoff_min_ms=100)
    async with running(scene):
        scene.relay.finish_when_drained = False
        await fall(scene, 1)
        assert states(scene) == ["restarting", "draining"]
        await after(mock_clock, 2.9)
        assert scene.stopped == []
        assert started(scene) == []  # the one that fell waits for it
        await after(mock_clock, 0.1)
        assert scene.stopped == [2]
        assert started(scene) == [3]


async def test_a_drain_under_way_ends_as_soon_as_its_siblings_must(mock_clock: MockClock) -> None:
    scene = Scene(workers=2, strategy="one_for_all", shutdown_ms=0, drain_s=100.0)
    async with running(scene):
        scene.relay.finish_when_drained = False
        scene.workers[1].want(Wanted.RESTART)
        await wait_all_tasks_blocked()
        assert states(scene) == ["ready", "draining"]
        await fall(scene, 1)
        await after(mock_clock, 0.0)
        assert scene.stopped == [2]


async def test_a_sibling_that_ends_by_itself_meanwhile_is_no_fall_of_its_own(
    mock_clock: MockClock,
) -> None:
    scene = Scene(workers=2, strategy="one_for_all", max_restarts=1, backoff_min_ms=100)
    async with running(scene):
        scene.relay.finish_when_drained = False
        await fall(scene, 1)
        await fall(scene, 2)
        await after(mock_clock, 0.1)
        await settle(scene)
        assert states(scene) == ["ready"] * 2


async def test_past_the_intensity_of_all_together_the_whole_role_is_given_up(
    mock_clock: MockClock,
) -> None:
    scene = Scene(workers=3, strategy="one_for_all", max_restarts=1, backoff_min_ms=100)
    async with running(scene):
        await fall(scene, 1)
        await after(mock_clock, 0.1)
        await settle(scene)
        await fall(scene, 5)
        assert states(scene) == ["given_up"] * 3
        assert told(scene)[-1] is RoleState.GIVEN_UP
        scene.workers[1].want(Wanted.RESTART)
        await settle(scene)
        assert states(scene) == ["given_up", "ready", "given_up"]
        assert told(scene)[-1] is RoleState.RUNNING


async def test_one_that_does_not_greet_takes_its_siblings_along_too(mock_clock: MockClock) -> None:
    scene = Scene(workers=2, strategy="one_for_all", start_ms=1_000, backoff_min_ms=100)
    async with running(scene, settled=False):
        await wait_all_tasks_blocked()
        scene.greet(1)
        await wait_all_tasks_blocked()
        await after(mock_clock, 1.0)
        assert scene.stopped == [2]
        assert states(scene) == ["restarting"] * 2
        await after(mock_clock, 0.1)
        assert started(scene) == [3]


async def test_a_drained_sibling_stays_drained_and_belongs_again_once_it_is_asked_back(
    mock_clock: MockClock,
) -> None:
    scene = Scene(workers=2, strategy="one_for_all", backoff_min_ms=100)
    async with running(scene):
        scene.workers[0].want(Wanted.DRAIN)
        await wait_all_tasks_blocked()
        await fall(scene, 2)
        await after(mock_clock, 0.1)
        await settle(scene)
        assert states(scene) == ["drained", "ready"]
        scene.workers[0].want(Wanted.RESTART)
        await settle(scene)
        assert states(scene) == ["ready"] * 2
        await fall(scene, scene.workers[1].id)
        assert states(scene) == ["restarting"] * 2


async def test_a_role_with_a_strategy_is_scaled_and_what_comes_belongs_to_it(
    mock_clock: MockClock,
) -> None:
    scene = Scene(workers=1, strategy="one_for_all")
    supervisor = scene.supervisor
    async with running(scene):
        plan = supervisor.plans[0]
        more = replace(plan, config=msgspec.structs.replace(plan.config, workers=3))
        supervisor.change_role(more)
        await settle(scene)
        assert states(scene) == ["ready"] * 3
        await fall(scene, 3)
        assert states(scene) == ["restarting"] * 3
        supervisor.change_role(plan)
        await wait_all_tasks_blocked()
        assert states(scene) == ["restarting"]


async def test_the_strategy_may_change_while_they_run(mock_clock: MockClock) -> None:
    scene = Scene(workers=2)
    supervisor = scene.supervisor
    async with running(scene):
        plan = supervisor.plans[0]
        config = msgspec.structs.replace(plan.config, strategy="one_for_all")
        supervisor.change_role(replace(plan, config=config))
        await fall(scene, 1)
        assert states(scene) == ["restarting"] * 2


async def test_the_stop_of_the_bridge_in_the_middle_of_a_fall_ends_all(
    mock_clock: MockClock,
) -> None:
    scene = Scene(workers=3, strategy="one_for_all")
    async with trio.open_nursery() as nursery:
        await nursery.start(scene.supervisor.run)
        await settle(scene)
        await fall(scene, 2)
        scene.supervisor.stop()
    assert states(scene) == ["stopped"] * 3
    assert len(scene.guards) == 3
    scene.relay.close()


async def test_in_an_upgrade_a_fall_takes_nobody_along(mock_clock: MockClock) -> None:
    scene = Scene(workers=2, strategy="one_for_all")
    async with running(scene):
        upgrade = Upgrade(scene.supervisor, replace(scene.supervisor.plans[0], argv=("/bin/new",)))
        scene.supervisor.begin(upgrade.run)
        await wait_all_tasks_blocked()
        await fall(scene, 3)
        assert upgrade.stage is Stage.ROLLED_BACK
        assert states(scene) == ["ready"] * 2
        await fall(scene, 1)
        assert states(scene) == ["restarting"] * 2


async def test_upgrades_of_two_roles_take_turns(mock_clock: MockClock) -> None:
    scene = Scene(names=("one", "two"))
    async with running(scene):
        upgrades = [
            Upgrade(scene.supervisor, replace(plan, argv=("/bin/new",)))
            for plan in scene.supervisor.plans
        ]
        for upgrade in upgrades:
            scene.supervisor.begin(upgrade.run)
        await wait_all_tasks_blocked()
        # Whose turn is first is the scheduler's choice.
        upgrades.sort(key=lambda upgrade: upgrade.stage is Stage.WAITING)
        assert [u.stage for u in upgrades] == [Stage.RUNNING, Stage.WAITING]
        assert upgrades[1].is_under_way
        assert len(started(scene)) == 1
        await settle(scene)
        await after(mock_clock, 1.0)
        assert [u.stage for u in upgrades] == [Stage.DONE, Stage.RUNNING]
        await settle(scene)
        await after(mock_clock, 1.0)
        assert [u.stage for u in upgrades] == [Stage.DONE, Stage.DONE]


# ---- groups

NAMES = ("a", "b", "c")


def group(strategy: str, **settings: int) -> dict[str, GroupSettings]:
    return {"g": GroupSettings(roles=NAMES, strategy=strategy, **settings)}  # type: ignore[arg-type]


async def test_the_roles_of_a_group_start_in_its_order(mock_clock: MockClock) -> None:
    groups = {"g": GroupSettings(roles=("c", "a"))}
    scene = Scene(names=NAMES, groups=groups, workers=2)
    async with running(scene, settled=False):
        await wait_all_tasks_blocked()
        ids = {w.id: w.plan.name for w in scene.workers}
        assert [ids[w] for w in started(scene)] == ["b", "b", "c", "c"]  # b is in no group
        for worker_id, name in ids.items():
            if name == "c":
                scene.greet(worker_id)
        await wait_all_tasks_blocked()
        assert [ids[w] for w in started(scene)] == ["a", "a", "b", "b"]


async def test_a_role_that_is_given_up_takes_those_behind_it_along(mock_clock: MockClock) -> None:
    scene = Scene(names=NAMES, groups=group("rest_for_one", backoff_min_ms=500), max_restarts=0)
    async with running(scene):
        await fall(scene, 2)
        assert states(scene) == ["ready", "given_up", "restarting"]
        assert scene.supervisor.role_state(1) is RoleState.RUNNING  # it comes back: jobs wait
        await after(mock_clock, 0.499)
        assert started(scene) == []
        await after(mock_clock, 0.001)
        assert [(w.plan.name, w.id) for w in scene.workers] == [("a", 1), ("b", 4), ("c", 3)]
        await settle(scene)
        assert states(scene) == ["ready"] * 3
        assert told(scene, 1) == []


async def test_the_roles_of_a_group_end_in_turn_the_last_first(mock_clock: MockClock) -> None:
    scene = Scene(names=NAMES, groups=group("one_for_all"), max_restarts=0)
    async with running(scene):
        scene.relay.finish_when_drained = False
        await fall(scene, 1)
        assert states(scene) == ["given_up", "ready", "draining"]
        scene.end(3, status=0)
        await wait_all_tasks_blocked()
        assert states(scene) == ["given_up", "draining", "restarting"]


async def test_what_was_given_up_in_an_upgrade_is_told_to_the_group_after_it(
    mock_clock: MockClock,
) -> None:
    scene = Scene(names=("a", "b"), groups={"g": GroupSettings(roles=("a", "b"))}, max_restarts=0)
    async with running(scene):
        upgrade = Upgrade(scene.supervisor, replace(scene.supervisor.plans[0], argv=("/bin/new",)))
        scene.supervisor.begin(upgrade.run)
        await wait_all_tasks_blocked()
        await fall(scene, 1)
        assert states(scene) == ["given_up", "starting", "ready"]
        await fall(scene, 3)
        assert upgrade.stage is Stage.ROLLED_BACK
        assert scene.supervisor.role_state(0) is RoleState.RUNNING  # its group begins it again
        assert told(scene)[-1:] in ([], [RoleState.RUNNING])
        await after(mock_clock, 0.05)
        await settle(scene)
        assert states(scene) == ["ready"] * 2


async def test_a_group_is_given_up_as_a_whole(mock_clock: MockClock) -> None:
    groups = group("rest_for_one", max_restarts=1, backoff_min_ms=100)
    scene = Scene(names=NAMES, groups=groups, max_restarts=0)
    async with running(scene):
        await fall(scene, 3)
        await after(mock_clock, 0.1)
        await settle(scene)
        await fall(scene, 4)
        assert states(scene) == ["given_up"] * 3
        assert [scene.supervisor.role_state(n) for n in range(3)] == [RoleState.GIVEN_UP] * 3


async def test_a_role_of_several_workers_is_given_up_with_its_last_one(
    mock_clock: MockClock,
) -> None:
    scene = Scene(names=("a", "b"), groups={"g": GroupSettings(roles=("a", "b"))}, workers=2,
                  max_restarts=0)  # fmt: skip
    async with running(scene):
        await fall(scene, 1)
        assert states(scene) == ["given_up", "ready", "ready", "ready"]
        await fall(scene, 2)
        await after(mock_clock, 0.05)
        await settle(scene)
        assert states(scene) == ["ready"] * 4  # its group has begun it again, with a clean history
        assert [w.id for w in scene.workers[2:]] == [3, 4]


async def test_a_role_that_begins_and_is_ended_in_one_moment_begins_again(
    mock_clock: MockClock,
) -> None:
    scene = Scene(names=("a", "b"), groups={"g": GroupSettings(roles=("a", "b"))})
    async with running(scene, settled=False):
        await wait_all_tasks_blocked()
        worker = scene.workers[1]
        worker.told(Wanted.RESTART)
        worker.told(Wanted.HOLD)  # before its story has seen the former
        await wait_all_tasks_blocked()
        await settle(scene)
        assert states(scene) == ["ready"] * 2


async def test_groups_may_change_while_roles_run(mock_clock: MockClock) -> None:
    scene = Scene(names=NAMES, max_restarts=0)
    together = scene.supervisor.together
    async with running(scene):
        together.set_groups(group("one_for_all", backoff_min_ms=100))
        await fall(scene, 1)
        assert states(scene) == ["given_up", "restarting", "restarting"]
        together.set_groups({})  # who waited for his turn need not wait any longer
        await settle(scene)
        assert states(scene) == ["given_up", "ready", "ready"]


async def test_a_role_removed_from_its_group_is_waited_for_no_longer(mock_clock: MockClock) -> None:
    scene = Scene(names=NAMES, groups=group("one_for_all"))
    async with running(scene, settled=False):
        await wait_all_tasks_blocked()
        assert started(scene) == [1]
        scene.supervisor.remove_role(0)
        await wait_all_tasks_blocked()
        assert [w.plan.name for w in scene.workers if w.id in started(scene)] == ["b"]
