"""PortSupervisor: workers more and fewer, roles that come and go, settings that change."""

from dataclasses import replace

import msgspec
import trio
from registry_fakes import Scene
from trio.testing import MockClock, wait_all_tasks_blocked

from bridge.config import RoleConfig
from bridge.fabric.relay import RoleState
from bridge.workers.handshake_driver import RolePlan
from bridge.workers.worker import State


def changed(plan: RolePlan, **settings: object) -> RolePlan:
    return replace(plan, config=msgspec.structs.replace(plan.config, **settings))


async def settle(scene: Scene) -> None:
    await wait_all_tasks_blocked()
    for worker in scene.workers:
        if worker.state is State.STARTING:
            scene.greet(worker.id)
    await wait_all_tasks_blocked()


async def test_workers_become_more_and_fewer_and_places_are_used_again(
    mock_clock: MockClock,
) -> None:
    scene = Scene(workers=2)
    supervisor = scene.supervisor
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        await settle(scene)
        supervisor.change_role(changed(supervisor.plans[0], workers=4))
        await settle(scene)
        assert [(w.id, w.index, w.state) for w in scene.workers] == [
            (n + 1, n, State.READY) for n in range(4)
        ]
        scene.relay.finish_when_drained = False
        supervisor.change_role(changed(supervisor.plans[0], workers=1))
        await wait_all_tasks_blocked()
        assert [w.state for w in scene.workers] == [State.READY] + [State.DRAINING] * 3
        supervisor.change_role(changed(supervisor.plans[0], workers=2))
        await settle(scene)
        assert [w.index for w in supervisor.lasting(0)] == [0, 1]
        for worker_id in (2, 3, 4):
            scene.end(worker_id, status=0)
        await wait_all_tasks_blocked()
        assert [(w.id, w.index) for w in scene.workers] == [(1, 0), (5, 1)]
        assert supervisor.find(3) is None
        assert [call for call in scene.relay.calls if call[0] == "set_role_state"] == []
        nursery.cancel_scope.cancel()
    scene.relay.close()


async def test_settings_change_but_not_the_program_of_workers_that_start_again(
    mock_clock: MockClock,
) -> None:
    scene = Scene(start_ms=5_000, backoff_min_ms=100)
    supervisor = scene.supervisor
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        await settle(scene)
        plan = changed(supervisor.plans[0], start_ms=1_000, backoff_min_ms=500, env={"A": "1"})
        supervisor.change_role(replace(plan, argv=("/bin/other",)))
        scene.end(1, signal=9)
        await wait_all_tasks_blocked()
        mock_clock.jump(0.499)
        await wait_all_tasks_blocked()
        assert scene.state() is State.RESTARTING
        mock_clock.jump(0.001)
        await wait_all_tasks_blocked()
        assert scene.state() is State.STARTING
        assert scene.spawns[1].argv == scene.spawns[0].argv
        assert "A" not in scene.spawns[1].env
        mock_clock.jump(1.0)
        await wait_all_tasks_blocked()
        assert scene.workers[0].last_error == "it did not greet within 1000 ms (start_ms)"
        nursery.cancel_scope.cancel()
    scene.relay.close()


async def test_a_role_comes_and_goes_with_its_last_worker(mock_clock: MockClock) -> None:
    scene = Scene(names=("echo", "sleep"))
    supervisor = scene.supervisor
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        await settle(scene)
        scene.relay.finish_when_drained = False
        supervisor.remove_role(0)
        await wait_all_tasks_blocked()
        assert ("set_role_state", 0, RoleState.DRAINING) in scene.relay.calls
        assert ("remove_role", 0) not in scene.relay.calls
        assert supervisor.role("echo") is None
        scene.end(1, status=0)
        await wait_all_tasks_blocked()
        assert scene.relay.calls[-1] == ("remove_role", 0)
        assert [plan.name for plan in supervisor.plans] == ["sleep"]
        plan = RolePlan(2, "more", ("/bin/more",), "/", RoleConfig(command=("more",), workers=2))
        supervisor.add_role(plan)
        await settle(scene)
        assert [(w.plan.name, w.state) for w in scene.workers] == [
            ("sleep", State.READY),
            ("more", State.READY),
            ("more", State.READY),
        ]
        nursery.cancel_scope.cancel()
    scene.relay.close()


async def test_a_drained_role_keeps_its_workers_and_is_resumed(mock_clock: MockClock) -> None:
    scene = Scene()
    supervisor = scene.supervisor
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        await settle(scene)
        supervisor.close_role(0, True)
        assert supervisor.role_state(0) is RoleState.DRAINING
        await wait_all_tasks_blocked()
        assert scene.state() is State.READY
        supervisor.close_role(0, False)
        told = [call[2] for call in scene.relay.calls if call[0] == "set_role_state"]
        assert told == [RoleState.DRAINING, RoleState.RUNNING]
        nursery.cancel_scope.cancel()
    scene.relay.close()
