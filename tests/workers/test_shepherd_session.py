"""Whose session a worker and its guards are in, and that the bridge's terminal is not theirs.

Linux schedules a session as one (autogroup, sched(7)): a relay that yields its core gives it to a
worker of its own session alone.
"""

from __future__ import annotations

import fcntl
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pytest
import trio
from shepherd_support import ROOT, program, read_proc, started

from bridge.workers.shepherd import Shepherd


def guarded(shepherd: Shepherd) -> tuple[int, int, int]:
    return shepherd.shepherd_pid, shepherd.init_pid, shepherd.pid


def terminal_of(pid: int) -> int:
    """Its controlling terminal's number, 0: none (proc(5), stat, tty_nr)."""
    return int(read_proc(pid, "stat").rpartition(b")")[2].split()[4])


async def test_a_worker_is_in_the_bridges_session_and_in_a_group_of_its_own() -> None:
    async with started("sleep", "1000") as (shepherd, _):
        assert {os.getsid(pid) for pid in guarded(shepherd)} == {os.getsid(0)}
        assert os.getpgid(shepherd.pid) == shepherd.pid
        assert os.getpgid(shepherd.shepherd_pid) == shepherd.shepherd_pid


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="a kernel without autogroup")
async def test_a_worker_is_scheduled_with_its_bridge() -> None:
    ours = read_proc(os.getpid(), "autogroup")
    async with started("sleep", "1000") as (shepherd, _):
        assert {read_proc(pid, "autogroup") for pid in guarded(shepherd)} == {ours}


async def test_a_terminal_of_a_workers_own_makes_a_session_of_its_own() -> None:
    async with started("sleep", "1000", terminal=True) as (shepherd, _):
        assert os.getsid(shepherd.pid) == shepherd.pid
        assert terminal_of(shepherd.pid) != 0


async def _on_a_terminal() -> None:
    """Run with a controlling terminal: prints the terminals of a worker and its guards."""
    assert terminal_of(os.getpid()) != 0
    async with started("sleep", "1000") as (shepherd, _):
        print("terminals", *map(terminal_of, guarded(shepherd)), flush=True)
    async with started("sh", "-c", "exec 3< /dev/tty") as (shepherd, _):
        print("opened", (await shepherd.wait()).status == 0, flush=True)


def test_the_bridges_terminal_is_no_workers() -> None:
    master, slave = pty.openpty()
    program("exits")  # built before it is asked for from there
    try:
        done = subprocess.run(
            [sys.executable, __file__],
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{Path(__file__).parent}"},
            start_new_session=True,
            stdin=slave,
            capture_output=True,
            text=True,
            timeout=120,
        )
    finally:
        os.close(master)
        os.close(slave)
    assert done.stdout.splitlines() == ["terminals 0 0 0", "opened False"], done.stderr


if __name__ == "__main__":
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    trio.run(_on_a_terminal)
