"""Who gets a lane: a grant with a token that is good once, and the socket where it is shown.

The grant is asked for over the connection whose node gets the lane, so all that the connection
has proven (the cookie, [node] allow) is proven. Whoever then connects to the Unix socket must be
of the bridge's own user, of root or of [lanes] users by its peer credentials, must have the
process id that was told, and show the token. It gets the lane's descriptors by SCM_RIGHTS, and the
socket is closed: from there on the bell, one of them, tells each side of the other's end.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import pwd
import secrets
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import structlog
import trio

from bridge.config import Config, LaneSettings
from bridge.dist.names import matcher
from bridge.fabric.relay import LaneConfig
from bridge.lanes.links import LinkGrants

GRANT_S = 5.0
SHOW_S = 2.0  # from connecting to the token
STRANGERS_MAX = 8  # at the socket at once; who comes then takes the place of the oldest
TOKEN_BYTES = 32
RINGS_MAX = 129  # csrc/lane.toml
GRANTED = b"\0"
_log = structlog.get_logger("ringbridge.lanes")


class LaneRelay(Protocol):
    """The relay, as far as it is needed here."""

    def open_lane(self, conn: int, config: LaneConfig) -> tuple[int, ...]: ...
    def close_lane(self, lane: int, reason: str) -> None: ...


class NotGranted(Exception):
    """{:error, {:refused, why}}: why, in words."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a BEAM says of itself as it asks."""

    os_pid: int
    schedulers: int


@dataclass(frozen=True, slots=True)
class Grant:
    """A lane that is promised to who shows the token."""

    lane: int
    node: str
    conn: int
    wanted: Wanted
    token: bytes
    until_s: float


@dataclass(slots=True)
class Lane:
    """One that is there. `greeted`: its BEAM has mapped it."""

    id: int
    node: str
    conn: int
    os_pid: int
    uid: int
    since_s: float
    greeted: bool = False


class LaneDesk:
    """All grants and lanes. `current`: the settings of now."""

    def __init__(self, relay: LaneRelay, current: Callable[[], Config]) -> None:
        self._relay = relay
        self._current = current
        self._grants: dict[int, Grant] = {}
        self._lanes: dict[int, Lane] = {}
        self._last = 0
        self._listener: socket.socket | None = None
        self._strangers: deque[trio.CancelScope] = deque()  # at the socket, oldest first
        self.address = b""
        self.links = LinkGrants(self._check, lambda: self.address if self._listener else b"")

    def __iter__(self) -> Iterator[Lane]:
        return iter(tuple(self._lanes.values()))

    def __len__(self) -> int:
        return len(self._lanes)

    @property
    def settings(self) -> LaneSettings:
        return self._current().lanes

    def grant(self, node: str, conn: int, wanted: Wanted) -> Grant:
        """Promise a lane for GRANT_S. Raises NotGranted."""
        if self._listener is None:
            raise NotGranted("the bridge gives no lanes now: it starts or stops, or has no socket")
        self._check(node)
        self._forget_old_grants()
        most = self.settings.lanes_per_node_max
        if sum(each.node == node for each in (*self, *self._grants.values())) >= most:
            raise NotGranted(f"{node} has its share: [lanes] lanes_per_node_max is {most}")
        most = self.settings.lanes_max
        if len(self._lanes) + len(self._grants) >= most:
            raise NotGranted(f"all lanes are taken: [lanes] lanes_max is {most}")
        self._last += 1
        token, until_s = secrets.token_bytes(TOKEN_BYTES), trio.current_time() + GRANT_S
        grant = Grant(self._last, node, conn, wanted, token, until_s)
        self._grants[grant.lane] = grant
        return grant

    def review(self) -> None:
        """The settings have changed: what they no longer allow ends."""
        for lane in self:
            try:
                self._check(lane.node)
            except NotGranted as error:
                _log.warning("lane ends", lane=lane.id, node=lane.node, why=str(error))
                self._relay.close_lane(lane.id, "not_allowed")
        self._grants.clear()

    def ready(self, lane: int) -> None:
        """Its BEAM has greeted."""
        if (found := self._lanes.get(lane)) is not None:
            found.greeted = True
            _log.info("lane opened", lane=lane, node=found.node, os_pid=found.os_pid)

    def ended(self, lane: int, reason: str) -> None:
        """The relay has let go of it."""
        if (found := self._lanes.pop(lane, None)) is not None:
            level = _log.info if reason in _QUIET_ENDS else _log.warning
            level("lane ended", lane=lane, node=found.node, why=reason)

    def _check(self, node: str) -> None:
        settings = self.settings
        if settings.lanes_max == 0:
            raise NotGranted("this bridge gives none: [lanes] lanes_max is 0")
        if settings.allow and not _matcher(settings.allow)(node):
            raise NotGranted(f"[lanes] allow does not name {node}")

    def _forget_old_grants(self) -> None:
        now_s = trio.current_time()
        for grant in [each for each in self._grants.values() if each.until_s <= now_s]:
            del self._grants[grant.lane]

    # ---- the socket

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Give lanes out while the bridge lives. Where no socket is to be had, none is granted."""
        try:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            # Abstract: no file is left behind, whatever becomes of us; the token guards it.
            listener.bind(b"\0ringbridge-lanes-" + secrets.token_hex(16).encode())
            listener.listen(STRANGERS_MAX)
        except OSError as error:
            _log.error("no lanes: there is no socket for them", why=str(error))
            task_status.started()
            return
        self.address, self._listener = listener.getsockname(), listener
        task_status.started()
        try:
            with trio.socket.from_stdlib_socket(listener) as accepting:
                async with trio.open_nursery() as nursery:
                    while True:
                        try:
                            stranger = (await accepting.accept())[0]
                        except OSError as error:  # no descriptor free: others may let go of some
                            _log.error("nobody can come for a lane", why=str(error))
                            await trio.sleep(SHOW_S)
                            continue
                        # Who has a token shows it at once, so the oldest is the one that is silent.
                        if len(self._strangers) >= STRANGERS_MAX:
                            self._strangers.popleft().cancel()
                        self._strangers.append(scope := trio.CancelScope())
                        nursery.start_soon(self._meet, stranger, scope)
        finally:
            self._listener = None

    async def _meet(self, stranger: trio.socket.SocketType, scope: trio.CancelScope) -> None:
        """`scope`: cancelled when somebody else needs the place."""
        try:
            with stranger:
                scope.deadline = trio.current_time() + SHOW_S
                with scope:
                    await self._hear(stranger)
                if scope.cancelled_caught:
                    _send(stranger, b"no token was shown in time", ())
        except OSError as error:
            _log.info("who came for a lane has gone", why=str(error))
        finally:
            with contextlib.suppress(ValueError):  # it was displaced
                self._strangers.remove(scope)

    async def _hear(self, stranger: trio.socket.SocketType) -> None:
        """Wait for the token; nothing is awaited once it is there."""
        pid, uid = _peer(stranger)
        fds: tuple[int, ...] = ()
        answer = self._turn_away(pid, uid)
        if answer is None:
            shown = await stranger.recv(TOKEN_BYTES + 1)
            answer, fds = self._redeem(shown, pid, uid)
        try:
            _send(stranger, answer, fds)
        finally:
            for fd in fds:
                os.close(fd)

    def _turn_away(self, pid: int, uid: int) -> bytes | None:
        """What a user is told who is not to have a lane whatever he shows; None: he may.

        Before he is waited for: the socket's name is no secret, and whoever connects and is silent
        would hold a place that others come for.
        """
        if uid in self._users():
            return None
        why = f"uid {uid} is not the bridge's, root's, or of [lanes] users"
        _log.warning("refused a lane", os_pid=pid, uid=uid, why=why)
        return why.encode()

    def _redeem(self, shown: bytes, pid: int, uid: int) -> tuple[bytes, tuple[int, ...]]:
        """What a stranger is told, and what he gets."""
        if (link := self.links.redeem(shown, pid)) is not None:
            return link
        self._forget_old_grants()
        grant = next(
            (each for each in self._grants.values() if hmac.compare_digest(each.token, shown)), None
        )
        if grant is None:
            _log.warning("refused a lane: no such token", os_pid=pid, uid=uid)
            return b"no lane is granted for this token: it is good once, and for a few seconds", ()
        del self._grants[grant.lane]  # whatever follows
        try:
            self._check(grant.node)
            if pid != grant.wanted.os_pid:
                asked = grant.wanted.os_pid
                raise NotGranted(f"process {asked} asked for the lane, and process {pid} has come")
            fds = self._relay.open_lane(grant.conn, self._config(grant))
        except NotGranted as error:
            _log.warning("refused a lane", node=grant.node, os_pid=pid, uid=uid, why=str(error))
            return str(error).encode(), ()
        except OSError as error:
            _log.error("no lane can be made", node=grant.node, why=str(error))
            return f"no lane can be made: {error.strerror}".encode(), ()
        now_s = trio.current_time()
        self._lanes[grant.lane] = Lane(grant.lane, grant.node, grant.conn, pid, uid, now_s)
        return GRANTED, fds

    def _users(self) -> frozenset[int]:
        return frozenset({os.getuid(), 0}) | uids_of(self.settings.users)

    def _config(self, grant: Grant) -> LaneConfig:
        settings = self.settings
        return LaneConfig(
            lane=grant.lane,
            # One a scheduler, and one for all else; a large machine's last schedulers share it.
            rings=min(grant.wanted.schedulers, RINGS_MAX - 1) + 1,
            slots=settings.slots,
            arena_bytes=settings.request_bytes,
            result_bytes=settings.result_bytes,
            result_block_bytes=settings.result_block_bytes,
        )


# Ends that somebody wanted.
_QUIET_ENDS = frozenset({"closed_by_beam", "connection_lost", "node_closed", "not_allowed"})


def uids_of(users: tuple[str | int, ...]) -> frozenset[int]:
    """The ids of users that a list names; of a name that this host does not know, none."""
    found = set()
    for user in users:
        with contextlib.suppress(KeyError):
            found.add(user if isinstance(user, int) else pwd.getpwnam(user).pw_uid)
    return frozenset(found)


def describe(lane: Lane, figures: Mapping[str, Any] | None) -> dict[str, Any]:
    """One lane as a record for the status. `figures`: the relay's, None of one that ends."""
    return {
        "lane": lane.id,
        "node": lane.node,
        "os_pid": lane.os_pid,
        "uid": lane.uid,
        "state": "open" if lane.greeted else "granted",
        "age_ms": int((trio.current_time() - lane.since_s) * 1000),
        **(figures or {}),
    }


@lru_cache(maxsize=8)
def _matcher(names: tuple[str, ...]) -> Callable[[str], bool]:
    return matcher(names)


def _peer(stranger: trio.socket.SocketType) -> tuple[int, int]:
    """Pid and uid of who connected, as the kernel says (unix(7), SO_PEERCRED)."""
    size = struct.calcsize("3i")
    pid, uid, _ = struct.unpack(
        "3i", stranger.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    )
    return pid, uid


def _send(stranger: trio.socket.SocketType, data: bytes, fds: tuple[int, ...]) -> None:
    """One packet, the first of a fresh socket: there is room."""
    with socket.socket(fileno=os.dup(stranger.fileno())) as raw:
        socket.send_fds(raw, [data], list(fds), socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
