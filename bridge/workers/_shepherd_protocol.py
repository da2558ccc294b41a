"""The messages between the bridge and a shepherd: bytes out, messages in. No socket, no task.

The layouts are those of csrc/include/ringbridge/shepherd_protocol.h, which says what each field
means; a test reads that file and holds the two together. Machine byte order: both ends are one
build on one machine.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag

VERSION = 2
SOCKET_FD = 3
MESSAGE_MAX = 65536
ARGC_MAX = 256
ENVC_MAX = 512
LINK_FDS = 6
GROUPS_MAX = 64
LIMITS_MAX = 16
NAME_MAX = 64  # of a control group, its NUL included
LIMIT_INFINITY = 0xFFFFFFFFFFFFFFFF
GRACE_OF_START = 0xFFFFFFFF
GRACE_MAX_MS = GRACE_OF_START - 1

HEADER = struct.Struct("=HHI")  # version, type, length
# header, flags, grace_ms, argc, envc, limitc, groupc, uid, gid, syscalls, nice, strings_bytes,
# reserved, memory_bytes, address_bytes
START = struct.Struct("=HHIIIIIIIIIIiIIQQ")
LIMIT = struct.Struct("=IIQ")  # resource, reserved, value
SIGNAL = struct.Struct("=HHIII")  # header, signum, reserved
CLOSE_STDIN = HEADER
STOP = struct.Struct("=HHIII")  # header, grace_ms, reserved
STATUS = HEADER
WINDOW_SIZE = struct.Struct("=HHIII")  # header, rows, columns
STARTED = struct.Struct("=HHIIiiiIi")  # header, flags, pids, namespace_error, spawn_us, group_error
# header, state, process, threads, grace_left_ms, user_us, system_us, rss, memory, age_us
REPORT = struct.Struct("=HHIIIII5Q")
EXITED = struct.Struct("=HHIiIII7Q")  # header, status, signal, flags, reserved, usage
ERROR = struct.Struct("=HHIiI")  # header, error, step


class Message(IntEnum):
    """RB_MESSAGE_*"""

    START = 1
    SIGNAL = 2
    CLOSE_STDIN = 3
    STOP = 4
    STATUS = 5
    WINDOW_SIZE = 6
    STARTED = 16
    EXITED = 17
    ERROR = 18
    REPORT = 19


class StartFlag(IntFlag):
    """RB_START_*"""

    NO_NAMESPACES = 0x1
    LANDLOCK = 0x2
    HOLD_STDIN = 0x4
    USER = 0x8
    NO_NETWORK = 0x10
    TERMINAL = 0x20
    MEMORY_GROUP = 0x40
    KILL_GROUP = 0x80


class Syscalls(IntEnum):
    """RB_SYSCALLS_*"""

    ANY = 0
    GUARDED = 1
    STRICT = 2


class StartedFlag(IntFlag):
    """RB_STARTED_*"""

    PID_NAMESPACE = 0x1
    USER_NAMESPACE = 0x2
    SUBREAPER = 0x4
    LANDLOCK = 0x8
    SECCOMP = 0x10
    MEMORY_GROUP = 0x20
    ADDRESS_LIMIT = 0x40
    KILL_GROUP = 0x80


class ExitedFlag(IntFlag):
    """RB_EXITED_*"""

    CORE = 0x1
    OOM = 0x2
    STOPPED = 0x4
    INIT_LOST = 0x8
    LINGERS = 0x10


class Step(IntEnum):
    """RB_STEP_*: what was being done when an ERROR came up."""

    MESSAGE = 1
    PIPES = 2
    INIT = 3
    WORKER = 4
    SESSION = 5
    DESCRIPTORS = 6
    CWD = 7
    PRIVILEGES = 8
    LANDLOCK = 9
    EXEC = 10
    SIGNAL = 11
    LIMITS = 12
    USER = 13
    TERMINAL = 14
    SECCOMP = 15


class ReportState(IntEnum):
    """RB_REPORT_*"""

    RUNNING = 1
    STOPPING = 2
    KILLING = 3
    LEAVING = 4


class RemoteProtocolError(Exception):
    """The shepherd broke a rule of shepherd_protocol.h: it is of another build, or it is none."""


@dataclass(frozen=True, slots=True)
class Started:
    flags: StartedFlag
    worker_pid: int
    init_pid: int
    namespace_error: int  # errno, 0 = none
    spawn_us: int
    group_error: int  # errno, 0 = none


@dataclass(frozen=True, slots=True)
class Usage:
    """What the worker and the descendants that it waited for have used (getrusage(2))."""

    user_us: int
    system_us: int
    rss_max_kib: int
    minor_faults: int
    major_faults: int
    switches_voluntary: int
    switches_involuntary: int


@dataclass(frozen=True, slots=True)
class Exited:
    status: int  # -1 when a signal ended the worker
    signal: int  # 0 = none
    flags: ExitedFlag
    usage: Usage


@dataclass(frozen=True, slots=True)
class Report:
    """REPORT: the worker's own process, but `memory_bytes`: that is all of its control group's."""

    state: ReportState
    process: str  # as proc(5): "R", "S", "D", "T", ...; "" = it cannot be looked at
    threads: int
    grace_left_ms: int
    user_us: int
    system_us: int
    rss_bytes: int
    memory_bytes: int  # 0 = it has no such group
    age_us: int


@dataclass(frozen=True, slots=True)
class User:
    """As whom a worker runs. `groups`: the supplementary ones."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Confinement:
    """What START lays on a worker, beside its flags. `limits`: RLIMIT_* to value."""

    limits: Mapping[int, int] = field(default_factory=dict)
    user: User | None = None
    syscalls: Syscalls = Syscalls.ANY
    nice: int = 0
    memory_bytes: int = 0  # 0 = no cap
    address_bytes: int = 0  # RLIMIT_AS where no control group keeps that cap
    group_name: str = ""


NO_CONFINEMENT = Confinement()


@dataclass(frozen=True, slots=True)
class Failed:
    """ERROR"""

    error: int  # errno
    step: Step
    text: str


def pack_start(
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    cwd: str,
    grace_ms: int,
    flags: StartFlag,
    confinement: Confinement = NO_CONFINEMENT,
) -> bytes:
    """Pack START. `cwd`: "" leaves it as it is. The flag USER is set by `confinement`.

    Raises: ValueError when a count, a string or the whole is outside the limits of the protocol.
    """
    if not 1 <= len(argv) <= ARGC_MAX:
        raise ValueError(f"a worker has 1 to {ARGC_MAX} arguments, not {len(argv)}")
    if len(env) > ENVC_MAX:
        raise ValueError(f"a worker has at most {ENVC_MAX} environment variables, not {len(env)}")
    if not 0 <= grace_ms <= GRACE_MAX_MS:
        raise ValueError(f"grace of {grace_ms} ms is outside 0 to {GRACE_MAX_MS}")
    for name in env:
        if not name or "=" in name:
            raise ValueError(f"{name!r} cannot name an environment variable")
    user = confinement.user or User(0, 0)
    if confinement.user is not None:
        flags |= StartFlag.USER
    if len(user.groups) > GROUPS_MAX:
        raise ValueError(f"a user has at most {GROUPS_MAX} groups here, not {len(user.groups)}")
    if len(confinement.limits) > LIMITS_MAX:
        raise ValueError(f"there are at most {LIMITS_MAX} limits, not {len(confinement.limits)}")
    texts = [
        cwd,
        confinement.group_name,
        *argv,
        *(f"{name}={value}" for name, value in env.items()),
    ]
    for text in texts:
        if "\0" in text:
            raise ValueError(f"a string for a worker holds a NUL: {text!r}")
    strings = b"".join(os.fsencode(text) + b"\0" for text in texts)
    lists = b"".join(_pack_limit(*limit) for limit in confinement.limits.items())
    lists += struct.pack(f"={len(user.groups)}I", *user.groups)
    length = START.size + len(lists) + len(strings)
    if length > MESSAGE_MAX:
        raise ValueError(
            f"arguments and environment take {length} bytes, the limit is {MESSAGE_MAX}"
        )
    try:
        head = START.pack(
            VERSION,
            Message.START,
            length,
            flags,
            grace_ms,
            len(argv),
            len(env),
            len(confinement.limits),
            len(user.groups),
            user.uid,
            user.gid,
            confinement.syscalls,
            confinement.nice,
            len(strings),
            0,
            confinement.memory_bytes,
            confinement.address_bytes,
        )
    except struct.error as error:
        raise ValueError(f"a number of this start is out of its range: {error}") from error
    return head + lists + strings


def _pack_limit(resource: int, value: int) -> bytes:
    return LIMIT.pack(resource, 0, min(value, LIMIT_INFINITY))


def pack_signal(signum: int) -> bytes:
    return SIGNAL.pack(VERSION, Message.SIGNAL, SIGNAL.size, signum, 0)


def pack_close_stdin() -> bytes:
    return CLOSE_STDIN.pack(VERSION, Message.CLOSE_STDIN, CLOSE_STDIN.size)


def pack_stop(grace_ms: int = GRACE_OF_START) -> bytes:
    return STOP.pack(VERSION, Message.STOP, STOP.size, grace_ms, 0)


def pack_status() -> bytes:
    return STATUS.pack(VERSION, Message.STATUS, STATUS.size)


def pack_window_size(rows: int, columns: int) -> bytes:
    """Raises: ValueError outside 1 to 65535."""
    if not (1 <= rows <= 65535 and 1 <= columns <= 65535):
        raise ValueError(f"a window of {rows} rows and {columns} columns is outside 1 to 65535")
    return WINDOW_SIZE.pack(VERSION, Message.WINDOW_SIZE, WINDOW_SIZE.size, rows, columns)


def unpack(packet: bytes) -> Started | Report | Exited | Failed:
    """One packet from the shepherd. Raises: RemoteProtocolError, naming the rule."""
    if len(packet) < HEADER.size:
        raise RemoteProtocolError(f"a message of {len(packet)} bytes is shorter than its header")
    version, kind, length = HEADER.unpack_from(packet)
    if version != VERSION:
        raise RemoteProtocolError(f"shepherd speaks version {version}, the bridge {VERSION}")
    if length != len(packet):
        raise RemoteProtocolError(f"header says {length} bytes, the packet has {len(packet)}")
    try:
        match kind:
            case Message.STARTED:
                _, _, _, flags, worker, init, error, spawn_us, group = STARTED.unpack(packet)
                return Started(StartedFlag(flags), worker, init, error, spawn_us, group)
            case Message.REPORT:
                _, _, _, state, process, *rest = REPORT.unpack(packet)
                return Report(ReportState(state), chr(process) if process else "", *rest)
            case Message.EXITED:
                _, _, _, status, signum, flags, _, *usage = EXITED.unpack(packet)
                return Exited(status, signum, ExitedFlag(flags), Usage(*usage))
            case Message.ERROR:
                _, _, _, error, step = ERROR.unpack_from(packet)
                return Failed(error, Step(step), packet[ERROR.size :].decode("utf-8", "replace"))
    except (struct.error, ValueError) as error:
        raise RemoteProtocolError(f"message of type {kind}: {error}") from error
    raise RemoteProtocolError(f"unknown message type {kind}")
