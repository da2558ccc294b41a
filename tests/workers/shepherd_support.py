"""What the shepherd's tests share: programs, marked processes, descriptors, deaths with a deadline.

Every worker carries a mark in its environment, and so does its whole tree; every memfd carries it
in its name. So what is left of a worker can be counted from outside, by looking at all of /proc.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import trio

from bridge.workers import _shepherd_protocol as protocol
from bridge.workers._shepherd_protocol import Exited, Failed, Report, Started, StartFlag
from bridge.workers.shepherd import Shepherd, Spawn

ROOT = Path(__file__).resolve().parents[2]
MARK = "SHEPHERD_TEST_MARK"


@cache
def _build(target: str = "shepherd") -> Path:
    subprocess.run(
        ["make", "--no-print-directory", "-f", "csrc/shepherd/shepherd.mk", target],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return ROOT / "build"


def shepherd_program() -> Path:
    return _build() / "bin" / "ringbridge-shepherd"


def sanitized_shepherd() -> Path:
    """The same under AddressSanitizer and UBSan."""
    path = "tests/asan/ringbridge-shepherd"
    return _build(f"build/{path}") / path


def program(name: str) -> str:
    """A test program from csrc/tests/programs, built."""
    return str(_build() / "tests" / "programs" / name)


def cores_are_files() -> bool:
    pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    return not pattern.startswith("|") and resource.getrlimit(resource.RLIMIT_CORE)[1] != 0


@contextmanager
def memory_group(limit_bytes: int) -> Iterator[Path | None]:
    """A memory control group with a limit; None where we may make none."""
    group = _make_memory_group(limit_bytes)
    try:
        yield group
    finally:
        if group is not None:
            group.rmdir()


def _make_memory_group(limit_bytes: int) -> Path | None:
    for root, limit in (
        (Path("/sys/fs/cgroup"), "memory.max"),  # version 2
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),  # version 1
    ):
        if not (root / "cgroup.procs").exists():
            continue  # no control group file system: a directory here would be just a directory
        group = root / f"ringbridge-test-{uuid.uuid4().hex}"
        try:
            group.mkdir()
        except OSError:
            continue
        if (group / limit).exists():
            (group / limit).write_text(str(limit_bytes))
            return group
        group.rmdir()
    return None


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def read_proc(pid: int, name: str) -> bytes:
    return Path(f"/proc/{pid}/{name}").read_bytes()


def marked_processes(mark: str) -> dict[int, str]:
    """Every living process whose environment holds the mark: pid and command line."""
    wanted, found = f"{MARK}={mark}".encode(), {}
    for pid in _pids():
        try:
            if wanted in read_proc(pid, "environ").split(b"\0"):
                found[pid] = read_proc(pid, "cmdline").replace(b"\0", b" ").decode()
        except OSError:
            continue  # it has ended, or is another user's
    return found


def marked_memfds(mark: str) -> list[str]:
    """Every descriptor of any process that is a memfd of this mark: "pid/fd"."""
    found = []
    for pid in _pids():
        try:
            fds = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue  # it has ended, or is another user's
        found += [f"{pid}/{fd}" for fd in fds if f"memfd:{mark}" in _target(pid, fd)]
    return found


def _target(pid: int, fd: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/fd/{fd}")
    except OSError:
        return ""  # closed meanwhile


class Witness:
    """Holds pidfds of processes, so that their end can be waited for without asking again."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pidfds = {os.pidfd_open(pid): pid for pid in pids}

    def wait_all_gone(self, within_s: float) -> float:
        """Returns after how many seconds the last one was gone; fails when some are not in time."""
        start = time.monotonic()
        left = dict(self._pidfds)
        poll = select.poll()
        for fd in left:
            poll.register(fd, select.POLLIN)
        while left:
            wait_s = start + within_s - time.monotonic()
            ended = poll.poll(max(0.0, wait_s * 1000))
            assert ended, f"{sorted(left.values())} still there after {within_s} s"
            for fd, _ in ended:
                poll.unregister(fd)
                del left[fd]
        return time.monotonic() - start

    def close(self) -> None:
        for fd in self._pidfds:
            os.close(fd)
        self._pidfds = {}


@contextmanager
def witnessed(pids: Iterable[int]) -> Iterator[Witness]:
    witness = Witness(pids)
    try:
        yield witness
    finally:
        witness.close()


@dataclass
class Link:
    """Five descriptors to give away and an obituary to read: what the bridge has for a worker."""

    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        self.fds = [os.memfd_create(f"{self.mark}-{index}") for index in range(protocol.LINK_FDS)]
        self.obituary, self.obituary_end = os.pipe2(os.O_CLOEXEC)

    def spawn(self, *argv: str, env: dict[str, str] | None = None, **options: object) -> Spawn:
        environment = {"PATH": os.defpath, MARK: self.mark, **(env or {})}
        return Spawn(argv=argv, env=environment, **options)  # type: ignore[arg-type]

    def close_obituary_end(self) -> None:
        if self.obituary_end >= 0:
            os.close(self.obituary_end)
            self.obituary_end = -1

    async def read_obituary(self) -> bytes:
        """All that is ever written into the obituary, up to its end of file."""
        self.close_obituary_end()
        os.set_blocking(self.obituary, False)
        text = b""
        while True:
            await trio.lowlevel.wait_readable(self.obituary)
            part = os.read(self.obituary, 4096)
            if part == b"":
                return text
            text += part

    def close(self) -> None:
        self.close_obituary_end()
        for fd in (*self.fds, self.obituary):
            os.close(fd)


@asynccontextmanager
async def started(*argv: str, **options: object) -> AsyncIterator[tuple[Shepherd, Link]]:
    """A worker under its shepherd; at the end nothing of it may be left, whatever happened."""
    link = Link()
    try:
        env = options.pop("env", None)
        spawn = link.spawn(*argv, env=env, **options)  # type: ignore[arg-type]
        shepherd = await Shepherd.start(spawn, link_fds=link.fds, obituary_fd=link.obituary_end)
        try:
            yield shepherd, link
        finally:
            await shepherd.aclose()
    finally:
        link.close()
    assert marked_processes(link.mark) == {}
    assert marked_memfds(link.mark) == []


async def read_line(fd: int) -> str:
    """One line from a pipe (borrowed)."""
    line = b""
    while not line.endswith(b"\n"):
        await trio.lowlevel.wait_readable(fd)
        part = os.read(fd, 1)
        assert part, f"end of file after {line!r}"
        line += part
    return line.decode().rstrip("\n")


async def read_all(fd: int) -> str:
    """All of a pipe, up to its end (borrowed)."""
    text = b""
    while True:
        await trio.lowlevel.wait_readable(fd)
        part = os.read(fd, 65536)
        if part == b"":
            return text.decode()
        text += part


def children() -> set[int]:
    """This process's own children, zombies included."""
    tasks = Path("/proc/self/task").glob("*/children")
    return {int(pid) for task in tasks for pid in task.read_text().split()}


def open_descriptors() -> dict[str, str]:
    """This process's own descriptors and what they are."""
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            continue  # the listing's own
    return found


class Bare:
    """A shepherd without a bridge: only its socket."""

    def __init__(self, path: Path | None = None) -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.link = Link()
        with theirs:
            pid = os.posix_spawn(
                path or shepherd_program(),
                ["ringbridge-shepherd"],
                {},
                file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), protocol.SOCKET_FD)],
            )
        self.pidfd = os.pidfd_open(pid)
        self.socket.settimeout(5)

    def start_packet(self, *argv: str) -> bytes:
        spawn = self.link.spawn(*argv)
        return protocol.pack_start(argv, spawn.env, cwd="", grace_ms=100, flags=StartFlag(0))

    def start_fds(self) -> list[int]:
        return [*self.link.fds, self.link.obituary_end]

    def say(self, packet: bytes, fds: list[int] | None = None) -> None:
        socket.send_fds(self.socket, [packet], fds or [])

    def hear(self) -> Started | Report | Exited | Failed | None:
        packet, fds, _, _ = socket.recv_fds(self.socket, protocol.MESSAGE_MAX, 8)
        for fd in fds:
            os.close(fd)
        return protocol.unpack(packet) if packet else None

    def close(self) -> None:
        self.socket.close()
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        if not poll.poll(2000):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            raise AssertionError("the shepherd outlived its bridge")
        end = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        assert end is not None
        assert (end.si_code, end.si_status) == (os.CLD_EXITED, 0)
        os.close(self.pidfd)
        self.link.close()
        assert marked_processes(self.link.mark) == {}
