"""A worker's life under its shepherd: what it is given, how it ends, and that nothing stays."""

from __future__ import annotations

import errno
import os
import signal
import struct
import threading
from pathlib import Path

import pytest
import trio
from shepherd_support import (
    Link,
    children,
    cores_are_files,
    marked_processes,
    memory_group,
    open_descriptors,
    program,
    read_all,
    read_line,
    read_proc,
    started,
    witnessed,
)

from bridge.workers import _shepherd_socket
from bridge.workers import shepherd as shepherd_module
from bridge.workers._shepherd_protocol import Step
from bridge.workers.shepherd import RemoteProtocolError, Shepherd, WorkerStartError, probe_isolation

OBITUARY = struct.Struct("=4siII")  # csrc/include/ringbridge/obituary.h


# ---- how a worker ends


@pytest.mark.parametrize("status", [0, 7, 255])
async def test_an_exit_status_reaches_the_bridge_and_the_obituary(status: int) -> None:
    async with started(program("exits"), str(status)) as (shepherd, link):
        end = await shepherd.wait()
        assert (end.status, end.signal, end.stopped) == (status, None, False)
        assert OBITUARY.unpack(await link.read_obituary()) == (b"RBOB", status, 0, 0)


async def test_a_crash_reaches_the_bridge_and_the_obituary_as_a_signal() -> None:
    async with started(program("crashes")) as (shepherd, link):
        end = await shepherd.wait()
        assert (end.status, end.signal, end.oom) == (None, signal.SIGSEGV, False)
        assert OBITUARY.unpack(await link.read_obituary())[:3] == (b"RBOB", -1, signal.SIGSEGV)


async def test_a_dumped_core_is_told(tmp_path: Path) -> None:
    if not cores_are_files():
        pytest.skip("this machine's administrator has other plans with cores")
    script = f"ulimit -c $(ulimit -Hc); exec {program('crashes')}"
    async with started("sh", "-c", script, cwd=str(tmp_path)) as (shepherd, link):
        assert (await shepherd.wait()).core
        assert OBITUARY.unpack(await link.read_obituary()) == (b"RBOB", -1, signal.SIGSEGV, 1)


async def test_a_worker_killed_for_its_memory_is_told_from_one_that_was_just_killed() -> None:
    with memory_group(limit_bytes=32 << 20) as group:
        if group is None:
            pytest.skip("no memory control group of our own to be had here")
        # Twice the group's limit and no more: it must not be the machine that runs out.
        hog = "dd if=/dev/zero of=/dev/null bs=64M count=1"
        script = f"echo 0 > {group}/cgroup.procs || exit 9; exec {hog}"
        async with started("sh", "-c", script) as (shepherd, link):
            end = await shepherd.wait()
            assert (end.signal, end.oom) == (signal.SIGKILL, True)
            assert OBITUARY.unpack(await link.read_obituary()) == (b"RBOB", -1, signal.SIGKILL, 2)
    async with started("sleep", "1000") as (shepherd, link):
        os.kill(shepherd.pid, signal.SIGKILL)
        assert not (await shepherd.wait()).oom
        assert OBITUARY.unpack(await link.read_obituary()) == (b"RBOB", -1, signal.SIGKILL, 0)


async def test_the_obituary_is_there_before_the_bridge_is_told() -> None:
    async with started(program("exits"), "3") as (shepherd, link):
        await shepherd.wait()
        os.set_blocking(link.obituary, False)
        assert len(os.read(link.obituary, 100)) == OBITUARY.size  # no wait: it is there


async def test_the_resources_that_a_worker_used_are_told() -> None:
    async with started("sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done") as (
        shepherd,
        _,
    ):
        usage = (await shepherd.wait()).usage
        assert usage is not None
        assert usage.user_us + usage.system_us > 1000
        assert usage.rss_max_kib > 100


async def test_several_tasks_wait_and_a_cancelled_wait_changes_nothing() -> None:
    async with started("sleep", "1000") as (shepherd, _):
        ends = []

        async def wait() -> None:
            ends.append(await shepherd.wait())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            nursery.start_soon(wait)
            with trio.move_on_after(0.01) as scope:
                await shepherd.wait()
            assert scope.cancelled_caught
            await shepherd.signal(signal.SIGUSR1)
        assert [end.signal for end in ends] == [signal.SIGUSR1] * 2


async def test_a_wait_ends_with_the_close() -> None:
    async with started("sleep", "1000") as (shepherd, _):
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await shepherd.wait()

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            await shepherd.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await shepherd.signal(signal.SIGTERM)


# ---- how it is stopped


async def test_a_worker_that_heeds_term_ends_by_it() -> None:
    async with started("sleep", "1000", grace_s=30) as (shepherd, link):
        end = await shepherd.stop()
        assert (end.signal, end.stopped, end.init_lost) == (signal.SIGTERM, True, False)
        assert OBITUARY.unpack(await link.read_obituary()) == (b"RBOB", -1, signal.SIGTERM, 0)


async def test_a_worker_that_ignores_term_is_killed_after_the_grace() -> None:
    async with started(program("ignores_sigterm"), grace_s=0.3) as (shepherd, link):
        await read_line(out := shepherd.take_stdout())
        start = trio.current_time()
        end = await shepherd.stop()
        took = trio.current_time() - start
        assert (end.signal, end.stopped, end.init_lost) == (signal.SIGKILL, True, True)
        assert not end.oom
        assert took >= 0.3
        assert await link.read_obituary() == b""  # killed together with its init
        os.close(out)


async def test_a_second_stop_shortens_the_grace() -> None:
    async with started(program("ignores_sigterm"), grace_s=60) as (shepherd, _):
        await read_line(out := shepherd.take_stdout())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shepherd.stop)
            await trio.testing.wait_all_tasks_blocked()
            with trio.fail_after(60):
                assert (await shepherd.stop(grace_s=0)).signal == signal.SIGKILL
        os.close(out)


async def test_a_stopped_worker_hears_the_stop() -> None:
    async with started("sleep", "1000", grace_s=30) as (shepherd, _):
        await shepherd.signal(signal.SIGSTOP)
        assert (await shepherd.stop()).signal == signal.SIGTERM


async def test_sigterm_to_the_shepherd_is_a_stop() -> None:
    async with started("sleep", "1000") as (shepherd, _):
        os.kill(shepherd.shepherd_pid, signal.SIGTERM)
        end = await shepherd.wait()
        assert (end.signal, end.stopped) == (signal.SIGTERM, True)


async def test_a_shepherd_that_does_not_answer_is_killed_with_its_tree(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shepherd_module, "STOPPED_WITHIN_S", 0.1)
    async with started("sleep", "1000", grace_s=0.1) as (shepherd, _):
        os.kill(shepherd.shepherd_pid, signal.SIGSTOP)
        with trio.fail_after(60):
            assert (await shepherd.stop()).shepherd_lost


async def test_a_stop_after_the_end_tells_the_end() -> None:
    async with started(program("exits"), "5") as (shepherd, _):
        pidfd = shepherd.take_pidfd()
        await trio.lowlevel.wait_readable(pidfd)
        os.close(pidfd)
        assert (await shepherd.stop()).status == 5
        assert (await shepherd.stop()).status == 5


# ---- its tree


@pytest.mark.parametrize("namespaces", [True, False])
@pytest.mark.parametrize("how", ["it ends", "stop", "kill", "aclose", "init killed"])
async def test_the_whole_tree_ends_with_its_worker(how: str, namespaces: bool) -> None:
    status = ["9"] if how == "it ends" else []
    async with started(program("forks_tree"), *status, namespaces=namespaces, hold_stdin=True) as (
        shepherd,
        link,
    ):
        out = shepherd.take_stdout()
        assert await read_line(out) == "ready"
        tree = marked_processes(link.mark)
        assert len(tree) == 4
        with witnessed([*tree, shepherd.init_pid, shepherd.shepherd_pid]) as witness:
            match how:
                case "it ends":
                    await shepherd.close_stdin()
                    assert (await shepherd.wait()).status == 9
                case "stop":
                    assert (await shepherd.stop()).stopped
                case "kill":
                    await shepherd.signal(signal.SIGKILL)
                    assert (await shepherd.wait()).signal == signal.SIGKILL
                case "aclose":
                    await shepherd.aclose()
                case "init killed":
                    os.kill(shepherd.init_pid, signal.SIGKILL)
                    end = await shepherd.wait()
                    assert (end.signal, end.init_lost) == (signal.SIGKILL, True)
                    assert await link.read_obituary() == b""
            # EXITED says that all is gone, so there is nothing to wait for but the shepherd.
            assert marked_processes(link.mark) == {}
            witness.wait_all_gone(within_s=1)
        os.close(out)


async def test_a_worker_cannot_harm_its_init() -> None:
    async with started(program("kills_all")) as (shepherd, _):
        if not shepherd.isolation.pid_namespace:
            pytest.skip("no PID namespace here")
        out = shepherd.take_stdout()
        assert await read_all(out) == "init lives\n"
        assert (await shepherd.wait()).status == 0
        os.close(out)


async def test_no_reader_of_the_obituary_means_no_bridge() -> None:
    async with started(program("ignores_sigterm")) as (shepherd, link):
        with witnessed([shepherd.pid, shepherd.init_pid]) as witness:
            os.kill(shepherd.shepherd_pid, signal.SIGSTOP)  # so the init is on its own
            os.dup2(os.open(os.devnull, os.O_RDONLY), link.obituary)
            await trio.to_thread.run_sync(witness.wait_all_gone, 1.5)
        os.kill(shepherd.shepherd_pid, signal.SIGCONT)
        assert (await shepherd.wait()).init_lost


# ---- what it is given


async def show(*argv: str, **options: object) -> dict[str, list[str]]:
    """What a worker says of itself: name -> values."""
    async with started(program("shows_itself"), *argv, **options) as (shepherd, link):
        out = shepherd.take_stdout()
        shown: dict[str, list[str]] = {"mark": [link.mark]}
        for line in (await read_all(out)).splitlines():
            name, _, value = line.partition(" ")
            shown.setdefault(name, []).append(value)
        os.close(out)
        assert (await shepherd.wait()).status == 0
    return shown


async def test_a_worker_has_its_nine_descriptors_and_no_other() -> None:
    leak = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(leak, True)  # what a careless library in the bridge leaves open
    try:
        shown = await show()
    finally:
        os.close(leak)
    fds = dict(sorted(entry.split(" ", 1) for entry in shown["fd"]))
    assert list(fds) == [str(fd) for fd in range(9)]
    assert all(fds[str(fd)].startswith("pipe:") for fd in range(3))
    for index in range(6):
        assert fds[str(3 + index)] == f"/memfd:{shown['mark'][0]}-{index} (deleted)"


async def test_a_worker_has_clean_signals_a_group_and_no_new_privileges() -> None:
    was = signal.signal(
        signal.SIGUSR2, signal.SIG_IGN
    )  # the bridge's own dispositions stay its own
    try:
        shown = await show()
    finally:
        signal.signal(signal.SIGUSR2, was)
    assert "blocked" not in shown
    assert "ignored" not in shown
    assert shown["pgrp"] == shown["pid"] != shown["sid"]  # test_shepherd_session.py says why
    assert shown["no_new_privs"] == ["1"]
    assert shown["parent_death_signal"] == [str(int(signal.SIGKILL))]
    assert shown["uid"] == [str(os.getuid())]


async def test_a_worker_has_exactly_its_environment_arguments_and_directory(
    tmp_path: Path,
) -> None:
    env = {"A": "1", "EMPTY": "", "WITH": "a=b\nc", "RINGBRIDGE_ROLE": "echo"}
    shown = await show("one", "", "zwei ä", cwd=str(tmp_path), env={**env, "WITH": "a=b c"})
    mark = f"SHEPHERD_TEST_MARK={shown['mark'][0]}"
    wanted = {"A=1", "EMPTY=", "WITH=a=b c", "RINGBRIDGE_ROLE=echo", mark, f"PATH={os.defpath}"}
    assert set(shown["env"]) == wanted
    assert shown["argv"] == [program("shows_itself"), "one", "", "zwei ä"]
    assert shown["cwd"] == [str(tmp_path)]


async def test_no_process_of_a_worker_ever_has_the_cookie_in_its_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RINGBRIDGE_COOKIE", "swordfish")
    async with started("sleep", "1000", env={"RINGBRIDGE_COOKIE": "swordfish"}) as (shepherd, _):
        for pid in (shepherd.shepherd_pid, shepherd.init_pid, shepherd.pid):
            environ = read_proc(pid, "environ")
            assert b"swordfish" not in environ + read_proc(pid, "cmdline")
        assert b"SHEPHERD_TEST_MARK" in environ  # of the worker: it was read at all


async def test_stdin_ends_when_its_owner_closes_it() -> None:
    async with started("cat") as (shepherd, _):
        stdin, out = shepherd.take_stdin(), shepherd.take_stdout()
        os.write(stdin, b"hello\n")
        assert await read_line(out) == "hello"
        os.close(stdin)
        assert (await shepherd.wait()).status == 0
        os.close(out)


async def test_a_held_stdin_ends_by_command_only() -> None:
    async with started("cat", hold_stdin=True) as (shepherd, _):
        os.close(shepherd.take_stdin())
        with trio.move_on_after(0.05) as scope:
            await shepherd.wait()
        assert scope.cancelled_caught
        await shepherd.close_stdin()
        assert (await shepherd.wait()).status == 0


async def test_a_flood_on_stderr_arrives_whole() -> None:
    async with started(program("floods_stderr"), "1000000") as (shepherd, _):
        out, err = shepherd.take_stdout(), shepherd.take_stderr()
        assert len(await read_all(err)) == 1_000_000
        assert await read_all(out) == "done\n"
        assert (await shepherd.wait()).status == 0
        os.close(out)
        os.close(err)


async def test_each_descriptor_is_taken_once() -> None:
    async with started("cat") as (shepherd, _):
        os.close(shepherd.take_stdin())
        with pytest.raises(ValueError, match="taken before"):
            shepherd.take_stdin()


# ---- when it cannot be started


async def start_failing(*argv: str, **options: object) -> OSError:
    """Fail to start; nothing may be left. Returns the error."""
    link = Link()
    before = open_descriptors(), children()
    try:
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the callers look at it closely
            await Shepherd.start(
                link.spawn(*argv, **options),  # type: ignore[arg-type]
                link_fds=link.fds,
                obituary_fd=link.obituary_end,
            )
        assert marked_processes(link.mark) == {}
        assert (open_descriptors(), children()) == before
    finally:
        link.close()
    return caught.value


async def test_a_missing_program_is_named() -> None:
    error = await start_failing("/nowhere/at/all")
    assert isinstance(error, WorkerStartError)
    assert (error.errno, error.step, error.filename) == (errno.ENOENT, Step.EXEC, "/nowhere/at/all")


async def test_a_program_that_path_does_not_have_is_named() -> None:
    error = await start_failing("no-such-program-anywhere")
    assert error.errno == errno.ENOENT
    assert "no-such-program-anywhere" in str(error)


async def test_a_file_that_is_no_program_is_refused(tmp_path: Path) -> None:
    script = tmp_path / "text"
    script.write_text("just text\n")
    error = await start_failing(str(script))
    assert (error.errno, error.filename) == (errno.EACCES, str(script))


async def test_a_missing_directory_is_named() -> None:
    error = await start_failing("true", cwd="/nowhere/at/all")
    assert isinstance(error, WorkerStartError)
    assert (error.errno, error.step, error.filename) == (errno.ENOENT, Step.CWD, "/nowhere/at/all")


async def test_a_missing_shepherd_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RINGBRIDGE_SHEPHERD", "/nowhere/shepherd")
    error = await start_failing("true")
    assert "make shepherd" in str(error)


async def test_something_else_than_a_shepherd_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RINGBRIDGE_SHEPHERD", "/bin/true")
    error = await start_failing("true")
    assert "ended without a word" in str(error)


@pytest.mark.parametrize(
    ("argv", "options", "rule"),
    [
        ((), {}, "needs a program"),
        (("true",) + ("x",) * 256, {}, "1 to 256 arguments"),
        (("true", "x" * 70000), {}, "the limit is 65536"),
        (("true", "a\0b"), {}, "NUL"),
        (("true",), {"env": {"A=B": ""}}, "cannot name"),
        (("true",), {"env": {str(i): "" for i in range(513)}}, "at most 512"),
        (("true",), {"grace_s": -1.0}, "grace"),
    ],
)
async def test_what_the_protocol_cannot_say_is_refused(
    argv: tuple[str, ...], options: dict[str, object], rule: str
) -> None:
    link = Link()
    with pytest.raises(ValueError, match=rule):
        await Shepherd.start(
            link.spawn(*argv, **options),  # type: ignore[arg-type]
            link_fds=link.fds,
            obituary_fd=link.obituary_end,
        )
    link.close()


async def test_a_cancelled_start_leaves_nothing() -> None:
    before = open_descriptors(), children()
    for after_ms in (0, 0.2, 0.5, 0.8, 1, 1.5, 2, 3):
        link = Link()
        with trio.move_on_after(after_ms / 1000):
            shepherd = await Shepherd.start(
                link.spawn("sleep", "1000"), link_fds=link.fds, obituary_fd=link.obituary_end
            )
            with trio.CancelScope(shield=True):
                await shepherd.aclose()
        assert marked_processes(link.mark) == {}
        link.close()
    assert (open_descriptors(), children()) == before


# ---- many of them, and the sockets' own ways


async def test_fifty_shepherds_leave_no_descriptor_and_no_child() -> None:
    async def live(index: int) -> None:
        async with started("sh", "-c", f"read x; exit {index}") as (shepherd, _):
            await shepherd.close_stdin()
            assert (await shepherd.wait()).status == index

    await live(0)
    before = open_descriptors(), children()
    for batch in range(5):
        async with trio.open_nursery() as nursery:
            for index in range(10):
                nursery.start_soon(live, batch * 10 + index)
    assert (open_descriptors(), children()) == before


async def test_a_shepherd_and_its_init_are_small() -> None:
    """What the pair has of its own. Its text is there once for all shepherds of a machine, and how
    much of it counts as theirs is the page cache's affair.
    """
    async with started("sleep", "1000") as (shepherd, _):
        rollups = [
            read_proc(pid, "smaps_rollup").decode()
            for pid in (shepherd.shepherd_pid, shepherd.init_pid)
        ]
        own_kib = sum(int(rollup.split("Pss_Anon:")[1].split()[0]) for rollup in rollups)
        assert own_kib <= 120, "\n".join(rollups)


async def test_one_thread_starts_all_shepherds_and_outlives_every_event_loop() -> None:
    """The parent death signal follows the thread that forked."""

    def live_in_a_loop_of_its_own() -> None:
        async def live() -> None:
            async with started(program("exits")) as (shepherd, _):
                await shepherd.wait()

        trio.run(live)

    await trio.to_thread.run_sync(live_in_a_loop_of_its_own)
    await trio.to_thread.run_sync(live_in_a_loop_of_its_own)
    spawners = [thread for thread in threading.enumerate() if "spawner" in thread.name]
    assert len(spawners) == 1
    assert spawners[0].is_alive()


async def test_words_of_a_shepherd_that_ended_with_ours_unread_still_arrive() -> None:
    ours, theirs = _shepherd_socket.pair()
    with ours:
        theirs.send(b"last words")
        ours.send(b"never read")
        theirs.close()  # the kernel now reports ECONNRESET before it gives out the last words
        assert await _shepherd_socket.receive(ours, os.getpid()) == (b"last words", [])
        assert await _shepherd_socket.receive(ours, os.getpid()) == (b"", [])


async def test_words_of_another_process_than_the_shepherd_are_not_heard() -> None:
    ours, theirs = _shepherd_socket.pair()
    with ours, theirs:
        theirs.send(b"not from the shepherd")
        with pytest.raises(RemoteProtocolError, match="the shepherd is 1"):
            await _shepherd_socket.receive(ours, 1)


async def test_the_probe_says_what_a_worker_gets() -> None:
    isolation = await probe_isolation()
    assert isolation.pid_namespace == (isolation.namespace_error == 0)
