"""The limit of open descriptors, raised as far as the configured workers need it.

A worker costs the bridge eleven: two memfds, a socket to wake it and an eventfd to be woken, pidfd,
obituary, stdout and stderr at the relay; socket, pidfd of the shepherd and a pidfd of the worker at
the shepherd's handle; a slot of a remote worker as many, with the bridge's own copies of its link.
A worker that is being replaced has its successor's for a moment, too.
"""

from __future__ import annotations

import resource

from bridge.config import Config, ConfigError

PER_WORKER = 12
BESIDE_WORKERS = 512  # roles' pools, connections, handshakes, epmd, logs


def raise_limit(config: Config) -> None:
    """Raise the soft limit if the settings need more. Raises ConfigError if the hard one is lower.

    Never lowered, and not raised beyond need: workers inherit it, and some programs close every
    descriptor up to the limit when they start.
    """
    workers = sum(role.workers_most for role in config.roles.values())
    need = BESIDE_WORKERS + PER_WORKER * workers
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= need:
        return
    if hard != resource.RLIM_INFINITY and hard < need:
        raise ConfigError(
            file=config.file,
            key="roles",
            rule=f"{workers} workers need {need} open descriptors, the limit is {hard}",
            mend=f"Raise it (ulimit -Hn {need}, or LimitNOFILE of the unit), or lower some workers",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))
