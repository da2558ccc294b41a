"""Spawn: what a worker is to be, and how START says it to its shepherd."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import resource
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

from bridge.config.sandbox import SandboxSettings, WorkerLimits
from bridge.workers import _landlock
from bridge.workers import _shepherd_protocol as protocol
from bridge.workers._control_groups import Places
from bridge.workers._landlock import Rules
from bridge.workers._shepherd_protocol import Confinement, StartFlag, Step, Syscalls, User

_LIMITS = {  # of WorkerLimits, as resources of the kernel
    "address_bytes": resource.RLIMIT_AS,
    "open_files": resource.RLIMIT_NOFILE,
    "processes": resource.RLIMIT_NPROC,
    "file_bytes": resource.RLIMIT_FSIZE,
    "core_bytes": resource.RLIMIT_CORE,
    "stack_bytes": resource.RLIMIT_STACK,
    "locked_bytes": resource.RLIMIT_MEMLOCK,
    "cpu_s": resource.RLIMIT_CPU,
}
_SYSCALLS = {"any": Syscalls.ANY, "guarded": Syscalls.GUARDED, "strict": Syscalls.STRICT}


@dataclass(frozen=True)
class Spawn:
    """What to run. `argv[0]` without a slash is looked up in the PATH of `env`.

    `env` is given to the worker as it is, but for the cookie, which never is. The places that
    `sandbox` names are absolute here.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str | None = None
    grace_s: float = 2.0
    hold_stdin: bool = False  # stdin stays open until close_stdin(), whoever else closes it
    terminal: bool = False  # stdin and stdout are a pseudo-terminal
    namespaces: bool = True  # False: do not try them, so that a debugger sees the tree
    hide: tuple[str, ...] = ()  # files that it may not read, beside the usual places of the cookie
    hide_cookie: bool = True  # False: no Landlock at all, unless something else asks for it
    sandbox: SandboxSettings = field(default_factory=SandboxSettings)
    limits: WorkerLimits = field(default_factory=WorkerLimits)


class WorkerStartError(OSError):
    """The worker could not be started; nothing of it is left. `step` says where it failed."""

    def __init__(self, error: int, step: Step, text: str, filename: str | None) -> None:
        if filename is None:
            super().__init__(error, f"{os.strerror(error)} ({step.name.lower()}) {text}".rstrip())
        else:
            super().__init__(error, f"{os.strerror(error)} ({step.name.lower()})", filename)
        self.step = step


@dataclass(frozen=True, slots=True)
class Order:
    """START, but for its descriptors."""

    packet: bytes
    program: str
    rules: Rules


def order(spawn: Spawn, *, places: Places, group_name: str, shared_bytes: int) -> Order:
    """What is said to the shepherd. `places`: where it is to make control groups. `shared_bytes`:
    the bridge's memory that the worker maps, on top of limits.memory_bytes where that cap must be
    one of the address space.

    Raises: WorkerStartError, ValueError for a Spawn outside the protocol's limits.
    """
    env = without_cookie(spawn.env)
    program = _resolve(spawn.argv, env)
    rules = _rules(spawn, program)
    flags = StartFlag(0)
    for flag, wanted in (
        (StartFlag.NO_NAMESPACES, not spawn.namespaces),
        (StartFlag.LANDLOCK, bool(rules)),
        (StartFlag.HOLD_STDIN, spawn.hold_stdin),
        (StartFlag.NO_NETWORK, not spawn.sandbox.network),
        (StartFlag.TERMINAL, spawn.terminal),
        (StartFlag.MEMORY_GROUP, places.memory is not None),
        (StartFlag.KILL_GROUP, places.kill is not None),
    ):
        if wanted:
            flags |= flag
    packet = protocol.pack_start(
        (program, *spawn.argv[1:]),
        env,
        cwd=spawn.cwd or "",
        grace_ms=round(spawn.grace_s * 1000),
        flags=flags,
        confinement=_confinement(spawn, group_name, shared_bytes),
    )
    return Order(packet, program, rules)


@contextmanager
def descriptors(fds: Sequence[int], ruleset: int | None, places: Places) -> Iterator[list[int]]:
    """The descriptors of START in their order: `fds` (borrowed), the ruleset (taken), `places`."""
    ours = [] if ruleset is None else [ruleset]
    try:
        ours.extend(os.open(p, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) for p in places)
        yield [*fds, *ours]
    finally:
        for fd in ours:
            os.close(fd)


async def make_ruleset(rules: Rules) -> int | None:
    return await trio.to_thread.run_sync(_landlock.ruleset, rules) if rules else None


def without_cookie(env: Mapping[str, str]) -> dict[str, str]:
    """`env` without the cookie: who has it owns the cluster, and no worker may."""
    return {name: value for name, value in env.items() if not name.startswith("RINGBRIDGE_COOKIE")}


def _resolve(argv: Sequence[str], env: Mapping[str, str]) -> str:
    if not argv:
        raise ValueError("a worker needs a program to run")
    if "/" in argv[0]:
        return argv[0]
    found = shutil.which(argv[0], path=env.get("PATH", os.defpath))
    if found is None:
        raise WorkerStartError(errno.ENOENT, Step.EXEC, "", f"{argv[0]} (looked for in PATH)")
    return found


def _rules(spawn: Spawn, program: str) -> Rules:
    sandbox = spawn.sandbox
    asked = sandbox.read is not None or sandbox.write is not None
    if not _landlock.available():
        if asked or sandbox.hide:
            # What the role asks for is kept, or the worker does not run.
            text = "this kernel has no Landlock, which keeps read, write and hide of a sandbox"
            raise WorkerStartError(errno.EOPNOTSUPP, Step.LANDLOCK, text, None)
        return Rules()
    cookies = _landlock.cookie_files(os.environ) if spawn.hide_cookie else ()
    hidden = frozenset((*spawn.hide, *sandbox.hide, *cookies))
    if not (hidden or asked):
        return Rules()
    read = sandbox.read
    if read is not None:
        read = (*read, os.path.abspath(os.path.join(spawn.cwd or "", program)))
    return Rules(hidden, read, sandbox.write, abstract_sockets=sandbox.network)


def _confinement(spawn: Spawn, group_name: str, shared_bytes: int) -> Confinement:
    values = {resource: getattr(spawn.limits, name) for name, resource in _LIMITS.items()}
    memory_bytes = spawn.limits.memory_bytes or 0
    return Confinement(
        limits={number: value for number, value in values.items() if value is not None},
        user=_user(spawn.sandbox),
        syscalls=_SYSCALLS[spawn.sandbox.syscalls],
        nice=spawn.limits.nice,
        memory_bytes=memory_bytes,
        address_bytes=memory_bytes + shared_bytes if memory_bytes else 0,
        group_name=group_name,
    )


def _user(sandbox: SandboxSettings) -> User | None:
    if sandbox.user is None:
        return None
    try:
        entry = pwd.getpwnam(sandbox.user)
        gid = entry.pw_gid if sandbox.group is None else grp.getgrnam(sandbox.group).gr_gid
    except KeyError as error:
        raise WorkerStartError(errno.EINVAL, Step.USER, str(error.args[0]), None) from error
    groups = os.getgrouplist(entry.pw_name, gid)
    return User(entry.pw_uid, gid, tuple(groups))
