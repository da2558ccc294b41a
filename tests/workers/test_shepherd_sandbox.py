"""What a role's sandbox and limits lay on its workers, seen from inside and from outside."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import select
import signal
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from shepherd_support import Bare, Link, memory_group, program, read_all, read_line, started

from bridge.config.sandbox import SandboxSettings, WorkerLimits
from bridge.workers import _control_groups, _landlock
from bridge.workers import _shepherd_protocol as protocol
from bridge.workers import spawn as spawning
from bridge.workers._control_groups import Places
from bridge.workers._shepherd_protocol import Started, StartFlag, Step
from bridge.workers.shepherd import Exit, Shepherd, WorkerStartError

needs_landlock = pytest.mark.skipif(not _landlock.available(), reason="no Landlock here")
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can change users")


async def run(script: str, **options: object) -> tuple[str, Exit]:
    """What a worker's shell says, errors included, and how it ends."""
    async with started("sh", "-c", f"exec 2>&1; {script}", **options) as (shepherd, _):
        out = shepherd.take_stdout()
        said = await read_all(out)
        os.close(out)
        return said, await shepherd.wait()


async def start_failing(*argv: str, **options: object) -> WorkerStartError:
    link = Link()
    try:
        with pytest.raises(WorkerStartError) as caught:
            await Shepherd.start(
                link.spawn(*argv, **options),  # type: ignore[arg-type]
                link_fds=link.fds,
                obituary_fd=link.obituary_end,
            )
    finally:
        link.close()
    return caught.value


# ---- as whom


@needs_root
async def test_a_worker_runs_as_the_user_of_its_role_with_that_users_groups() -> None:
    said, _ = await run(
        "id -u; id -g; id -G; grep -E 'Cap(Eff|Prm)' /proc/self/status",
        sandbox=SandboxSettings(user="nobody", group="daemon"),
    )
    uid, gid, groups, *capabilities = said.splitlines()
    assert (uid, gid) == ("65534", "1")
    assert set(groups.split()) == {"1"}
    assert all(int(line.split()[1], 16) == 0 for line in capabilities)


@needs_root
async def test_another_user_can_still_open_its_own_stdio_and_dies_with_its_init() -> None:
    """A change of user clears the parent death signal and leaves pipes with their maker."""
    async with started(
        program("shows_itself"), sandbox=SandboxSettings(user="nobody"), namespaces=False
    ) as (shepherd, _):
        out = shepherd.take_stdout()
        said = await read_all(out)
        os.close(out)
    assert "parent_death_signal 9" in said.splitlines()
    assert "uid 65534" in said.splitlines()
    said, _ = await run("echo hello > /dev/stdout", sandbox=SandboxSettings(user="nobody"))
    assert said == "hello\n"


@needs_root
async def test_a_file_of_roots_is_closed_to_another_user(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("swordfish")
    secret.chmod(0o600)
    user = SandboxSettings(user="nobody")
    assert (await run(f"cat {secret}", hide_cookie=False))[0] == "swordfish"
    assert "denied" in (await run(f"cat {secret}", hide_cookie=False, sandbox=user))[0]
    said, _ = await run("echo x > /proc/sys/kernel/core_pattern", hide_cookie=False, sandbox=user)
    assert "denied" in said


async def test_a_user_who_is_not_there_is_named() -> None:
    error = await start_failing("true", sandbox=SandboxSettings(user="no-such-user"))
    assert error.step is Step.USER
    assert "no-such-user" in str(error)


@pytest.mark.skipif(os.getuid() == 0, reason="root can")
async def test_a_plain_user_cannot_run_workers_as_another() -> None:
    error = await start_failing("true", sandbox=SandboxSettings(user="nobody"))
    assert error.step is Step.USER


# ---- what it reaches


@needs_landlock
async def test_a_worker_reads_only_its_places(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    for place in (mine, other):
        place.mkdir()
        (place / "data").write_text("data")
    sandbox = SandboxSettings(read=(str(mine),))
    said, _ = await run(
        f"cat {mine}/data; ls {mine}; cat {other}/data; ls {other}; cat /etc/passwd",
        sandbox=sandbox,
    )
    assert said.startswith("datadata\n")
    assert said.count("ermission denied") == 3


@needs_landlock
async def test_a_hidden_file_is_hidden_in_a_place_that_may_be_read(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("data")
    (tmp_path / "key").write_text("swordfish")
    sandbox = SandboxSettings(read=(str(tmp_path),), hide=(str(tmp_path / "key"),))
    said, _ = await run(f"cat {tmp_path}/data {tmp_path}/key", sandbox=sandbox)
    assert said.startswith("data")
    assert "swordfish" not in said


@needs_landlock
async def test_a_worker_writes_only_its_places(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    for place in (mine, other):
        place.mkdir()
        (place / "data").write_text("data")
    script = (
        f"echo x > {mine}/new && mv {mine}/new {mine}/newer && rm {mine}/newer && echo mine;"
        f"echo x > {other}/new; echo x >> {other}/data; rm {other}/data; mkdir {other}/sub;"
        "echo x > /dev/null && echo null"
    )
    said, _ = await run(script, sandbox=SandboxSettings(write=(str(mine),)))
    assert said.startswith("mine\n")
    assert said.endswith("null\n")
    assert os.listdir(other) == ["data"]
    assert (other / "data").read_text() == "data"


@needs_landlock
async def test_a_hidden_file_is_not_replaced_in_a_place_that_may_be_written(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("swordfish")
    sandbox = SandboxSettings(write=(str(tmp_path),), hide=(str(key),))
    said, _ = await run(
        f"echo x > {key}; rm {key}; echo x > {tmp_path}/new; mv {tmp_path} {tmp_path}2",
        sandbox=sandbox,
    )
    assert said.count("ermission denied") == 4
    assert key.read_text() == "swordfish"


async def test_without_landlock_a_role_that_asks_for_it_does_not_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_landlock, "available", lambda: False)
    error = await start_failing("true", sandbox=SandboxSettings(write=()))
    assert (error.errno, error.step) == (errno.EOPNOTSUPP, Step.LANDLOCK)
    async with started("true") as (shepherd, _):  # the cookie alone is as good as it gets
        assert not shepherd.isolation.landlock


CONNECT = "exec 3<>/dev/tcp/127.0.0.1/1"  # of bash: refused by the other side, if it gets there


@pytest.mark.parametrize(
    ("sandbox", "outcome"),
    [
        (SandboxSettings(), "refused"),
        (SandboxSettings(network=False), "denied"),
        (SandboxSettings(network=False, syscalls="any"), "denied"),
        (SandboxSettings(syscalls="strict"), "not permitted"),
    ],
)
async def test_a_worker_without_network_makes_no_socket(
    sandbox: SandboxSettings, outcome: str
) -> None:
    async with started("bash", "-c", CONNECT, sandbox=sandbox) as (shepherd, _):
        err = shepherd.take_stderr()
        assert outcome in (await read_all(err)).lower()
        os.close(err)
        assert shepherd.isolation.seccomp


async def test_a_worker_of_the_strict_list_computes_but_makes_no_process() -> None:
    said, end = await run("echo one; (echo two)", sandbox=SandboxSettings(syscalls="strict"))
    assert said.startswith("one\n")
    assert "two" not in said
    assert end.status != 0


async def test_threads_run_under_every_list() -> None:
    script = "import threading as t; a = t.Thread(target=print, args=['ran']); a.start(); a.join()"
    for syscalls in ("any", "guarded", "strict"):
        async with started("python3", "-c", script, sandbox=SandboxSettings(syscalls=syscalls)) as (
            shepherd,
            _,
        ):
            out = shepherd.take_stdout()
            assert await read_all(out) == "ran\n", syscalls
            os.close(out)
            assert (await shepherd.wait()).status == 0


# ---- limits


async def test_each_limit_is_the_workers_soft_and_hard_one() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limits = WorkerLimits(
        address_bytes=1 << 40,
        open_files=min(99, hard),
        processes=5000,
        file_bytes=1 << 20,
        core_bytes=0,
        stack_bytes=1 << 20,
        locked_bytes=4096,
        cpu_s=1000,
        nice=3,
    )
    said, _ = await run("cat /proc/self/limits; nice", limits=limits)
    for name, value in (
        ("Max address space", 1 << 40),
        ("Max open files", min(99, hard)),
        ("Max processes", 5000),
        ("Max file size", 1 << 20),
        ("Max core file size", 0),
        ("Max stack size", 1 << 20),
        ("Max locked memory", 4096),
        ("Max cpu time", 1000),
    ):
        line = next(line for line in said.splitlines() if line.startswith(name))
        assert line[len(name) :].split()[:2] == [str(value)] * 2, name
    assert int(said.splitlines()[-1]) == os.nice(0) + 3


async def test_a_limit_above_what_the_bridge_may_is_an_error_that_names_the_step() -> None:
    error = await start_failing("true", limits=WorkerLimits(open_files=1 << 30))
    assert (error.errno, error.step) == (errno.EPERM, Step.LIMITS)


async def test_past_its_processor_time_a_worker_is_killed() -> None:
    _, end = await run("while :; do :; done", limits=WorkerLimits(cpu_s=1))
    assert end.signal == signal.SIGKILL
    assert not end.oom


HOG = "dd if=/dev/zero of=/dev/null bs=64M count=1"  # takes so much memory and touches it


async def test_past_its_memory_a_worker_is_killed_and_that_is_told() -> None:
    limits = WorkerLimits(memory_bytes=32 << 20)
    async with started("sh", "-c", f"exec {HOG}", limits=limits) as (shepherd, link):
        if shepherd.isolation.memory_cap != "group":
            pytest.skip("no memory control group of our own to be had here")
        end = await shepherd.wait()
        assert (end.signal, end.oom) == (signal.SIGKILL, True)
        assert (await link.read_obituary())[12] == 2  # RB_OBITUARY_OOM
    said, end = await run(
        f"{HOG} 2>/dev/null && echo done", limits=WorkerLimits(memory_bytes=1 << 30)
    )
    assert (said, end.status) == ("done\n", 0)


async def test_the_cap_is_that_of_the_whole_tree() -> None:
    """And the worker outlives a child that was too greedy: that is the shell's to judge."""
    limits = WorkerLimits(memory_bytes=32 << 20)
    async with started("sh", "-c", f"{HOG}; echo $?", limits=limits) as (shepherd, _):
        if shepherd.isolation.memory_cap != "group":
            pytest.skip("no memory control group of our own to be had here")
        out = shepherd.take_stdout()
        assert await read_all(out) == "137\n"
        os.close(out)
        assert (await shepherd.wait()).status == 0


async def test_an_oom_kill_elsewhere_is_not_taken_for_the_workers_own() -> None:
    """With a group of its own the count is its own."""
    limits = WorkerLimits(memory_bytes=1 << 30)
    async with started("sleep", "1000", limits=limits) as (shepherd, _):
        if shepherd.isolation.memory_cap != "group":
            pytest.skip("no memory control group of our own to be had here")
        with memory_group(limit_bytes=32 << 20) as group:
            assert group is not None
            script = f"echo $$ > {group}/cgroup.procs; exec {HOG}"
            await trio.run_process(["sh", "-c", script], check=False, capture_stderr=True)
        os.kill(shepherd.pid, signal.SIGKILL)
        assert not (await shepherd.wait()).oom


async def test_without_groups_the_cap_is_one_of_the_address_space(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_control_groups, "places", lambda: Places())
    limits = WorkerLimits(memory_bytes=32 << 20)
    async with started("sh", "-c", f"exec {HOG}", limits=limits) as (shepherd, _):
        assert shepherd.isolation.memory_cap == "address space"
        err = shepherd.take_stderr()
        assert "memory" in await read_all(err)
        os.close(err)
        assert (await shepherd.wait()).status == 1


def test_shared_memory_does_not_count_against_a_cap_of_the_address_space() -> None:
    link = Link()
    spawn = link.spawn("true", limits=WorkerLimits(memory_bytes=32 << 20))
    bare = spawning.order(spawn, places=Places(), group_name="-", shared_bytes=0)
    with_pool = spawning.order(spawn, places=Places(), group_name="-", shared_bytes=1 << 28)
    link.close()
    assert int.from_bytes(bare.packet[64:72], "little") == 32 << 20
    assert int.from_bytes(with_pool.packet[64:72], "little") == (32 << 20) + (1 << 28)


# ---- control groups


async def test_a_worker_is_in_groups_of_its_own_and_they_go_with_it() -> None:
    limits = WorkerLimits(memory_bytes=1 << 30)
    async with started("cat", limits=limits) as (shepherd, _):
        if shepherd.isolation.memory_cap != "group":
            pytest.skip("no memory control group of our own to be had here")
        name = _control_groups.name_of(shepherd.shepherd_pid)
        groups = [place / name for place in _control_groups.places()]
        assert groups
        for group in groups:
            assert (group / "cgroup.procs").read_text().split() == [str(shepherd.pid)]
        await shepherd.stop()
    assert not any(group.exists() for group in groups)


@pytest.fixture
def place_of_our_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where no other bridge of this machine, starting at this moment, looks for what is left."""
    kill = _control_groups.places().kill
    if kill is None:
        pytest.skip("no control group of version 2 to be had here")
    place = kill / f"test-{uuid.uuid4().hex}"
    place.mkdir()
    monkeypatch.setattr(_control_groups, "places", lambda: Places(kill=place))
    yield place
    place.rmdir()


@pytest.mark.parametrize("who_ends_it", ["this bridge", "the next one"])
async def test_what_killed_guards_leave_is_ended_by_whoever_comes_after(
    who_ends_it: str, place_of_our_own: Path
) -> None:
    """Without a namespace, both guards killed at one moment: a daemon would live on."""
    async with started(program("forks_tree"), namespaces=False) as (shepherd, _):
        if not shepherd.isolation.kill_group:
            pytest.skip("no control group of version 2 to be had here")
        await read_line(out := shepherd.take_stdout())
        os.close(out)
        group = place_of_our_own / _control_groups.name_of(shepherd.shepherd_pid)
        assert len((group / "cgroup.procs").read_text().split()) == 4
        assert _control_groups.sweep(_control_groups.places()) == []  # it is guarded
        guards = [os.pidfd_open(pid) for pid in (shepherd.shepherd_pid, shepherd.init_pid)]
        for stop in (signal.SIGSTOP, signal.SIGKILL):  # stopped first, none can react
            for pidfd in guards:
                signal.pidfd_send_signal(pidfd, stop)
        if who_ends_it == "this bridge":
            assert (await shepherd.wait()).shepherd_lost
        else:
            for pidfd in guards:
                select.select([pidfd], [], [])  # not trio's, in which this bridge would hear of it
            assert (group / "cgroup.procs").read_text() != ""
            assert group.name in _control_groups.sweep(_control_groups.places())
        assert not group.exists()  # so nothing is left in it
        for pidfd in guards:
            os.close(pidfd)


# A daemon that waits for the lock on its own group, as any process may that can read there.
TAKES_ITS_GUARDS_PLACE = """
import fcntl, os, signal, sys
if os.fork():
    while True:
        signal.pause()
os.setsid()
if os.fork():
    os._exit(0)
name = open("/proc/self/cgroup").read().split("0::")[1].splitlines()[0].rpartition("/")[2]
group = os.open(os.path.join(sys.argv[1], name), os.O_RDONLY | os.O_DIRECTORY)
print("ready", flush=True)
fcntl.flock(group, fcntl.LOCK_EX)
print("held", flush=True)
signal.pause()
"""


async def test_a_daemon_that_holds_the_lock_on_its_group_is_no_guard(
    place_of_our_own: Path,
) -> None:
    """Else the next bridge would take it for guarded, and it would live for ever."""
    command = (sys.executable, "-c", TAKES_ITS_GUARDS_PLACE, str(place_of_our_own))
    async with started(*command, namespaces=False) as (shepherd, _):
        if not shepherd.isolation.kill_group:
            pytest.skip("no control group of version 2 to be had here")
        out = shepherd.take_stdout()
        assert await read_line(out) == "ready"
        group = place_of_our_own / _control_groups.name_of(shepherd.shepherd_pid)
        assert _control_groups.sweep(_control_groups.places()) == []
        # The init first: the shepherd's death would have it end the group, were it stopped, too.
        os.kill(shepherd.shepherd_pid, signal.SIGSTOP)
        for pid in (shepherd.init_pid, shepherd.shepherd_pid):
            os.kill(pid, signal.SIGKILL)
        assert await read_line(out) == "held"
        os.close(out)
        assert (group / "cgroup.procs").read_text() != ""
        assert group.name in _control_groups.sweep(_control_groups.places())
        assert not group.exists()


@pytest.mark.parametrize("removed", [False, True])
async def test_a_group_that_a_starting_bridge_looks_at_is_guarded_all_the_same(
    removed: bool, place_of_our_own: Path
) -> None:
    group = place_of_our_own / "ringbridge-1-1"
    group.mkdir()
    holder = os.open(group, os.O_RDONLY | os.O_DIRECTORY)
    place = os.open(place_of_our_own, os.O_RDONLY | os.O_DIRECTORY)
    bare = Bare()
    try:
        fcntl.flock(holder, fcntl.LOCK_EX)  # as who asks whether it is guarded
        packet = protocol.pack_start(
            ["/bin/sleep", "60"],
            {},
            cwd="",
            grace_ms=100,
            flags=StartFlag.KILL_GROUP,
            confinement=replace(protocol.NO_CONFINEMENT, group_name=group.name),
        )
        bare.say(packet, [*bare.start_fds(), place])
        await trio.sleep(0.05)
        if removed:
            group.rmdir()  # and takes it for abandoned
        os.close(holder)
        assert isinstance(await trio.to_thread.run_sync(bare.hear), Started)
        assert (group / "cgroup.procs").read_text() != ""
        assert _control_groups.sweep(_control_groups.places()) == []
        assert group.exists()
    finally:
        os.close(place)
        bare.close()
    assert not group.exists()
