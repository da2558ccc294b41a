"""Shepherd: the bridge's handle on one worker's guard, and through it on the worker.

    bridge --socket--> ringbridge-shepherd --> init of a PID namespace --> worker

The socket is the life line: closing it, or dying, ends the worker's whole tree. What each process
does is told in docs/shepherd.md; this module starts, commands, listens and reaps.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal as signals
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog
import trio

from bridge.workers import _landlock, _spawner
from bridge.workers import _shepherd_protocol as protocol
from bridge.workers._shepherd_protocol import (
    Exited,
    ExitedFlag,
    Failed,
    RemoteProtocolError,
    Started,
    StartedFlag,
    StartFlag,
    Step,
    Usage,
)

__all__ = [
    "Exit",
    "Isolation",
    "RemoteProtocolError",
    "Shepherd",
    "Spawn",
    "WorkerStartError",
    "find_shepherd",
    "probe_isolation",
]

PROGRAM = "ringbridge-shepherd"
PROGRAM_VARIABLE = "RINGBRIDGE_SHEPHERD"

# After its socket closes a shepherd has 500 ms of grace to give and a kill to see through. One that
# is still there by then is killed, and takes its tree along.
GONE_WITHIN_S = 1.5
# Past a STOP's own grace. A tree that cannot die (uninterruptible sleep) is told of after 1 s.
STOPPED_WITHIN_S = 3.0


@dataclass(frozen=True)
class Spawn:
    """What to run. `argv[0]` without a slash is looked up in the PATH of `env`.

    `env` is given to the worker as it is, but for the cookie, which never is.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str | None = None
    grace_s: float = 2.0
    hold_stdin: bool = False  # stdin stays open until close_stdin(), whoever else closes it
    namespaces: bool = True  # False: do not try them, so that a debugger sees the tree
    hide: tuple[str, ...] = ()  # files that it may not read, beside the usual places of the cookie
    hide_cookie: bool = True  # False: no Landlock at all, unless `hide` asks for it


@dataclass(frozen=True, slots=True)
class Isolation:
    """How surely the worker's tree ends; docs/shepherd.md has the table."""

    pid_namespace: bool
    user_namespace: bool
    landlock: bool
    namespace_error: int  # errno that made namespaces impossible, 0 = none

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


class WorkerStartError(OSError):
    """The worker could not be started; nothing of it is left. `step` says where it failed."""

    def __init__(self, error: int, step: Step, text: str, filename: str | None) -> None:
        if filename is None:
            super().__init__(error, f"{os.strerror(error)} ({step.name.lower()}) {text}".rstrip())
        else:
            super().__init__(error, f"{os.strerror(error)} ({step.name.lower()})", filename)
        self.step = step


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
    ) -> None:
        self.pid = started.worker_pid  # of the worker, in our PID namespace
        self.init_pid = started.init_pid
        self.shepherd_pid = child.pid
        self.spawn_s = started.spawn_us / 1e6  # from START's arrival to the end of the exec
        self.isolation = Isolation(
            pid_namespace=StartedFlag.PID_NAMESPACE in started.flags,
            user_namespace=StartedFlag.USER_NAMESPACE in started.flags,
            landlock=StartedFlag.LANDLOCK in started.flags,
            namespace_error=started.namespace_error,
        )
        self._sock: socket.socket | None = sock
        self._child = child
        self._fds = fds
        self._grace_s = grace_s
        self._reading = trio.Lock()
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
        env = without_cookie(spawn.env)
        argv = (_resolve(spawn.argv, env), *spawn.argv[1:])
        flags = StartFlag(0)
        if spawn.hold_stdin:
            flags |= StartFlag.HOLD_STDIN
        if not spawn.namespaces:
            flags |= StartFlag.NO_NAMESPACES
        hidden = _hidden_files(spawn)
        if hidden:
            flags |= StartFlag.LANDLOCK
        packet = protocol.pack_start(
            argv, env, cwd=spawn.cwd or "", grace_ms=round(spawn.grace_s * 1000), flags=flags
        )

        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        child: _spawner.Child | None = None
        try:
            with theirs:
                child = await _spawner.spawn(find_shepherd(), theirs.fileno())
            ours.setblocking(False)
            await _send_start(ours, packet, [*link_fds, obituary_fd], hidden)
            started, fds = await _receive_started(ours, argv[0], spawn.cwd)
        except BaseException:
            _close_socket(ours)
            if child is not None:
                await _reap(child)
            raise
        return cls(ours, child, started, fds, spawn.grace_s)

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
        async with self._reading:
            while self._exit is None:
                self._exit = await self._read_exit()
        return self._exit

    async def signal(self, signum: int) -> None:
        """Send a signal to the worker itself (not to its children); none if it has ended."""
        if not 1 <= signum < signals.NSIG:
            raise ValueError(f"{signum} is no signal")
        await self._command(protocol.pack_signal(signum))

    async def close_stdin(self) -> None:
        """End the worker's stdin, as far as it is still in our hands."""
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
            _close_socket(self._sock)
            self._sock = None
        await _reap(self._child)
        self._fds.close_all()

    async def _read_exit(self) -> Exit | None:
        """Take one packet. None: it was not the end yet."""
        packet, _ = await self._receive()
        if packet == b"":
            return await self._mourn_with_shepherd()
        match protocol.unpack(packet):
            case Exited() as exited:
                return _exit_from(exited)
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
        """The shepherd was killed: so is the tree. Wait for the worker's own end."""
        await trio.lowlevel.wait_readable(self._fds.own_pidfd)
        return Exit(status=None, signal=signals.SIGKILL, core=False, oom=False, shepherd_lost=True)

    async def _receive(self) -> tuple[bytes, list[int]]:
        if self._sock is None:
            raise trio.ClosedResourceError("this shepherd was closed")
        return await _receive(self._sock)

    async def _command(self, packet: bytes) -> None:
        """Send a command; one that comes after the end is dropped, as its wish is fulfilled."""
        if self._sock is None:
            raise trio.ClosedResourceError("this shepherd was closed")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            await _send(self._sock, packet, [])


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
    package = Path(__file__).resolve().parent
    candidates = [package / "bin" / PROGRAM, package.parents[1] / "build" / "bin" / PROGRAM]
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


def without_cookie(env: Mapping[str, str]) -> dict[str, str]:
    """`env` without the cookie: who has it owns the cluster, and no worker may."""
    return {name: value for name, value in env.items() if not name.startswith("RINGBRIDGE_COOKIE")}


async def probe_isolation() -> Isolation:
    """What a worker started here and now would get; for `ringbridge doctor`. Raises: OSError."""
    fds = [os.memfd_create("ringbridge-probe") for _ in range(protocol.LINK_FDS)]
    obituary, obituary_end = os.pipe2(os.O_CLOEXEC)
    try:
        spawn = Spawn(argv=("true",), env={"PATH": os.defpath})
        shepherd = await Shepherd.start(spawn, link_fds=fds, obituary_fd=obituary_end)
        await shepherd.aclose()
        return shepherd.isolation
    finally:
        for fd in (*fds, obituary, obituary_end):
            os.close(fd)


def _resolve(argv: Sequence[str], env: Mapping[str, str]) -> str:
    if not argv:
        raise ValueError("a worker needs a program to run")
    if "/" in argv[0]:
        return argv[0]
    found = shutil.which(argv[0], path=env.get("PATH", os.defpath))
    if found is None:
        raise WorkerStartError(errno.ENOENT, Step.EXEC, "", f"{argv[0]} (looked for in PATH)")
    return found


def _hidden_files(spawn: Spawn) -> set[str]:
    if not _landlock.available():
        return set()
    return {*spawn.hide, *(_landlock.cookie_files(os.environ) if spawn.hide_cookie else ())}


async def _send_start(
    sock: socket.socket, packet: bytes, fds: Sequence[int], hidden: set[str]
) -> None:
    ruleset = await trio.to_thread.run_sync(_landlock.ruleset_hiding, hidden) if hidden else None
    try:
        # A shepherd that is gone has left its reason to be read.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            await _send(sock, packet, fds if ruleset is None else [*fds, ruleset])
    finally:
        if ruleset is not None:
            os.close(ruleset)


async def _receive_started(
    sock: socket.socket, program: str, cwd: str | None
) -> tuple[Started, _Descriptors]:
    packet, fds = await _receive(sock)
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


async def _send(sock: socket.socket, packet: bytes, fds: Sequence[int]) -> None:
    """Send one packet. Cancelled: it was not sent."""
    await trio.lowlevel.checkpoint_if_cancelled()
    while True:
        try:
            socket.send_fds(sock, [packet], fds) if fds else sock.send(packet)
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return


async def _receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """Receive one packet and its descriptors; b"" at end of file. Cancelled: it was not taken."""
    await trio.lowlevel.checkpoint_if_cancelled()
    receive = partial(socket.recv_fds, sock, protocol.MESSAGE_MAX, 8, socket.MSG_CMSG_CLOEXEC)
    reset_seen = False
    while True:
        try:
            packet, fds, _, _ = receive()
        except BlockingIOError:
            await trio.lowlevel.wait_readable(sock)
        except ConnectionResetError:
            # A shepherd that ends with commands of ours unread makes the kernel report this first,
            # once, before the packets that it sent (unix(7) queues survive the sender).
            if reset_seen:
                return b"", []
            reset_seen = True
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return packet, fds


def _close_socket(sock: socket.socket) -> None:
    if sock.fileno() >= 0:
        trio.lowlevel.notify_closing(sock)
        sock.close()


async def _reap(child: _spawner.Child) -> None:
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
