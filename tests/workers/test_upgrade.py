"""Hot upgrade: in which order workers are replaced, and how everything goes back."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import trio
from registry_fakes import Scene
from trio.testing import MockClock, wait_all_tasks_blocked

from bridge.fabric.relay import RoleState, WorkerRefused
from bridge.workers.handshake_driver import RolePlan
from bridge.workers.upgrade import Stage, Upgrade
from bridge.workers.wishes import Wanted
from bridge.workers.worker import State

NEW = ("/bin/rb-new",)


@asynccontextmanager
async def upgrading(scene: Scene, plan: RolePlan | None = None) -> AsyncIterator[Upgrade]:
    """All workers are ready, and the upgrade begins."""
    async with trio.open_nursery() as nursery:
        await nursery.start(scene.supervisor.run)
        await wait_all_tasks_blocked()
        for worker in scene.workers:
            scene.greet(worker.id)
        await wait_all_tasks_blocked()
        upgrade = Upgrade(scene.supervisor, plan or replace(scene.supervisor.plans[0], argv=NEW))
        scene.supervisor.begin(upgrade.run)
        await wait_all_tasks_blocked()
        yield upgrade
        nursery.cancel_scope.cancel()
    scene.relay.close()


async def pass_probation(scene: Scene, clock: MockClock, worker_id: int) -> None:
    scene.greet(worker_id)
    await wait_all_tasks_blocked()
    clock.jump(1.0)
    await wait_all_tasks_blocked()


def programs(scene: Scene) -> list[tuple[str, ...]]:
    return [worker.plan.argv for worker in scene.supervisor.lasting(0)]


def stage(upgrade: Upgrade) -> Stage:
    """As it is now."""
    return upgrade.stage


def ready(scene: Scene) -> list[int]:
    return [worker.id for worker in scene.workers if worker.state is State.READY]


async def test_each_worker_is_drained_only_after_its_successor_greeted_and_proved_itself(
    mock_clock: MockClock,
) -> None:
    scene = Scene(workers=2)
    async with upgrading(scene) as upgrade:
        assert [worker.id for worker in scene.workers] == [1, 3, 2]  # the successor beside it
        assert ready(scene) == [1, 2]
        scene.greet(3)
        await wait_all_tasks_blocked()
        assert ready(scene) == [1, 3, 2]
        mock_clock.jump(0.999)
        await wait_all_tasks_blocked()
        assert ("drain_worker", 1) not in scene.relay.calls
        mock_clock.jump(0.001)
        await wait_all_tasks_blocked()
        assert ("drain_worker", 1) in scene.relay.calls
        assert ("drain_worker", 2) not in scene.relay.calls
        assert [worker.id for worker in scene.workers] == [3, 2, 4]
        assert upgrade.replaced == 1
        await pass_probation(scene, mock_clock, 4)
        assert upgrade.stage is Stage.DONE
        assert ready(scene) == [3, 4]
        assert programs(scene) == [NEW, NEW]
        assert [worker.index for worker in scene.workers] == [0, 1]
        states = [call[2] for call in scene.relay.calls if call[0] == "set_role_state"]
        assert states == []  # jobs were never refused


async def test_a_worker_may_take_as_long_as_its_jobs_whatever_the_drain_time(
    mock_clock: MockClock,
) -> None:
    scene = Scene(drain_s=2.0)
    scene.relay.finish_when_drained = False
    async with upgrading(scene) as upgrade:
        await pass_probation(scene, mock_clock, 2)
        mock_clock.jump(3000)
        await wait_all_tasks_blocked()
        assert upgrade.is_under_way
        assert scene.stopped == []
        scene.end(1, status=0)
        await wait_all_tasks_blocked()
        assert upgrade.stage is Stage.DONE


async def test_the_stop_of_the_bridge_bounds_that_drain_again(mock_clock: MockClock) -> None:
    scene = Scene(drain_s=2.0)
    scene.relay.finish_when_drained = False
    async with upgrading(scene) as upgrade:
        await pass_probation(scene, mock_clock, 2)
        scene.supervisor.stop()
        await wait_all_tasks_blocked()
        mock_clock.jump(2.0)
        await wait_all_tasks_blocked()
        assert sorted(scene.stopped) == [1, 2]
        assert upgrade.stage is Stage.STOPPED


async def test_a_program_that_does_not_greet_leaves_the_old_workers_untouched(
    mock_clock: MockClock,
) -> None:
    scene = Scene(workers=2, start_ms=3000)
    async with upgrading(scene) as upgrade:
        mock_clock.jump(3.0)
        await wait_all_tasks_blocked()
        assert upgrade.stage is Stage.ROLLED_BACK
        assert upgrade.why == "worker 3: it did not greet within 3000 ms (start_ms)"
        assert ready(scene) == [1, 2]
        assert [worker.id for worker in scene.workers] == [1, 2]


async def test_a_program_that_is_refused_or_cannot_be_started_likewise(
    mock_clock: MockClock,
) -> None:
    scene = Scene()
    async with upgrading(scene) as upgrade:
        scene.supervisor.handle(WorkerRefused(2, "layout digest aaaa, the bridge has bbbb"))
        await wait_all_tasks_blocked()
        assert (upgrade.stage, ready(scene)) == (Stage.ROLLED_BACK, [1])
        scene.refuse_to_start = FileNotFoundError(2, "No such file or directory", "/bin/rb-new")
        again = Upgrade(scene.supervisor, replace(scene.supervisor.plans[0], argv=NEW))
        scene.supervisor.begin(again.run)
        await wait_all_tasks_blocked()
        assert again.stage is Stage.ROLLED_BACK
        assert "could not be started" in (again.why or "")
        assert ready(scene) == [1]


async def test_a_crash_in_probation_goes_back_and_the_old_one_never_stopped(
    mock_clock: MockClock,
) -> None:
    scene = Scene()
    async with upgrading(scene) as upgrade:
        scene.greet(2)
        await wait_all_tasks_blocked()
        mock_clock.jump(0.5)
        scene.end(2, signal=11)
        await wait_all_tasks_blocked()
        assert upgrade.stage is Stage.ROLLED_BACK
        assert upgrade.why == "worker 2: it ended: signal 11 (SIGSEGV)"
        assert ready(scene) == [1]
        assert ("drain_worker", 1) not in scene.relay.calls


async def test_a_late_crash_brings_the_old_program_back_where_it_was_replaced(
    mock_clock: MockClock,
) -> None:
    scene = Scene(workers=3)
    async with upgrading(scene) as upgrade:
        await pass_probation(scene, mock_clock, 4)  # 1 is gone, 5 comes for 2
        scene.end(4, signal=6)
        await wait_all_tasks_blocked()
        assert stage(upgrade) is Stage.ROLLING_BACK
        (back,) = [w.id for w in scene.workers if w.state is State.STARTING and w.plan.argv != NEW]
        assert ready(scene) == [2, 3]
        assert scene.stopped == []  # nothing of the new ends before the old is back
        scene.greet(back)
        await wait_all_tasks_blocked()
        assert stage(upgrade) is Stage.ROLLED_BACK
        assert ready(scene) == [back, 2, 3]
        assert programs(scene) == [("/bin/rb-echo",)] * 3
        assert upgrade.replaced == 0
        assert ("set_role_state", 0, RoleState.GIVEN_UP) not in scene.relay.calls


async def test_a_program_replaced_in_its_place_stays_where_it_works(mock_clock: MockClock) -> None:
    scene = Scene(workers=2)
    async with upgrading(scene, Scene(workers=2).supervisor.plans[0]) as upgrade:
        await pass_probation(scene, mock_clock, 3)
        scene.end(4, signal=6)
        await wait_all_tasks_blocked()
        assert upgrade.stage is Stage.ROLLED_BACK
        assert (ready(scene), upgrade.replaced) == ([3, 2], 1)


async def test_a_successor_that_somebody_drains_is_as_one_that_fails(
    mock_clock: MockClock,
) -> None:
    scene = Scene()
    async with upgrading(scene) as upgrade:
        scene.greet(2)
        await wait_all_tasks_blocked()
        scene.workers[1].want(Wanted.DRAIN)
        await wait_all_tasks_blocked()
        assert upgrade.stage is Stage.ROLLED_BACK
        assert upgrade.why == "worker 2: somebody has drained it"
        assert ready(scene) == [1]


async def test_a_worker_that_is_ended_by_hand_meanwhile_is_passed_over(
    mock_clock: MockClock,
) -> None:
    scene = Scene(workers=2)
    async with upgrading(scene) as upgrade:
        scene.workers[-1].want(Wanted.STOP)
        await wait_all_tasks_blocked()
        await pass_probation(scene, mock_clock, 3)
        assert (upgrade.stage, upgrade.replaced) == (Stage.DONE, 1)
