"""A hostile worker: what it can reach of the bridge, of its guards, of other workers, of memory.

The program (csrc/tests/programs/hostile.c) tries every way there is and says what became of each.
Which wall stops it is shown by taking the others down.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict

import pytest
from shepherd_support import Link, program, read_all, started

from bridge.config.sandbox import SandboxSettings
from bridge.fabric.limits import RoleLimits
from bridge.fabric.relay import LinkConfig, Relay
from bridge.workers import _landlock
from bridge.workers.shepherd import Shepherd

Attempts = dict[str, dict[str, str]]  # of whom or what: attempt -> "reached" or why not

INTO_PROCESSES = {"environ", "mem", "maps", "fds", "ptrace", "readv", "getfd", "signal", "group"}
needs_landlock = pytest.mark.skipif(not _landlock.available(), reason="no Landlock here")


HOSTILE = ("sh", "-c", f"read targets; exec {program('hostile')} $targets")


async def attack(**options: object) -> Attempts:
    """Let a hostile worker loose on the bridge (this process), its guards, and a neighbour that
    was started in the same way.
    """
    async with started("sleep", "1000", **options) as (neighbour, _):
        async with started(*HOSTILE, **options) as (shepherd, _):
            found = await said_by(shepherd, targets(shepherd, neighbour))
        os.kill(neighbour.pid, 0)  # it has not been harmed
    return found


async def said_by(shepherd: Shepherd, whom: bytes) -> Attempts:
    stdin, out = shepherd.take_stdin(), shepherd.take_stdout()
    os.write(stdin, whom + b"\n")  # the pids of its own guards are known only now
    os.close(stdin)
    said = await read_all(out)
    os.close(out)
    assert (await shepherd.wait()).status == 0
    found: Attempts = defaultdict(dict)
    for line in said.splitlines():
        name, attempt, result = line.split()
        found[name][attempt] = result
    return found


def targets(shepherd: Shepherd, neighbour: Shepherd) -> bytes:
    pids = {
        "bridge": os.getpid(),
        "shepherd": shepherd.shepherd_pid,
        "init": shepherd.init_pid,
        "neighbour": neighbour.pid,
        "guard": neighbour.shepherd_pid,
    }
    return " ".join(f"{name}={pid}" for name, pid in pids.items()).encode()


def reached(attempts: dict[str, str]) -> set[str]:
    return {attempt for attempt, result in attempts.items() if result == "reached"}


def check_no_process_is_reached(found: Attempts, but: frozenset[str] = frozenset()) -> None:
    for name in ("bridge", "shepherd", "init", "neighbour", "guard"):
        assert found[name].keys() == INTO_PROCESSES
        assert reached(found[name]) <= but, name


@needs_landlock
async def test_a_hostile_worker_reaches_no_process_but_its_own() -> None:
    check_no_process_is_reached(await attack())


@needs_landlock
async def test_without_namespaces_it_reaches_none_either() -> None:
    """Only that they are there: a worker without a namespace of its own can count processes."""
    signals = frozenset() if _landlock.scopes_signals() else frozenset({"signal", "group"})
    check_no_process_is_reached(await attack(namespaces=False), but=signals)


@needs_landlock
async def test_without_a_filter_of_system_calls_it_reaches_none_either() -> None:
    found = await attack(namespaces=False, sandbox=SandboxSettings(syscalls="any"))
    signals = frozenset() if _landlock.scopes_signals() else frozenset({"signal", "group"})
    check_no_process_is_reached(found, but=signals)
    assert "uring" in found["kernel"]


async def test_without_any_wall_it_reaches_its_neighbour() -> None:
    """So the others prove something. The bridge of root is beyond it even then: it has
    capabilities that no worker has.
    """
    found = await attack(
        namespaces=False, hide_cookie=False, sandbox=SandboxSettings(syscalls="any")
    )
    assert {"environ", "mem", "maps", "fds", "ptrace", "readv", "getfd", "signal"} <= reached(
        found["neighbour"]
    )
    assert "signal" in reached(found["bridge"])


async def test_a_namespace_alone_leaves_no_number_by_which_to_call_another() -> None:
    found = await attack(hide_cookie=False, sandbox=SandboxSettings(syscalls="any"))
    if found["neighbour"]["signal"] != "ESRCH":
        pytest.skip("no namespaces to be had here")
    for attempt in ("ptrace", "readv", "getfd", "signal", "group"):
        assert found["neighbour"][attempt] == "ESRCH"


async def test_the_filter_alone_stops_what_reaches_in_by_number() -> None:
    found = await attack(namespaces=False, hide_cookie=False)
    for attempt in ("ptrace", "readv", "getfd"):
        assert found["neighbour"][attempt] == "EPERM"
    assert found["kernel"]["unshare"] == "EPERM"
    assert found["kernel"]["fork"] == "reached"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can run workers as another user")
async def test_another_user_is_a_wall_of_its_own() -> None:
    bare = {"hide_cookie": False, "namespaces": False}
    user = SandboxSettings(user="nobody", syscalls="any")
    async with (
        started("sleep", "1000", **bare) as (neighbour, _),
        started(*HOSTILE, **bare, sandbox=user) as (shepherd, _),
    ):
        check_no_process_is_reached(await said_by(shepherd, targets(shepherd, neighbour)))


async def test_memory_that_is_given_to_be_read_cannot_be_written() -> None:
    """A real link: the relay's side (3) and the pool (5) are read-only whatever is tried; the
    worker's own side (4) is its to write, but not to take away.
    """
    link, relay = Link(), Relay(node="hostile@127.0.0.1", creation=1)
    try:
        role = relay.add_role(RoleLimits(name="hostile"))
        fds = [*relay.create_link(role, 1, LinkConfig()), link.fds[5]]
        shepherd = await Shepherd.start(
            link.spawn(*HOSTILE), link_fds=fds, obituary_fd=link.obituary_end
        )
        found = await said_by(shepherd, b"")
        await shepherd.aclose()
    finally:
        relay.close()
        link.close()
    for name in ("fd3", "fd5"):
        assert found[name].keys() == {"map", "reopen", "write", "punch", "shrink"}
        assert reached(found[name]) == set(), name
    assert reached(found["fd4"]) >= {"map", "reopen", "write"}
    assert "shrink" not in reached(found["fd4"])


BECOME_A_PLAIN_USER = """
import ctypes, os, sys
if os.getuid() == 0:
    os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # dumpable, as after an exec: a change of user takes it away
"""
A_BRIDGE = f"""
from bridge.workers import _landlock, environment
_landlock.available = lambda: AVAILABLE
{BECOME_A_PLAIN_USER}
environment.close_memory_to_workers()
print("ready", flush=True)
sys.stdin.read()
"""
A_WORKER = f"""{BECOME_A_PLAIN_USER}
for name in ("mem", "environ"):
    os.close(os.open(f"/proc/{{sys.argv[1]}}/{{name}}", os.O_RDONLY))
"""


@pytest.mark.parametrize("landlock", [True, False])
def test_without_landlock_the_kernels_older_rule_closes_the_bridges_memory(landlock: bool) -> None:
    """To processes of the same plain user, to whom it would be open: with Landlock it is left so,
    for debuggers, since workers have no way to it then.
    """
    with subprocess.Popen(
        [sys.executable, "-c", A_BRIDGE.replace("AVAILABLE", str(landlock))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as bridge:
        assert bridge.stdout is not None
        assert bridge.stdout.readline() == b"ready\n"
        worker = subprocess.run(
            [sys.executable, "-c", A_WORKER, str(bridge.pid)], capture_output=True, check=False
        )
        bridge.communicate(b"")
    assert (worker.returncode == 0) == landlock
    assert (b"PermissionError" in worker.stderr) == (not landlock)
