"""PortSupervisor and a worker's life story, over fakes and a clock that jumps."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from registry_fakes import Scene
from structlog.testing import capture_logs
from trio.testing import MockClock, wait_all_tasks_blocked

from bridge.fabric.lanes import ListedState, ListedWorker
from bridge.fabric.relay import JobLost, RoleState, WorkerBroke, WorkerOutput, WorkerRefused
from bridge.lanes.listing import listed
from bridge.workers.output import TAIL_BYTES_MAX
from bridge.workers.shepherd import RemoteProtocolError
from bridge.workers.wishes import Wanted
from bridge.workers.worker import State


@asynccontextmanager
async def running(scene: Scene) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        await nursery.start(scene.supervisor.run)
        await wait_all_tasks_blocked()
        yield
        nursery.cancel_scope.cancel()
    assert all(guard.closed for guard in scene.guards)
    scene.relay.close()


async def advance(clock: MockClock, seconds: float) -> None:
    clock.jump(seconds)
    await wait_all_tasks_blocked()


async def test_each_worker_has_an_id_a_link_and_is_ready_once_it_greeted(
    mock_clock: MockClock,
) -> None:
    scene = Scene(workers=2)
    async with running(scene):
        assert [worker.id for worker in scene.workers] == [1, 2]
        assert [worker.state for worker in scene.workers] == [State.STARTING] * 2
        scene.greet(2)
        await wait_all_tasks_blocked()
        assert [worker.state for worker in scene.workers] == [State.STARTING, State.READY]
        assert (scene.workers[1].kit, scene.workers[1].os_pid) == ("c", 1002)


async def test_a_worker_that_crashed_starts_again_after_the_backoff_with_a_new_id_and_link(
    mock_clock: MockClock,
) -> None:
    scene = Scene(backoff_min_ms=100)
    async with running(scene):
        scene.greet(1)
        await wait_all_tasks_blocked()
        scene.end(1, signal=11)
        await wait_all_tasks_blocked()
        (worker,) = scene.workers
        assert worker.state is State.RESTARTING
        assert worker.last_error == "it ended: signal 11 (SIGSEGV)"
        await advance(mock_clock, 0.099)
        assert worker.state is State.RESTARTING
        await advance(mock_clock, 0.001)
        assert (worker.id, worker.state, worker.restarts) == (2, State.STARTING, 1)
        assert scene.relay.links == {1, 2}
        assert scene.supervisor.find(1) is None


async def test_who_is_told_of_changes_knows_all_that_has_changed(mock_clock: MockClock) -> None:
    """What BEAMs with a lane read is kept by this alone (bridge/lanes/listing.py)."""
    scene = Scene(backoff_min_ms=100)
    told: list[ListedWorker] = []
    scene.supervisor.observers.append(lambda worker: told.append(listed(worker)))
    async with running(scene):
        (worker,) = scene.workers
        assert told[-1] == listed(worker)
        assert (told[-1].state, told[-1].os_pid) == (ListedState.STARTING, 1001)
        scene.greet(1)
        await wait_all_tasks_blocked()
        assert told[-1] == listed(worker)
        assert told[-1].kit == "c"
        scene.end(1, signal=11)
        await wait_all_tasks_blocked()
        assert told[-1] == listed(worker)
        assert told[-1].os_pid == 0
        await advance(mock_clock, 0.1)
        assert told[-1] == listed(worker)
        assert (told[-1].worker, told[-1].os_pid) == (2, 1002)


async def test_a_worker_that_never_greets_is_ended_at_the_starting_deadline(
    mock_clock: MockClock,
) -> None:
    scene = Scene(start_ms=3_000)
    async with running(scene):
        await advance(mock_clock, 2.9)
        assert scene.stopped == []
        await advance(mock_clock, 0.1)
        assert scene.stopped == [1]
        assert scene.workers[0].last_error == "it did not greet within 3000 ms (start_ms)"
        assert scene.state() is State.RESTARTING


async def test_a_refused_worker_counts_as_a_failure_is_logged_and_in_the_end_given_up(
    mock_clock: MockClock,
) -> None:
    scene = Scene(max_restarts=2, backoff_min_ms=100, backoff_max_ms=100)
    why = "layout digest aaaa, the bridge has bbbb"
    with capture_logs() as logs:
        async with running(scene):
            for worker_id in (1, 2, 3):
                scene.supervisor.handle(WorkerRefused(worker_id, why))
                await wait_all_tasks_blocked()
                await advance(mock_clock, 0.1)
            assert scene.state() is State.GIVEN_UP
            assert scene.stopped == [1, 2, 3]
            assert scene.relay.calls[-1] == ("set_role_state", 0, RoleState.GIVEN_UP)
    told = [entry for entry in logs if entry["event"] == "worker failed"]
    assert [entry["why"] for entry in told] == [f"it was refused: {why}"] * 3


async def test_a_program_that_cannot_be_started_leaves_no_link_and_is_tried_again(
    mock_clock: MockClock,
) -> None:
    scene = Scene(backoff_min_ms=100)
    scene.refuse_to_start = FileNotFoundError(2, "No such file or directory", "/bin/rb-echo")
    async with running(scene):
        assert scene.relay.links == set()
        assert "could not be started" in (scene.workers[0].last_error or "")
        scene.refuse_to_start = None
        await advance(mock_clock, 0.1)
        assert scene.state() is State.STARTING
        assert scene.relay.links == {2}


@pytest.mark.parametrize(
    "error", [ValueError("too many variables"), RemoteProtocolError("STARTED came twice")]
)
async def test_a_start_that_cannot_succeed_is_a_failure_and_not_the_end_of_the_bridge(
    mock_clock: MockClock, error: Exception
) -> None:
    scene = Scene(max_restarts=0)
    scene.refuse_to_start = error
    async with running(scene):
        assert scene.workers[0].last_error == f"it could not be started: {error}"
        assert scene.state() is State.GIVEN_UP


async def test_an_exit_signal_ends_the_life_and_counts_as_a_failure(mock_clock: MockClock) -> None:
    scene = Scene(max_restarts=0)
    async with running(scene):
        scene.greet(1)
        await wait_all_tasks_blocked()
        scene.workers[0].kill("why not")
        await wait_all_tasks_blocked()
        assert scene.stopped == [1]
        assert scene.state() is State.GIVEN_UP
        assert "exit signal" in (scene.workers[0].last_error or "")


async def test_a_role_is_given_up_only_when_its_last_worker_is(mock_clock: MockClock) -> None:
    scene = Scene(workers=2, max_restarts=0)
    async with running(scene):
        scene.end(1, signal=9)
        await wait_all_tasks_blocked()
        assert scene.state() is State.GIVEN_UP
        assert scene.supervisor.role_state(0) is RoleState.RUNNING
        scene.end(2, signal=9)
        await wait_all_tasks_blocked()
        assert scene.supervisor.role_state(0) is RoleState.GIVEN_UP


async def test_a_transient_worker_that_ended_normally_stays_ended(mock_clock: MockClock) -> None:
    scene = Scene(restart="transient")
    async with running(scene):
        scene.greet(1)
        await wait_all_tasks_blocked()
        scene.end(1, status=0)
        await advance(mock_clock, 100.0)
        assert scene.state() is State.FINISHED
        assert len(scene.guards) == 1


async def test_a_drained_worker_finishes_and_stays_ended_until_a_restart_is_asked(
    mock_clock: MockClock,
) -> None:
    scene = Scene()
    async with running(scene):
        scene.greet(1)
        await wait_all_tasks_blocked()
        scene.workers[0].want(Wanted.DRAIN)
        await wait_all_tasks_blocked()
        assert ("drain_worker", 1) in scene.relay.calls
        assert scene.stopped == []
        assert scene.state() is State.DRAINED
        assert scene.supervisor.role_state(0) is RoleState.DRAINING
        scene.workers[0].want(Wanted.RESTART)
        await wait_all_tasks_blocked()
        assert (scene.workers[0].id, scene.workers[0].state) == (2, State.STARTING)
        assert scene.supervisor.role_state(0) is RoleState.RUNNING


async def test_a_worker_that_does_not_drain_in_time_is_ended(mock_clock: MockClock) -> None:
    scene = Scene(drain_s=5.0)
    scene.relay.finish_when_drained = False
    async with running(scene):
        scene.greet(1)
        await wait_all_tasks_blocked()
        scene.workers[0].want(Wanted.DRAIN)
        await wait_all_tasks_blocked()
        assert scene.state() is State.DRAINING
        await advance(mock_clock, 5.0)
        assert scene.stopped == [1]
        assert scene.state() is State.DRAINED


async def test_a_worker_that_was_given_up_runs_again_with_a_clean_history_when_asked(
    mock_clock: MockClock,
) -> None:
    scene = Scene(max_restarts=1, backoff_min_ms=100)
    async with running(scene):
        scene.end(1, status=1)
        await advance(mock_clock, 0.0)
        await advance(mock_clock, 0.1)
        scene.end(2, status=1)
        await wait_all_tasks_blocked()
        assert scene.state() is State.GIVEN_UP
        scene.workers[0].want(Wanted.RESTART)
        await wait_all_tasks_blocked()
        scene.end(3, status=1)
        await wait_all_tasks_blocked()
        assert scene.state() is State.RESTARTING


async def test_stop_drains_what_runs_and_run_returns(mock_clock: MockClock) -> None:
    scene = Scene(names=("echo", "sleep"))
    async with trio.open_nursery() as nursery:
        await nursery.start(scene.supervisor.run)
        await wait_all_tasks_blocked()
        scene.greet(1)
        await wait_all_tasks_blocked()
        scene.supervisor.stop()
    assert [worker.state for worker in scene.workers] == [State.STOPPED] * 2
    assert ("set_role_state", 0, RoleState.DRAINING) in scene.relay.calls
    assert ("drain_worker", 1) in scene.relay.calls
    assert scene.stopped == [2]  # the one that had not greeted has no job to finish
    scene.relay.close()


async def test_a_cancelled_supervisor_ends_its_workers(mock_clock: MockClock) -> None:
    scene = Scene(workers=3)
    async with running(scene):
        scene.greet(1)
        await wait_all_tasks_blocked()
    assert sorted(scene.stopped) == [1, 2, 3]


async def test_when_the_relay_never_tells_an_end_the_story_still_goes_on(
    mock_clock: MockClock,
) -> None:
    scene = Scene(start_ms=1_000)
    scene.end_when_stopped = False
    async with running(scene):
        await advance(mock_clock, 1.0)
        await advance(mock_clock, 5.0)
        assert scene.state() is State.RESTARTING
        scene.end_when_stopped = True


async def test_a_broken_rule_is_the_error_that_is_kept(mock_clock: MockClock) -> None:
    scene = Scene()
    async with running(scene):
        scene.greet(1)
        await wait_all_tasks_blocked()
        scene.supervisor.handle(WorkerBroke(1, "payload outside the result region"))
        scene.end(1, signal=9)
        await wait_all_tasks_blocked()
        assert scene.workers[0].last_error == (
            "it broke a rule and was fenced: payload outside the result region"
        )


async def test_a_fenced_worker_whose_end_nobody_tells_is_ended_by_its_shepherd(
    mock_clock: MockClock,
) -> None:
    """Its init is stopped: there is no obituary, and what is left of its tree would stay."""
    scene = Scene()
    async with running(scene):
        scene.greet(1)
        await wait_all_tasks_blocked()
        scene.supervisor.handle(WorkerBroke(1, "no_heartbeat"))
        await wait_all_tasks_blocked()
        assert scene.stopped == []  # the relay has killed it: mostly its end is a matter of ms
        await advance(mock_clock, 1.0)
        assert scene.stopped == [1]


async def test_output_becomes_log_lines_with_worker_and_role(mock_clock: MockClock) -> None:
    scene = Scene()
    with capture_logs() as logs:
        async with running(scene):
            scene.supervisor.handle(WorkerOutput(1, "stderr", b"one\ntw", 7))
            scene.supervisor.handle(WorkerOutput(1, "stderr", b"o\nrest"))
            scene.end(1, status=1)
            await wait_all_tasks_blocked()
    lines = [entry for entry in logs if entry["event"] == "worker output"]
    told = [(entry["line"], entry.get("job")) for entry in lines]
    assert told == [("one", 7), ("two", 7), ("rest", None)]
    assert {(entry["role"], entry["worker"], entry["stream"]) for entry in lines} == {
        ("echo", 1, "stderr")
    }


async def test_a_life_that_went_wrong_leaves_a_report_with_its_last_words_and_jobs(
    mock_clock: MockClock,
) -> None:
    scene = Scene()
    async with running(scene):
        scene.greet(1)
        await advance(mock_clock, 1.5)
        for text in (b"x" * TAIL_BYTES_MAX, b"last\n"):
            scene.supervisor.handle(WorkerOutput(1, "stderr", text, 7))
        scene.supervisor.handle(WorkerOutput(1, "stdout", b"words", 7))
        for job in range(200):
            scene.supervisor.handle(JobLost(1, job, "worker_crashed", b""))
        scene.end(1, signal=11)
        await wait_all_tasks_blocked()
        report = scene.supervisor.crashes.find(1)
        assert report is not None
        assert report.output.endswith(b"xlast\nwords")
        assert (len(report.output), report.output_forgotten) == (TAIL_BYTES_MAX, 10)
        assert (report.signal, report.os_pid, report.lived_ms) == (11, 1001, 1500)
        assert (report.jobs_lost, report.jobs) == (200, tuple(range(100)))
        assert report.why == "it ended: signal 11 (SIGSEGV)"


async def test_an_end_that_was_asked_for_leaves_no_report(mock_clock: MockClock) -> None:
    scene = Scene()
    async with running(scene):
        scene.greet(1)
        await wait_all_tasks_blocked()
        scene.workers[0].want(Wanted.RESTART)
        await wait_all_tasks_blocked()
        assert scene.supervisor.crashes.newest_first() == []


async def test_a_worker_is_not_given_the_cookie_nor_the_rest_of_the_environment(
    mock_clock: MockClock,
) -> None:
    scene = Scene(env={"MODE": "fast"})
    async with running(scene):
        assert scene.spawns[0].env == {
            "PATH": "/bin",
            "MODE": "fast",
            "RINGBRIDGE_LINK_FD": "3",
            "RINGBRIDGE_WORKER_ID": "1",
            "RINGBRIDGE_ROLE": "echo",
        }


async def test_an_event_of_a_life_that_is_gone_is_dropped(mock_clock: MockClock) -> None:
    scene = Scene()
    async with running(scene):
        scene.end(99, status=1)
        await wait_all_tasks_blocked()
        assert scene.state() is State.STARTING


@pytest.mark.parametrize("wanted", [Wanted.DRAIN, Wanted.RESTART])
async def test_what_is_asked_during_the_backoff_is_done_at_once(
    mock_clock: MockClock, wanted: Wanted
) -> None:
    scene = Scene(backoff_min_ms=10_000)
    async with running(scene):
        scene.end(1, status=1)
        await wait_all_tasks_blocked()
        scene.workers[0].want(wanted)
        await wait_all_tasks_blocked()
        expected = State.DRAINED if wanted is Wanted.DRAIN else State.STARTING
        assert scene.state() is expected
