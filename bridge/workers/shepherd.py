"""Shepherd: the bridge's handle on one worker's guard, and through it on the worker.

    bridge --socket--> ringbridge-shepherd --> init of a PID namespace --> worker

The socket is the life line: closing it, or dying, ends the worker's whole tree. What each process
does is told in docs/shepherd.md; this module starts, commands, listens and reaps.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal as signals
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import structlog
import trio

from bridge.config.sandbox import WorkerLimits
from bridge.workers import _control_groups, _shepherd_socket, _spawner
from bridge.workers import _shepherd_protocol as protocol
from bridge.workers import spawn as spawning
from bridge.workers._control_groups import Places
from bridge.workers._shepherd_protocol import (
    Exited,
    ExitedFlag,
    Failed,
    RemoteProtocolError,
    Report,
    ReportState,
    Started,
    StartedFlag,
    Step,
    Usage,
)
from bridge.workers.spawn import Spawn, WorkerStartError, without_cookie

__all__ = [
    "Exit",
    "Isolation",
    "RemoteProtocolError",
    "Report",
    "ReportState",
    "Shepherd",
    "Spawn",
    "WorkerStartError",
    "find_shepherd",
    "probe_isolation",
    "without_cookie",
]

MemoryCap: TypeAlias = Literal["group", "address space"] | None

PROGRAM = "ringbridge-shepherd"
PROGRAM_VARIABLE = "RINGBRIDGE_SHEPHERD"

# After its socket closes a shepherd has 500 ms of grace to give and a kill to see through. One that
# is still there by then is killed, and takes its tree along.
GONE_WITHIN_S = 1.5
# Past a STOP's own grace. A tree that cannot die (uninterruptible sleep) is told of after 1 s.
STOPPED_WITHIN_S = 3.0
PROBE_MEMORY_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Isolation:
    """How surely the worker's tree ends; docs/shepherd.md has the table."""

    pid_namespace: bool
    user_namespace: bool
    landlock: bool
    namespace_error: int  # errno that made namespaces impossible, 0 = none
    seccomp: bool = False
    memory_cap: MemoryCap = None  # what keeps limits.memory_bytes
    kill_group: bool = False  # the tree is in a control group that can be killed as a whole
    group_error: int = 0  # errno that made a control group impossible, 0 = none

    def __str__(self) -> str:
        if self.pid_namespace:
            return "PID namespace" + (" in a user namespace" if self.user_namespace else "")
        why = os.strerror(self.namespace_error) if self.namespace_error else "not asked for"
        return f"no namespace ({why}); child subreapers and parent death signals"


@dataclass(frozen=True, slots=True)
class Exit:
    """How a worker ended. Either `status` or `signal` is given."""

    status: int | None
    signal: int | None
    core: bool
    oom: bool  # most likely: the kernel counted an OOM kill in the worker's life
    stopped: bool = False  # the end was asked for
    init_lost: bool = False  # its init was killed: by stop() after the grace, or by someone else
    shepherd_lost: bool = False  # its shepherd was killed, and took the tree along
    lingers: bool = False  # something of the tree is in uninterruptible sleep and not gone yet
    usage: Usage | None = None


class _Descriptors:
    """What STARTED brought, until it is taken."""

    NAMES = ("pidfd", "stdin", "stdout", "stderr")  # in the order of the message

    def __init__(self, fds: Sequence[int]) -> None:
        self._fds = dict(zip(self.NAMES, fds, strict=True))
        # Ours to keep: should the shepherd be killed, it says when the worker is gone.
        self.own_pidfd = os.dup(self._fds["pidfd"])

    def take(self, name: str) -> int:
        fd = self._fds.pop(name, None)
        if fd is None:
            raise ValueError(f"the worker's {name} was taken before")
        return fd

    def close(self, name: str) -> None:
        """Close one that was not taken; of one that was, nothing."""
        if (fd := self._fds.pop(name, None)) is not None:
            os.close(fd)

    def close_all(self) -> None:
        for name in self.NAMES:
            self.close(name)
        trio.lowlevel.notify_closing(self.own_pidfd)
        os.close(self.own_pidfd)


class Shepherd:
    """A running worker and its guard. Made by `start`; ended by `stop` or `aclose`."""

    def __init__(
        self,
        sock: socket.socket,
        child: _spawner.Child,
        started: Started,
        fds: _Descriptors,
        grace_s: float,
        places: Places,
    ) -> None:
        self.pid = started.worker_pid  # of the worker, in our PID namespace
        self.init_pid = started.init_pid
        self.shepherd_pid = child.pid
        self.spawn_s = started.spawn_us / 1e6  # from START's arrival to the end of the exec
        self.isolation = _isolation(started)
        self._sock: socket.socket | None = sock
        self._child = child
        self._fds = fds
        self._grace_s = grace_s
        self._places = places
        self._is_reading = False
        self._news = trio.lowlevel.ParkingLot()  # of those who wait while another one reads
        self._asking = trio.Lock()
        self._report: Report | None = None
        self._exit: Exit | None = None
        self._closed = False
        self._log = structlog.get_logger("ringbridge.shepherd").bind(os_pid=self.pid)

    @classmethod
    async def start(cls, spawn: Spawn, *, link_fds: Sequence[int], obituary_fd: int) -> Shepherd:
        """Start a worker; returns once its exec has succeeded.

        `link_fds`: six, to become 3 to 8 in the worker. `obituary_fd`: the write end of the pipe
        (csrc/include/ringbridge/obituary.h). Both are duplicated; the caller keeps and closes its
        own, and keeps the pipe's read end open for as long as it wants the worker.

        Raises: WorkerStartError (an OSError), ValueError for a Spawn outside the protocol's limits.
        Nothing is left behind then, nor when it is cancelled.
        """
        if len(link_fds) != protocol.LINK_FDS:
            raise ValueError(f"a link has {protocol.LINK_FDS} descriptors, not {len(link_fds)}")
        places = await trio.to_thread.run_sync(_control_groups.places)
        places = places.wanted(memory=spawn.limits.memory_bytes is not None)
        shared_bytes = sum(os.fstat(fd).st_size for fd in link_fds)
        ours, theirs = _shepherd_socket.pair()
        child: _spawner.Child | None = None
        try:
            with theirs:
                # Before any process is there: what cannot be said is told at once.
                spawning.order(spawn, places=places, group_name="-", shared_bytes=shared_bytes)
                child = await _spawner.spawn(find_shepherd(), theirs.fileno())
            name = _control_groups.name_of(child.pid)
            order = spawning.order(spawn, places=places, group_name=name, shared_bytes=shared_bytes)
            await _send_start(ours, order, [*link_fds, obituary_fd], places)
            started, fds = await _receive_started(ours, child.pid, order.program, spawn.cwd)
        except BaseException:
            _shepherd_socket.close(ours)
            if child is not None:
                await _reap(child, places)
            raise
        return cls(ours, child, started, fds, spawn.grace_s, places)

    def take_pidfd(self) -> int:
        """The worker's pidfd; yours from now on, as with the other three. Each is given once."""
        return self._fds.take("pidfd")

    def take_stdin(self) -> int:
        """The write end of the worker's stdin."""
        return self._fds.take("stdin")

    def take_stdout(self) -> int:
        """The read end of the worker's stdout."""
        return self._fds.take("stdout")

    def take_stderr(self) -> int:
        """The read end of the worker's stderr."""
        return self._fds.take("stderr")

    async def wait(self) -> Exit:
        """Wait until the worker and its whole tree have ended.

        Several tasks may wait. A cancelled wait has no effect.
        Raises: trio.ClosedResourceError when closed meanwhile, RemoteProtocolError.
        """
        await self._read_until(lambda: self._exit is not None)
        assert self._exit is not None
        return self._exit

    async def used(self) -> Usage | None:
        """What the worker has used, once it and its tree have ended; None: its guards were killed,
        and nobody has counted. Raises as `wait`.
        """
        return (await self.wait()).usage

    async def status(self) -> Report | None:
        """How the worker does now; None when it has ended.

        Raises: trio.ClosedResourceError when closed meanwhile, RemoteProtocolError.
        """
        async with self._asking:
            self._report = None
            await self._command(protocol.pack_status())
            await self._read_until(lambda: self._report is not None or self._exit is not None)
            return self._report

    async def resize_terminal(self, rows: int, columns: int) -> None:
        """Give the worker's terminal another size; it is told by SIGWINCH.

        Raises: ValueError for sizes outside 1 to 65535. Without a terminal: one log line.
        """
        await self._command(protocol.pack_window_size(rows, columns))

    async def signal(self, signum: int) -> None:
        """Send a signal to the worker itself (not to its children); none if it has ended."""
        if not 1 <= signum < signals.NSIG:
            raise ValueError(f"{signum} is no signal")
        await self._command(protocol.pack_signal(signum))

    async def close_stdin(self) -> None:
        """End the worker's stdin, as far as it is still in our hands. On a terminal: type an end of
        file, which a program that has switched lines off does not notice.
        """
        self._fds.close("stdin")
        await self._command(protocol.pack_close_stdin())

    async def stop(self, grace_s: float | None = None) -> Exit:
        """TERM to the worker, the grace of its Spawn (or this one), KILL of the whole tree.

        Cancelled, the stop goes on by itself.
        """
        grace_ms = protocol.GRACE_OF_START if grace_s is None else round(grace_s * 1000)
        await self._command(protocol.pack_stop(grace_ms))
        with trio.move_on_after((self._grace_s if grace_s is None else grace_s) + STOPPED_WITHIN_S):
            return await self.wait()
        # The shepherd itself does not answer: someone has stopped it. Its death ends the tree.
        self._log.warning("shepherd does not answer and is killed", shepherd=self.shepherd_pid)
        signals.pidfd_send_signal(self._child.pidfd, signals.SIGKILL)
        return await self.wait()

    async def aclose(self) -> None:
        """End what still runs (with at most 500 ms of grace), reap, close. May be repeated.

        The descriptors that were taken stay open. Shielded from cancellation; takes 1.5 s at most
        unless something of the tree is in uninterruptible sleep.
        """
        if self._closed:
            await trio.lowlevel.checkpoint()
            return
        self._closed = True
        if self._sock is not None:
            _shepherd_socket.close(self._sock)
            self._sock = None
        self._news.unpark_all()
        await _reap(self._child, self._places)
        self._fds.close_all()

    async def _read_until(self, told: Callable[[], bool]) -> None:
        """Read until `told()`: one task does for all that wait."""
        while not told():
            if self._is_reading:
                await self._news.park()
                continue
            self._is_reading = True
            try:
                self._exit = await self._read_one()
            finally:
                self._is_reading = False
                self._news.unpark_all()
        await trio.lowlevel.checkpoint()

    async def _read_one(self) -> Exit | None:
        """Take one packet. None: it was not the end yet."""
        packet, _ = await self._receive()
        if packet == b"":
            return await self._mourn_with_shepherd()
        match protocol.unpack(packet):
            case Exited() as exited:
                return _exit_from(exited)
            case Report() as report:
                self._report = report
                return None
            case Failed(error, step, text):
                self._log.warning(
                    "shepherd could not carry out a command",
                    error=os.strerror(error),
                    step=step.name.lower(),
                    rule=text,
                )
                return None
            case Started():
                raise RemoteProtocolError("STARTED came twice")

    async def _mourn_with_shepherd(self) -> Exit:
        """The shepherd was killed: so is the tree. Wait for the worker's own end, and see to it
        that nothing of the tree is left should its init have been killed with it.
        """
        await trio.lowlevel.wait_readable(self._fds.own_pidfd)
        await _end_groups(self._child, self._places)
        return Exit(status=None, signal=signals.SIGKILL, core=False, oom=False, shepherd_lost=True)

    async def _receive(self) -> tuple[bytes, list[int]]:
        if self._sock is None:
            raise trio.ClosedResourceError("this shepherd was closed")
        return await _shepherd_socket.receive(self._sock, self._child.pid)

    async def _command(self, packet: bytes) -> None:
        """Send a command; one that comes after the end is dropped, as its wish is fulfilled."""
        if self._sock is None:
            raise trio.ClosedResourceError("this shepherd was closed")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            await _shepherd_socket.send(self._sock, packet, [])


def _isolation(started: Started) -> Isolation:
    flags = started.flags
    cap: MemoryCap = None
    if StartedFlag.MEMORY_GROUP in flags:
        cap = "group"
    elif StartedFlag.ADDRESS_LIMIT in flags:
        cap = "address space"
    return Isolation(
        pid_namespace=StartedFlag.PID_NAMESPACE in flags,
        user_namespace=StartedFlag.USER_NAMESPACE in flags,
        landlock=StartedFlag.LANDLOCK in flags,
        namespace_error=started.namespace_error,
        seccomp=StartedFlag.SECCOMP in flags,
        memory_cap=cap,
        kill_group=StartedFlag.KILL_GROUP in flags,
        group_error=started.group_error,
    )


def _exit_from(exited: Exited) -> Exit:
    return Exit(
        status=exited.status if exited.signal == 0 else None,
        signal=exited.signal or None,
        core=ExitedFlag.CORE in exited.flags,
        oom=ExitedFlag.OOM in exited.flags,
        stopped=ExitedFlag.STOPPED in exited.flags,
        init_lost=ExitedFlag.INIT_LOST in exited.flags,
        lingers=ExitedFlag.LINGERS in exited.flags,
        usage=exited.usage,
    )


def find_shepherd() -> Path:
    """The shepherd's program: from the environment, the package, or the tree's own build.

    Raises: FileNotFoundError that says how to get it.
    """
    package = Path(__file__).resolve().parents[1]
    candidates = [package / "bin" / PROGRAM, package.parent / "build" / "bin" / PROGRAM]
    if named := os.environ.get(PROGRAM_VARIABLE):
        candidates = [Path(named)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(
        errno.ENOENT,
        f"{PROGRAM} is not built (`make shepherd` builds it; {PROGRAM_VARIABLE} can name it)",
        str(candidates[-1]),
    )


async def probe_isolation() -> Isolation:
    """What a worker started here and now would get; for `ringbridge doctor`. Raises: OSError."""
    fds = [os.memfd_create("ringbridge-probe") for _ in range(protocol.LINK_FDS)]
    obituary, obituary_end = os.pipe2(os.O_CLOEXEC)
    try:
        limits = WorkerLimits(memory_bytes=PROBE_MEMORY_BYTES)
        spawn = Spawn(argv=("true",), env={"PATH": os.defpath}, limits=limits)
        shepherd = await Shepherd.start(spawn, link_fds=fds, obituary_fd=obituary_end)
        await shepherd.aclose()
        return shepherd.isolation
    finally:
        for fd in (*fds, obituary, obituary_end):
            os.close(fd)


async def _send_start(
    sock: socket.socket, order: spawning.Order, fds: Sequence[int], places: Places
) -> None:
    ruleset = await spawning.make_ruleset(order.rules)
    with (
        spawning.descriptors(fds, ruleset, places) as given,
        # A shepherd that is gone has left its reason to be read.
        contextlib.suppress(BrokenPipeError, ConnectionResetError),
    ):
        await _shepherd_socket.send(sock, order.packet, given)


async def _receive_started(
    sock: socket.socket, shepherd_pid: int, program: str, cwd: str | None
) -> tuple[Started, _Descriptors]:
    packet, fds = await _shepherd_socket.receive(sock, shepherd_pid)
    try:
        if packet == b"":
            raise WorkerStartError(
                errno.EPIPE, Step.MESSAGE, "the shepherd ended without a word", None
            )
        match protocol.unpack(packet):
            case Started() as started if len(fds) == len(_Descriptors.NAMES):
                taken, fds = fds, []
                return started, _Descriptors(taken)
            case Failed(error, step, text):
                about = {Step.EXEC: program, Step.CWD: cwd}.get(step)
                raise WorkerStartError(error, step, text, about)
            case other:
                raise RemoteProtocolError(f"expected STARTED with 4 descriptors, got {other}")
    finally:
        for fd in fds:
            os.close(fd)


async def _reap(child: _spawner.Child, places: Places) -> None:
    """Wait for a shepherd whose socket is closed; kill one that does not go; reap it."""
    with trio.CancelScope(shield=True):
        with trio.move_on_after(GONE_WITHIN_S) as scope:
            await trio.lowlevel.wait_readable(child.pidfd)
        if scope.cancelled_caught:
            signals.pidfd_send_signal(child.pidfd, signals.SIGKILL)
            await trio.lowlevel.wait_readable(child.pidfd)
        os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED)  # noqa: ASYNC222 - it has ended
        trio.lowlevel.notify_closing(child.pidfd)
        os.close(child.pidfd)
        await _end_groups(child, places)


async def _end_groups(child: _spawner.Child, places: Places) -> None:
    """End what a shepherd that is gone has left in its control groups; it leaves none unless it was
    killed.
    """
    if _control_groups.are_left(places, child.pid):
        await trio.to_thread.run_sync(_control_groups.end, places, child.pid)
