"""Workers that somebody starts by hand, under a debugger perhaps: `ringbridge attach`.

The command line asks for a place (`AttachDesk.offer`) and is told a Unix socket and a token, good
once and for half a minute. Whoever connects must be of the bridge's own user, or root (peer
credentials), and show the token; then a link is made, and its descriptors go over that socket with
SCM_RIGHTS. From there on it is a worker like others, but for its guard: no shepherd and no
namespace hold it. The command line stays its parent, tells its end over the same socket, and takes
it along when it goes. It is never judged to be hung: a debugger stops it (docs/health.md).
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import secrets
import shutil
import signal
import socket
import struct
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import msgspec
import structlog
import trio

from bridge.fabric.relay import LinkConfig
from bridge.workers.environment import worker_environment
from bridge.workers.handshake_driver import Links, RolePlan, Started
from bridge.workers.restart_policy import Decision, LeaveEnded
from bridge.workers.wishes import Fellow

OFFER_S = 30.0
STRANGERS_MAX = 8  # who show no token; then the offer is withdrawn
TOKEN_BYTES = 32
REPORT_BYTES_MAX = 256
_OBITUARY = struct.Struct("<IiII")  # csrc/include/ringbridge/obituary.h
_OBITUARY_MAGIC = 0x424F4252
_log = structlog.get_logger("ringbridge.attach")


class AttachLinks(Links, Protocol):
    """The relay, as far as it is needed here."""

    def spare_worker(self, worker_id: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Offer:
    """Where to come, and what to show there."""

    socket: str
    token: str
    within_s: float


class Alone:
    """In place of siblings: nobody falls with it, and it is not started again."""

    def leave(self, worker: Fellow) -> None: ...
    def come_back(self, worker: Fellow) -> None: ...
    def fell(self, worker: Fellow, *, normal: bool) -> Decision | None:
        return LeaveEnded()

    def fell_alone(self, worker: Fellow, *, given_up: str | None) -> None: ...
    def up(self, worker: Fellow) -> None: ...
    def gone(self, worker: Fellow) -> None: ...


class AttachGuard:
    """The command line that started a worker, in place of its shepherd.

    `connection`: the last line to it; its end of file is its end, a record on it says how it ended.
    """

    def __init__(self, pid: int, pidfd: int, connection: trio.SocketStream, obituary: int) -> None:
        self.pid = pid
        self._pidfd = pidfd
        self._connection = connection
        self._obituary = obituary
        self._over = trio.Event()

    async def watch(self) -> None:
        """Pass on how it ends; without a word it has been killed, as the relay takes it then."""
        try:
            report = b""
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                while len(report) < REPORT_BYTES_MAX and not report.endswith(b"\n"):
                    if not (more := await self._connection.receive_some(REPORT_BYTES_MAX)):
                        break
                    report += more
            if end := _end_of(report):
                record = _OBITUARY.pack(_OBITUARY_MAGIC, *end, 0)
                with contextlib.suppress(OSError):
                    os.write(self._obituary, record)
        finally:
            os.close(self._obituary)
            self._over.set()

    async def stop(self, grace_s: float | None = None) -> None:
        """SIGTERM, which it hands on; past the grace SIGKILL, which takes its child along."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGTERM)
            with trio.move_on_after(2.0 if grace_s is None else grace_s):
                await self._over.wait()
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        with trio.move_on_after(1.0):
            await self._over.wait()

    async def used(self) -> None:
        """Nobody has counted: it is no child of ours."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await self._connection.aclose()
        await self._over.wait()
        os.close(self._pidfd)


def _end_of(report: bytes) -> tuple[int, int] | None:
    """Status and signal as an obituary has them; None: it did not say so."""
    try:
        told = json.loads(report)
        status, by = int(told["status"]), int(told["signal"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    if by:
        return (-1, by) if 0 < by < 65 else None
    return (status, 0) if 0 <= status < 256 else None


class AttachDriver:
    """Gives the link of one worker to who waits at `connection`; in place of a HandshakeDriver."""

    def __init__(
        self,
        relay: AttachLinks,
        connection: trio.SocketStream,
        *,
        pid: int,
        link: LinkConfig,
        begin: Callable[[Callable[[], Awaitable[None]]], None],
    ) -> None:
        self.link = link
        self._relay = relay
        self._connection = connection
        self._pid = pid
        self._begin = begin

    async def start(self, worker_id: int, plan: RolePlan) -> Started:
        """As HandshakeDriver.start. Raises OSError with nothing left behind."""
        fds = self._relay.create_link(plan.id, worker_id, self.link)
        env = worker_environment(
            worker_id=worker_id,
            role=plan.name,
            role_env=plan.config.env,
            base={},
            chaos=plan.config.chaos,
        )
        with contextlib.ExitStack() as undo:
            undo.callback(self._connection.socket.close)
            undo.callback(self._relay.drop_link, worker_id)
            channel, worker_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.callback(channel.close)
            with worker_end:
                # Before it is sent something: who can still be told is no other with the same pid.
                pidfd = os.pidfd_open(self._pid)
                undo.callback(os.close, pidfd)
                text = json.dumps({"env": env, "worker": worker_id}).encode() + b"\n"
                _send(self._connection, text, [*fds, worker_end.fileno()])
            read, write = os.pipe2(os.O_CLOEXEC)
            undo.callback(os.close, write)
            undo.callback(os.close, read)
            own = os.dup(pidfd)
            undo.callback(os.close, own)
            self._relay.add_worker(
                worker_id, pidfd=pidfd, obituary_fd=read, stdout_fd=-1, stderr_fd=-1
            )
            self._relay.spare_worker(worker_id)
            undo.pop_all()
        guard = AttachGuard(self._pid, own, self._connection, write)
        self._begin(guard.watch)
        return Started(guard, channel)


def _send(connection: trio.SocketStream, data: bytes, fds: list[int]) -> None:
    """Bytes and descriptors at once: the first of a fresh socket, for which there is room."""
    raw = socket.socket(fileno=os.dup(connection.socket.fileno()))
    with raw:
        sent = socket.send_fds(raw, [data], fds)
    if sent != len(data):
        raise OSError("the attached side takes no data")


class AttachDesk:
    """Offers places and gives each to the first who may have it."""

    def __init__(
        self,
        *,
        begin: Callable[[Callable[[], Awaitable[None]]], None],
        join: Callable[[RolePlan, trio.SocketStream, int], None],
    ) -> None:
        self._begin = begin
        self._join = join

    def offer(self, plan: RolePlan) -> Offer:
        """A place in a role, for OFFER_S. Raises OSError."""
        folder = Path(tempfile.mkdtemp(prefix="ringbridge-"))  # nobody else may look into it
        token = secrets.token_hex(TOKEN_BYTES)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(folder / "attach"))
            listener.listen(STRANGERS_MAX)
        except OSError:
            listener.close()
            shutil.rmtree(folder, ignore_errors=True)
            raise
        plan = replace(plan, config=msgspec.structs.replace(plan.config, restart="temporary"))
        self._begin(lambda: self._keep(trio.socket.from_stdlib_socket(listener), token, plan))
        _log.info("a worker may attach", role=plan.name, within_s=OFFER_S)
        return Offer(str(folder / "attach"), token, OFFER_S)

    async def _keep(self, listener: trio.socket.SocketType, token: str, plan: RolePlan) -> None:
        folder = Path(os.fsdecode(listener.getsockname())).parent
        try:
            with trio.move_on_after(OFFER_S) as waiting, listener:
                for _ in range(STRANGERS_MAX):
                    try:
                        connection = trio.SocketStream((await listener.accept())[0])
                    except OSError as error:  # no descriptor free: no place either
                        _log.error("nobody can attach", role=plan.name, why=str(error))
                        return
                    pid, uid = _peer(connection)
                    if uid in (os.getuid(), 0) and await _shows(connection, token):
                        _log.info("a worker attaches", role=plan.name, os_pid=pid)
                        self._join(plan, connection, pid)
                        return
                    _log.warning("refused to attach", role=plan.name, os_pid=pid, uid=uid)
                    await connection.aclose()
            why = "in time" if waiting.cancelled_caught else "with the token"
            _log.warning(f"nobody attached {why}", role=plan.name)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _peer(connection: trio.SocketStream) -> tuple[int, int]:
    """Pid and uid of who connected, as the kernel says (unix(7), SO_PEERCRED)."""
    size = struct.calcsize("3i")
    raw = connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    pid, uid, _ = struct.unpack("3i", raw)
    return pid, uid


async def _shows(connection: trio.SocketStream, token: str) -> bool:
    """Whether the first line is the token. Who is slow has two seconds."""
    shown = b""
    with trio.move_on_after(2.0), contextlib.suppress(trio.BrokenResourceError):
        while len(shown) < 2 * TOKEN_BYTES + 1 and not shown.endswith(b"\n"):
            if not (more := await connection.receive_some(2 * TOKEN_BYTES + 1 - len(shown))):
                break
            shown += more
    return hmac.compare_digest(shown, token.encode() + b"\n")
