"""What a worker is told by its environment, and what it is kept from.

A worker gets a short list of harmless variables of the bridge, the `env` of its role, and the three
that lead it to its link. Everything else of the bridge's environment stays there: who holds the
cookie owns the cluster, and other secrets are no worker's business either.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping

from bridge.fabric import layout
from bridge.workers import _landlock

_PR_SET_DUMPABLE = 4

CHAOS_VARIABLE = "RINGBRIDGE_CHAOS"
PASSED_ON = ("PATH", "LANG", "LANGUAGE", "TZ", "TMPDIR")
PASSED_ON_PREFIX = "LC_"


def worker_environment(
    *,
    worker_id: int,
    role: str,
    role_env: Mapping[str, str],
    base: Mapping[str, str],
    chaos: bool = False,
) -> dict[str, str]:
    """The environment of one worker. `base`: the bridge's own; `role_env`: what the role adds;
    `chaos`: its kit takes hooks (docs/channel.md).
    """
    env = {
        name: value
        for name, value in base.items()
        if name in PASSED_ON or name.startswith(PASSED_ON_PREFIX)
    }
    env.update(role_env)
    env[layout.ENV_LINK_FD] = str(layout.FD_RELAY_SIDE)
    env[layout.ENV_WORKER_ID] = str(worker_id)
    env[layout.ENV_ROLE] = role
    if chaos:
        env[CHAOS_VARIABLE] = "1"
    return env


def close_memory_to_workers() -> None:
    """Where no Landlock keeps workers of our user out of /proc/PID/mem and environ, the kernel's
    older rule does: a process that is not dumpable belongs to root there (prctl(2)). It then leaves
    no core and cannot be traced by its own user, so it is done only where it is needed.
    """
    if not _landlock.available():
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
