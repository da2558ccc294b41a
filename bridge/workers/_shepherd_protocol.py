"""The messages between the bridge and a shepherd: bytes out, messages in. No socket, no task.

The layouts are those of csrc/include/ringbridge/shepherd_protocol.h, which says what each field
means; a test reads that file and holds the two together. Machine byte order: both ends are one
build on one machine.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag

VERSION = 1
SOCKET_FD = 3
MESSAGE_MAX = 65536
ARGC_MAX = 256
ENVC_MAX = 512
LINK_FDS = 6
GRACE_OF_START = 0xFFFFFFFF
GRACE_MAX_MS = GRACE_OF_START - 1

HEADER = struct.Struct("=HHI")  # version, type, length
START = struct.Struct("=HHIIIIIII")  # header, flags, grace_ms, argc, envc, strings_bytes, reserved
SIGNAL = struct.Struct("=HHIII")  # header, signum, reserved
CLOSE_STDIN = HEADER
STOP = struct.Struct("=HHIII")  # header, grace_ms, reserved
STARTED = struct.Struct("=HHIIiiiII")  # header, flags, pids, namespace_error, spawn_us, reserved
EXITED = struct.Struct("=HHIiIII7Q")  # header, status, signal, flags, reserved, usage
ERROR = struct.Struct("=HHIiI")  # header, error, step


class Message(IntEnum):
    """RB_MESSAGE_*"""

    START = 1
    SIGNAL = 2
    CLOSE_STDIN = 3
    STOP = 4
    STARTED = 16
    EXITED = 17
    ERROR = 18


class StartFlag(IntFlag):
    """RB_START_*"""

    NO_NAMESPACES = 0x1
    LANDLOCK = 0x2
    HOLD_STDIN = 0x4


class StartedFlag(IntFlag):
    """RB_STARTED_*"""

    PID_NAMESPACE = 0x1
    USER_NAMESPACE = 0x2
    SUBREAPER = 0x4
    LANDLOCK = 0x8


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


class RemoteProtocolError(Exception):
    """The shepherd broke a rule of shepherd_protocol.h: it is of another build, or it is none."""


@dataclass(frozen=True, slots=True)
class Started:
    flags: StartedFlag
    worker_pid: int
    init_pid: int
    namespace_error: int  # errno, 0 = none
    spawn_us: int


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
) -> bytes:
    """Pack START. `cwd`: "" leaves it as it is.

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
    texts = [cwd, *argv, *(f"{name}={value}" for name, value in env.items())]
    for text in texts:
        if "\0" in text:
            raise ValueError(f"a string for a worker holds a NUL: {text!r}")
    strings = b"".join(os.fsencode(text) + b"\0" for text in texts)
    length = START.size + len(strings)
    if length > MESSAGE_MAX:
        raise ValueError(
            f"arguments and environment take {length} bytes, the limit is {MESSAGE_MAX}"
        )
    head = START.pack(
        VERSION, Message.START, length, flags, grace_ms, len(argv), len(env), len(strings), 0
    )
    return head + strings


def pack_signal(signum: int) -> bytes:
    return SIGNAL.pack(VERSION, Message.SIGNAL, SIGNAL.size, signum, 0)


def pack_close_stdin() -> bytes:
    return CLOSE_STDIN.pack(VERSION, Message.CLOSE_STDIN, CLOSE_STDIN.size)


def pack_stop(grace_ms: int = GRACE_OF_START) -> bytes:
    return STOP.pack(VERSION, Message.STOP, STOP.size, grace_ms, 0)


def unpack(packet: bytes) -> Started | Exited | Failed:
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
                _, _, _, flags, worker, init, error, spawn_us, _ = STARTED.unpack(packet)
                return Started(StartedFlag(flags), worker, init, error, spawn_us)
            case Message.EXITED:
                _, _, _, status, signum, flags, _, *usage = EXITED.unpack(packet)
                return Exited(status, signum, ExitedFlag(flags), Usage(*usage))
            case Message.ERROR:
                _, _, _, error, step = ERROR.unpack_from(packet)
                return Failed(error, Step(step), packet[ERROR.size :].decode("utf-8", "replace"))
    except (struct.error, ValueError) as error:
        raise RemoteProtocolError(f"message of type {kind}: {error}") from error
    raise RemoteProtocolError(f"unknown message type {kind}")
