"""What `ringbridge doctor` says of workers: how surely they end, what caps their memory,
and which roles ask for what cannot be had here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import trio

from bridge.config import Config, RoleConfig
from bridge.ops.finding import Finding

if TYPE_CHECKING:
    from bridge.workers.shepherd import Isolation


def examine(config: Config | None) -> Iterator[Finding]:
    """Tried with a worker that does nothing."""
    try:
        from bridge.workers.shepherd import probe_isolation

        found = trio.run(probe_isolation)
    except (ImportError, OSError) as error:
        yield Finding(
            "isolation", False, f"not known: {error}", "Build the shepherd: make shepherd", False
        )
        return
    yield isolation(found)
    yield memory_caps(found)
    if config is not None:
        yield from roles(found, config.roles, is_root=os.geteuid() == 0)


def isolation(found: Isolation) -> Finding:
    """How surely a worker's process tree would end, and what it may reach."""
    missing = []
    if not found.pid_namespace:
        left = (
            "what they leave is ended by cgroup.kill as soon as a bridge runs"
            if found.kill_group
            else "nobody ends those then"
        )
        missing.append(
            "Allow namespaces (sysctl kernel.unprivileged_userns_clone=1, "
            "user.max_user_namespaces, or the container's seccomp profile): without them it is "
            "certain that the worker itself ends with the bridge; its grandchildren that made "
            f"themselves daemons outlive bridge, shepherd and init killed at one moment ({left})"
        )
    if not found.landlock:
        missing.append(
            "Boot with Landlock (Linux 5.13, lsm=landlock,...): without it a worker of the same "
            "user can read the cookie's file, and roles cannot name the places that they read and "
            "write"
        )
    if not found.seccomp:
        missing.append("Use a kernel with seccomp filters")
    words = [str(found), "Landlock" if found.landlock else "no Landlock"]
    words.append("system call filter" if found.seccomp else "no system call filter")
    if found.kill_group:
        words.append("cgroup.kill")
    return Finding("isolation", not missing, "; ".join(words), ". ".join(missing), must=False)


def memory_caps(found: Isolation) -> Finding:
    """What would keep [roles.<name>.limits] memory_bytes."""
    if found.memory_cap == "group":
        return Finding("memory caps", True, "by control groups")
    why = f" ({os.strerror(found.group_error)})" if found.group_error else ""
    mend = (
        "Let the bridge make control groups with the memory controller (systemd: Delegate=yes and "
        "DelegateSubgroup=bridge): an address space is each process's own, and what was only "
        "reserved counts"
    )
    return Finding(
        "memory caps", False, f"by the address space, no group can be made{why}", mend, must=False
    )


def roles(found: Isolation, roles: dict[str, RoleConfig], *, is_root: bool) -> Iterator[Finding]:
    """Roles whose workers would not start, and those that nothing keeps from what is root's."""
    for name, role in roles.items():
        sandbox = role.sandbox
        if sandbox.user is not None and not is_root:
            yield Finding(
                f"sandbox of {name}",
                False,
                f"user = {sandbox.user!r}, but only root can run workers as another user",
                "Run the bridge as root, or as that user, or leave it out",
            )
        if not found.landlock and (sandbox.read is not None or sandbox.write is not None):
            yield Finding(
                f"sandbox of {name}",
                False,
                "it names places to read or write, but this kernel has no Landlock",
                "Boot with Landlock, or leave them out: its workers would not start",
            )
    bare = [name for name, role in roles.items() if is_root and role.sandbox.user is None]
    if bare:
        yield Finding(
            "users of workers",
            False,
            f"as root: {', '.join(bare)}",
            "Give each role a [roles.<name>.sandbox] user, or run the bridge as a plain user: what "
            "root's files allow, a worker of root's may do",
            must=False,
        )
