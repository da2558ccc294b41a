"""[roles.<name>.sandbox] and [roles.<name>.limits]: what its workers may not.

The shepherd lays both on a worker before it runs (docs/shepherd.md); a worker that runs keeps those
with which it was started.
"""

from __future__ import annotations

import grp
import pwd
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from msgspec import Meta

from bridge.config.section import GIB, KIB, MIB, Section

Bytes = Annotated[int, Meta(ge=0, le=1 << 62)]
Places = tuple[Annotated[str, Meta(min_length=1)], ...]

MEMORY_MIN_BYTES = 4 * MIB  # less, and not even the C library starts


class SandboxSettings(Section, frozen=True):
    """[roles.<name>.sandbox]: as whom they run, and what they can reach. `read` and `write` None:
    everything that the user may."""

    user: str | None = None
    group: str | None = None
    read: Places | None = None
    write: Places | None = None
    hide: Places = ()
    network: bool = True
    syscalls: Literal["any", "guarded", "strict"] = "guarded"


class WorkerLimits(Section, frozen=True):
    """[roles.<name>.limits]: of each worker. None: as the bridge's own."""

    memory_bytes: Annotated[int, Meta(ge=MEMORY_MIN_BYTES, le=1 << 62)] | None = None
    address_bytes: Annotated[int, Meta(ge=MEMORY_MIN_BYTES, le=1 << 62)] | None = None
    open_files: Annotated[int, Meta(ge=16, le=1 << 30)] | None = None
    processes: Annotated[int, Meta(ge=1, le=1 << 22)] | None = None
    file_bytes: Bytes | None = None
    core_bytes: Bytes | None = None
    stack_bytes: Annotated[int, Meta(ge=64 * KIB, le=1024 * GIB)] | None = None
    locked_bytes: Bytes | None = None
    cpu_s: Annotated[int, Meta(ge=1, le=1 << 40)] | None = None
    nice: Annotated[int, Meta(ge=-20, le=19)] = 0


Broken = tuple[str, Any, str, str]  # key, value, rule, mend


def broken_sandbox_rules(key: str, sandbox: SandboxSettings) -> Iterator[Broken]:
    if sandbox.group is not None and sandbox.user is None:
        rule = "a group alone is no other user"
        yield f"{key}.sandbox.group", sandbox.group, rule, "Name the user as well"
    for name, value, find, what in (
        ("user", sandbox.user, pwd.getpwnam, "user"),
        ("group", sandbox.group, grp.getgrnam, "group"),
    ):
        if value is None:
            continue
        try:
            find(value)
        except KeyError:
            mend = f"Make it ({what}add --system {value}), or name another"
            yield f"{key}.sandbox.{name}", value, f"this machine has no such {what}", mend
