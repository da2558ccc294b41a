"""The relay thread, seen from trio: it moves the bytes, this side decides.

Every method but `next_events` hands a note to the relay and returns at once. Once adopted, a socket
is the relay's alone; once added, so are a worker's descriptors.

Neither thread wakes the other with a system call while that one is awake: a wake-up across cores
takes longer than most calls. So while signals come often, both look for the next one for some
microseconds before they sleep (docs/decisions/0012).
"""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

import trio

from bridge.fabric import layout, structs, told
from bridge.fabric._core import ffi, lib
from bridge.fabric.events import (
    BreakerChanged,
    ConnectionLost,
    Event,
    JobLost,
    LaneEnded,
    LaneReady,
    RoleGone,
    Signal,
    WorkerBroke,
    WorkerEnded,
    WorkerOutput,
    WorkerReady,
    WorkerRefused,
)
from bridge.fabric.figures import BreakerState, Hops, RelayStats, RoleStats, WorkerStats
from bridge.fabric.lanes import LaneConfig, LaneStats, ListedState, ListedWorker
from bridge.fabric.limits import (
    AccountKind,
    AdmissionLimits,
    AllowanceLimits,
    BreakerForce,
    ChoiceLimits,
    LinkConfig,
    LinkFds,
    RelayLimits,
    RoleLimits,
    RoleState,
    Service,
    TenantLimits,
)
from bridge.fabric.recording import RecordFigures, Recording, RecordingError
from bridge.fabric.tls import TlsLine

__all__ = [
    "AccountKind",
    "AdmissionLimits",
    "AllowanceLimits",
    "BreakerChanged",
    "BreakerForce",
    "BreakerState",
    "ChoiceLimits",
    "ConnectionLost",
    "Event",
    "Hops",
    "JobLost",
    "LaneConfig",
    "LaneEnded",
    "LaneReady",
    "LaneStats",
    "LinkConfig",
    "LinkFds",
    "ListedState",
    "ListedWorker",
    "Relay",
    "RelayLimits",
    "RelayStats",
    "RoleGone",
    "RoleLimits",
    "RoleState",
    "RoleStats",
    "Service",
    "Signal",
    "WorkerBroke",
    "WorkerEnded",
    "WorkerOutput",
    "WorkerReady",
    "WorkerRefused",
    "WorkerStats",
]

SIGNALS_AT_ONCE = 64  # half a millisecond of handling, before other tasks have their turn
_SIGNAL_ROOM = 64 << 10  # for these; a larger signal comes by itself
_OURS = frozenset({"outgoing_high_bytes"})  # of the limits; the relay tells of the low mark
_CRC_FEATURES = {
    "off": 0,
    "envelope": layout.FEATURE_CRC_ENVELOPE,
    "payload": layout.FEATURE_CRC_ENVELOPE | layout.FEATURE_CRC_PAYLOAD,
}


def cut(text: str, bytes_max: int) -> bytes:
    """UTF-8 without NUL in so many bytes; dots at its end where it was longer. Any text has some: a
    lone surrogate, as a path may have, is a question mark in it.
    """
    data = text.replace("\0", "").encode(errors="replace")
    if len(data) <= bytes_max:
        return data
    return data[: bytes_max - 3].decode("utf-8", "ignore").encode() + b"..."


def _check(code: int, what: str) -> None:
    """Raise OSError for a negative errno of the core."""
    if code < 0:
        raise OSError(-code, f"{what}: {os.strerror(-code)}")


class Relay:
    """Starts the relay's thread; `close` ends it, with every socket and link that it owns."""

    def __init__(
        self,
        *,
        node: str,
        creation: int,
        limits: RelayLimits | None = None,
        record: Recording | None = None,
    ) -> None:
        """`record`: all that comes and leaves is written down, from here on. Raises OSError, and
        RecordingError where the recording cannot begin.
        """
        limits = limits or RelayLimits()
        name = ffi.new("char[]", node.encode())
        made = structs.filled("struct rb_relay_config", limits, but=_OURS)
        made.pointer.node = name
        made.pointer.creation = creation
        self._high_bytes = limits.outgoing_high_bytes
        self._rooms: dict[int, trio.Event] = {}
        handle = ffi.new("struct rb_relay **")
        _check(lib.rb_relay_open(handle, made.pointer), f"relay of {node}")
        self._handle: Any = handle[0]
        if record is not None:
            self._record(record)
        self._event = ffi.new("struct rb_event *")
        self._event_fd: int = lib.rb_relay_event_fd(self._handle)
        self._heads = ffi.new("uint32_t[]", 3 * SIGNALS_AT_ONCE)
        self._room = ffi.new("uint8_t[]", _SIGNAL_ROOM)
        self._signal_bytes = ffi.buffer(self._room)
        self._connections = 0
        self._roles: set[int] = set()  # numbers that are taken
        self._allowances: set[tuple[AccountKind, str]] = set()
        self._tenants: set[str] = set()  # that have limits of their own

    @property
    def _relay(self) -> Any:
        """The core's handle; nothing may reach for the memory behind it once it is closed."""
        if self._handle is None:
            raise trio.ClosedResourceError("the relay has been closed")
        return self._handle

    def close(self) -> None:
        """End the thread and close what it owns. May be repeated; every other call then raises
        ClosedResourceError. Books that are not even by then (accepted = answered + in flight, and
        more of the kind) are a bug of the relay's: AssertionError, after all is closed.
        """
        if self._handle is not None:
            relay, self._handle = self._handle, None
            for room in self._rooms.values():
                room.set()
            if trio.lowlevel.in_trio_run():
                trio.lowlevel.notify_closing(self._event_fd)
            lib.rb_relay_stop(relay)
            why = ffi.new("char[]", 256)
            uneven = lib.rb_relay_audit(relay, why, 256) < 0
            lib.rb_relay_close(relay)
            if uneven:
                raise AssertionError(f"the relay's books: {ffi.string(why).decode()}")

    # ---- recording

    def _record(self, record: Recording) -> None:
        """Only a relay that has been told nothing yet can be run again from its begin."""
        path, size = os.fsencode(record.path), record.file_bytes_max
        code = lib.rb_relay_record(self._handle, path, size, record.buffer_bytes)
        if code < 0:
            self.close()
            raise RecordingError(f"cannot record into {record.path}: {os.strerror(-code)}")

    def stop_recording(self) -> None:
        """End it with the relay's next round; `recording` says when the file is whole."""
        _check(lib.rb_relay_record_stop(self._relay), "recording")

    def recording(self) -> RecordFigures | None:
        """How far it is; None: there is none."""
        raw = ffi.new("struct rb_record_figures *")
        if lib.rb_relay_record_figures(self._relay, raw) < 0:
            return None
        return structs.record(RecordFigures, raw)

    def configure(self, limits: RelayLimits) -> None:
        """Let connections be bounded by other limits from the relay's next round on; the size of a
        frame, the number of monitors and how the relay waits stay as they were opened.
        """
        made = structs.filled("struct rb_relay_config", limits, but=_OURS)
        _check(lib.rb_relay_configure(self._relay, made.pointer), "limits")
        self._high_bytes = limits.outgoing_high_bytes

    # ---- connections

    def adopt(
        self,
        sock: socket.socket,
        *,
        peer: str,
        flags: int,
        creation: int,
        leftover: bytes = b"",
        tls: TlsLine | None = None,
    ) -> int:
        """Take a socket after its handshake; returns the connection's id.

        `flags` are the negotiated ones; `creation` is the peer's, told for the record only. `tls`:
        the line whose stream `sock` is; the relay takes over the TLS connection behind it.
        """
        del creation  # pids carry it; the relay compares whole pids
        # Both may raise: until they have not, the socket is the caller's.
        relay, name = self._relay, peer.encode("latin-1")
        self._connections += 1
        number = self._connections
        if tls is not None:
            taken = tls.take(sock)
            code = lib.rb_relay_adopt_tls(
                relay, number, taken, name, flags, leftover, len(leftover)
            )
            if code < 0:
                lib.rb_tls_free(taken)
        else:
            fd = sock.detach()
            code = lib.rb_relay_adopt(relay, number, fd, name, flags, leftover, len(leftover))
            if code < 0:
                os.close(fd)
        _check(code, f"connection of {peer}")
        return number

    def send(self, conn: int, control: bytes, message: bytes | None = None) -> None:
        """Queue one signal of bare terms. A connection that is gone swallows it."""
        data = ffi.NULL if message is None else message
        code = lib.rb_relay_send(
            self._relay, conn, control, len(control), data, len(message or b"")
        )
        _check(code, f"connection {conn}")

    def backlog(self, conn: int) -> int:
        """Bytes handed to `send` that the connection's socket has not taken yet."""
        return int(lib.rb_relay_backlog(self._relay, conn))

    def has_room(self, conn: int) -> bool:
        """Does no more than the high mark wait on `conn`, so that `wait_writable` would not?"""
        return self.backlog(conn) <= self._high_bytes

    async def wait_writable(self, conn: int) -> None:
        """Wait while more than the high mark waits on `conn`, until the low mark or its end.

        Returns at once, without a checkpoint, where less waits. The mark is looked at last, so who
        sends before its next checkpoint keeps it.
        """
        while self.backlog(conn) > self._high_bytes:
            room = self._rooms.get(conn)
            if room is None:
                room = self._rooms[conn] = trio.Event()
                _check(lib.rb_relay_want_room(self._relay, conn), f"connection {conn}")
            await room.wait()

    def _has_room(self, conn: int) -> None:
        room = self._rooms.pop(conn, None)
        if room is not None:
            room.set()

    def drop(self, conn: int, reason: str) -> None:
        """Close a connection after what was queued before, as far as its socket takes that."""
        _check(lib.rb_relay_drop(self._relay, conn, reason.encode()), f"connection {conn}")

    # ---- the service that the relay answers

    def install_service(
        self, service: Service, *, pid: tuple[int, int], names: Sequence[str]
    ) -> None:
        """From here on the relay answers for the process with this id and serial and its names."""
        text = b"".join(name.encode() + b"\0" for name in names) + b"\0"
        _check(lib.rb_relay_install_service(self._relay, service.value, *pid, text), "service")

    def hold(self, service: Service, on: bool) -> None:
        """While JOBS is held, jobs are taken in and queue, and none is placed; what runs, runs on.
        While STREAMS is, no worker is asked for more parts.
        """
        _check(lib.rb_relay_hold(self._relay, service.value, on), "service")

    def service_down(self, service: Service, reason: bytes) -> None:
        """Tell every monitor DOWN with `reason` (a bare term); later ones get noproc. The streams
        end with STREAMS, the jobs run on without JOBS.
        """
        code = lib.rb_relay_service_down(self._relay, service.value, reason, len(reason))
        _check(code, "service")

    # ---- roles and workers

    def add_role(self, limits: RoleLimits) -> int:
        """Make a role with its payload pool; jobs for it queue from now on. Returns its number,
        the lowest that is free.

        Raises OSError: EINVAL when the relay has all the roles that it can have, ENOMEM.
        """
        config = structs.filled("struct rb_role_config", limits)
        number = next(n for n in itertools.count() if n not in self._roles)
        code = lib.rb_relay_add_role(self._relay, number, config.pointer)
        _check(code, f"role {limits.name}")
        self._roles.add(number)
        return number

    def configure_role(self, role: int, limits: RoleLimits) -> None:
        """Let a role work by other limits from the relay's next round on.

        Raises OSError: ENOENT without such a role, EINVAL for another name or size of the pool,
        which stay as they are: workers have mapped the one and greeted with the other.
        """
        config = structs.filled("struct rb_role_config", limits)
        code = lib.rb_relay_configure_role(self._relay, role, config.pointer)
        _check(code, f"role {limits.name}")

    def set_tenants(self, tenants: Mapping[str, TenantLimits]) -> None:
        """Give these tenants what their limits say, from the relay's next round on, and those of
        before that are not among them what every other name has.

        Raises OSError: EINVAL for a name or a weight that no tenant may have.
        """
        for name in self._tenants - tenants.keys():
            _check(lib.rb_relay_configure_tenant(self._relay, name.encode(), ffi.NULL), name)
        self._tenants = set(tenants)
        for name, limits in tenants.items():
            given = structs.filled("struct rb_tenant_config", limits)
            code = lib.rb_relay_configure_tenant(self._relay, name.encode(), given.pointer)
            _check(code, f"tenant {name}")

    def set_allowances(self, allowances: Mapping[tuple[AccountKind, str], AllowanceLimits]) -> None:
        """Bound what these nodes and tenants may ask, from the relay's next round on; those of
        before that are not among them have no bound of their own any more. "*": all the others.

        Raises OSError: EINVAL for a number out of range.
        """
        for kind, name in self._allowances - allowances.keys():
            self._configure_allowance(kind, name, ffi.NULL)
        self._allowances = set(allowances)
        for (kind, name), limits in allowances.items():
            given = structs.filled("struct rb_allowance_config", limits)
            self._configure_allowance(kind, name, given.pointer)

    def _configure_allowance(self, kind: AccountKind, name: str, config: Any) -> None:
        whose = b"" if name == "*" else name.encode()
        code = lib.rb_relay_configure_allowance(self._relay, int(kind), whose, config)
        _check(code, f"{kind.name.lower()} {name}")

    def remove_role(self, role: int) -> None:
        """Let no caller find the role from the next round on; jobs that wait are answered
        :no_worker. RoleGone follows after its last job; the number is taken until then.

        Raises OSError: EBUSY while a worker of it has not ended.
        """
        _check(lib.rb_relay_remove_role(self._relay, role), f"role {role}")

    def set_role_state(self, role: int, state: RoleState) -> None:
        _check(lib.rb_relay_set_role_state(self._relay, role, int(state)), f"role {role}")

    def force_breaker(self, role: int, worker_id: int | None, how: BreakerForce) -> None:
        """Hold the breaker of a worker, or with None of the whole role, open or closed, or let it
        go. A worker that is gone changes nothing.
        """
        code = lib.rb_relay_force_breaker(self._relay, role, worker_id or 0, int(how))
        _check(code, f"role {role}")

    def create_link(self, role: int, worker_id: int, config: LinkConfig) -> LinkFds:
        """Make the memory and descriptors of one worker's link. The relay keeps and closes them."""
        fds = ffi.new("int[5]")
        code = lib.rb_relay_create_link(
            self._relay,
            role,
            worker_id,
            config.slots,
            config.result_bytes,
            config.result_block_bytes,
            _CRC_FEATURES[config.crc] | layout.FEATURE_ZSTD,
            fds,
        )
        _check(code, f"link of worker {worker_id}")
        return LinkFds(*fds)

    def add_worker(
        self, worker_id: int, *, pidfd: int, obituary_fd: int, stdout_fd: int, stderr_fd: int
    ) -> None:
        """Take a started worker and its descriptors; jobs flow once it has greeted."""
        code = lib.rb_relay_add_worker(
            self._relay, worker_id, pidfd, obituary_fd, stdout_fd, stderr_fd
        )
        _check(code, f"worker {worker_id}")

    def drop_link(self, worker_id: int) -> None:
        """Forget a link whose worker could not be started."""
        _check(lib.rb_relay_drop_link(self._relay, worker_id), f"link of worker {worker_id}")

    def drain_worker(self, worker_id: int) -> None:
        """No new jobs; the worker finishes what it has and leaves; WorkerEnded follows."""
        _check(lib.rb_relay_drain_worker(self._relay, worker_id), f"worker {worker_id}")

    def spare_worker(self, worker_id: int) -> None:
        """Never take it for hung or stuck: a debugger may hold it."""
        _check(lib.rb_relay_spare_worker(self._relay, worker_id), f"worker {worker_id}")

    def unguarded_worker(self, worker_id: int) -> None:
        """Nobody here can end its process: one that ignores a cancel is fenced in place of that."""
        _check(lib.rb_relay_unguarded_worker(self._relay, worker_id), f"worker {worker_id}")

    def weigh_worker(self, worker_id: int, weight: int) -> None:
        """Its weight beside the other workers of its role, 1 to 100. A worker that is gone changes
        nothing.
        """
        _check(lib.rb_relay_weigh_worker(self._relay, worker_id, weight), f"worker {worker_id}")

    # ---- lanes

    def open_lane(self, conn: int, config: LaneConfig) -> tuple[int, ...]:
        """Make the memory of a lane for the node at `conn`. The descriptors, in the order in which
        a BEAM takes them, are the caller's to hand over and to close; LaneEnded follows, at the
        latest when all copies are closed. Raises OSError: a size that no lane has, or too many.
        """
        fds = ffi.new("int[4]")
        made = structs.filled("struct rb_lane_config", config)
        _check(lib.rb_relay_open_lane(self._relay, conn, made.pointer, fds), f"lane of {conn}")
        return tuple(fds)

    def close_lane(self, lane: int, reason: str) -> None:
        """End it, its jobs with it; one that is gone already is nothing."""
        _check(lib.rb_relay_close_lane(self._relay, lane, reason.encode()), f"lane {lane}")

    # ---- the list of workers that BEAMs with a lane read

    def list_worker(self, place: int, worker: ListedWorker) -> None:
        """Who has a place, of those below RB_LISTED_MAX. Raises OSError without memory for it.

        A kit's name is the worker's own words, and was made text: bytes that are no UTF-8 may have
        made it longer than its worker was let to write it. It is cut, as reasons are.
        """
        listed = structs.filled("struct rb_listed_worker", worker, but=frozenset({"kit"}))
        listed.pointer.kit = cut(worker.kit, len(listed.pointer.kit) - 1)
        _check(lib.rb_relay_list_worker(self._relay, place, listed.pointer), f"place {place}")

    def list_hidden(self, workers: int) -> None:
        """So many workers have no place."""
        _check(lib.rb_relay_list_hidden(self._relay, workers), "places")

    def list_errors(self, errors: Sequence[tuple[int, str]]) -> None:
        """The ids of workers that ended wrongly and why, the newest first; as many as there is room
        for, and of each as much.
        """
        count = min(len(errors), lib.RB_LISTED_ERRORS_MAX)
        listed = ffi.new("struct rb_listed_error[]", lib.RB_LISTED_ERRORS_MAX)
        for at, (worker, why) in zip(listed, errors, strict=False):
            at.worker, at.why = worker, cut(why, lib.RB_LISTED_WHY_BYTES)
        _check(lib.rb_relay_list_errors(self._relay, listed, count), "errors")

    # ---- figures

    def stats(self) -> RelayStats:
        raw = ffi.new("struct rb_relay_stats *")
        lib.rb_relay_read_stats(self._relay, raw)
        stats = structs.record(RelayStats, raw)
        del stats.refused["ok"]
        return stats

    def role_stats(self, role: int) -> RoleStats:
        raw = ffi.new("struct rb_role_stats *")
        _check(lib.rb_relay_read_role(self._relay, role, raw), f"role {role}")
        return structs.record(RoleStats, raw)

    def worker_stats(self, worker_id: int) -> WorkerStats:
        """Raises OSError (ENOENT) when there is no such worker any more."""
        raw = ffi.new("struct rb_worker_stats *")
        _check(lib.rb_relay_read_worker(self._relay, worker_id, raw), f"worker {worker_id}")
        return structs.record(WorkerStats, raw)

    def lane_stats(self, lane: int) -> LaneStats:
        """Raises OSError (ENOENT) when there is no such lane any more."""
        raw = ffi.new("struct rb_lane_stats *")
        _check(lib.rb_relay_read_lane(self._relay, lane, raw), f"lane {lane}")
        return structs.record(LaneStats, raw)

    def hops(self) -> Hops:
        raw = ffi.new("struct rb_relay_hops *")
        lib.rb_relay_read_hops(self._relay, raw)
        samples = max(raw.samples, 1) * 1000
        return Hops(
            samples=raw.samples,
            socket_to_queue_us=raw.socket_to_queue_ns / samples,
            queue_to_ring_us=raw.queue_to_ring_ns / samples,
            ring_to_answer_us=raw.ring_to_answer_ns / samples,
            worker_run_us=raw.worker_run_ns / samples,
            answer_to_socket_us=raw.answer_to_socket_ns / samples,
        )

    # ---- events

    async def next_events(self) -> list[Event]:
        """Wait for what the relay has to say next, in order, at least one. One task only;
        cancelling loses nothing.
        """
        # Twice: first run those whom the last events woke, then those whom they woke in turn. Who
        # still has work then waits while we look, no longer than a handler may take.
        await trio.lowlevel.checkpoint()
        if not lib.rb_relay_waiting(self._relay):
            await trio.lowlevel.checkpoint()
        while not lib.rb_relay_linger(self._relay):
            # Announced before the last look, so that what comes after that look rings.
            lib.rb_relay_hush(self._relay)
            if not lib.rb_relay_waiting(self._relay):
                await trio.lowlevel.wait_readable(self._event_fd)
        return self._take() or await self.next_events()

    def _take(self) -> list[Event]:
        """The signals that have come, or else one event of another kind; none for what only the
        relay's own waiters want to know.
        """
        count = lib.rb_relay_take_signals(
            self._relay, self._heads, SIGNALS_AT_ONCE, self._room, _SIGNAL_ROOM
        )
        if not count:
            lib.rb_relay_take(self._relay, self._event)
            if self._event.kind in (lib.RB_EVENT_CONNECTION_ROOM, lib.RB_EVENT_CONNECTION_LOST):
                self._has_room(self._event.connection)
            if self._event.kind == lib.RB_EVENT_ROLE_GONE:
                self._roles.discard(self._event.a)
            return (
                []
                if self._event.kind == lib.RB_EVENT_CONNECTION_ROOM
                else [told.event(self._event)]
            )
        heads, data, at = ffi.unpack(self._heads, 3 * count), self._signal_bytes, 0
        signals: list[Event] = []
        for head in range(0, 3 * count, 3):
            middle = at + heads[head + 1]
            end = middle + heads[head + 2]
            signals.append(Signal(heads[head], data[at:middle], data[middle:end] or None))
            at = end
        return signals
