"""HandshakeDriver: brings one worker to life: link, channel, shepherd, and over to the relay.

The worker greets over its link; the relay checks the greeting (layout digest, nonce, role) and
tells the outcome as an event, so nothing is awaited here beyond the start of the process.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import msgspec

from bridge.config import RoleConfig
from bridge.fabric.relay import LinkConfig, LinkFds
from bridge.workers._shepherd_protocol import Usage
from bridge.workers.environment import worker_environment
from bridge.workers.shepherd import Spawn

# Keys of a role that a worker keeps for life.
_SETTLED_AT_THE_START = ("command", "env", "cwd", "terminal", "chaos", "sandbox", "limits")


@dataclass(frozen=True, slots=True)
class RolePlan:
    """What all workers of one role have in common; `id` is the role's number at the relay."""

    id: int
    name: str
    argv: tuple[str, ...]
    cwd: str
    config: RoleConfig

    def starts_as(self, other: RolePlan) -> bool:
        """Do workers of both start in the same way?"""
        return self == self.started_as(other)

    def started_as(self, other: RolePlan) -> RolePlan:
        """This role with workers that start like those of `other`: program, folder, variables, and
        what is laid on them before they run.
        """
        config = msgspec.structs.replace(
            self.config, **{name: getattr(other.config, name) for name in _SETTLED_AT_THE_START}
        )
        return replace(self, argv=other.argv, cwd=other.cwd, config=config)


class Links(Protocol):
    """The relay, as far as workers come and go in it."""

    def create_link(self, role: int, worker_id: int, config: LinkConfig) -> LinkFds: ...
    def drop_link(self, worker_id: int) -> None: ...
    def drain_worker(self, worker_id: int) -> None: ...
    def weigh_worker(self, worker_id: int, weight: int) -> None: ...
    def add_worker(
        self, worker_id: int, *, pidfd: int, obituary_fd: int, stdout_fd: int, stderr_fd: int
    ) -> None: ...


class Guard(Protocol):
    """Who ends a worker, as far as its life story needs it."""

    @property
    def pid(self) -> int | None: ...  # None: there is no process here that a signal could end
    async def stop(self, grace_s: float | None = None) -> object: ...
    async def used(self) -> Usage | None: ...
    async def aclose(self) -> None: ...


class Spawned(Guard, Protocol):
    """A running shepherd, as far as it is needed here."""

    def take_pidfd(self) -> int: ...
    def take_stdin(self) -> int: ...
    def take_stdout(self) -> int: ...
    def take_stderr(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Started:
    """A worker that runs: who guards it, and our end of its channel (csrc/layout.toml), if any."""

    guard: Guard
    channel: socket.socket | None


class StartGuard(Protocol):
    """Shepherd.start."""

    def __call__(
        self, spawn: Spawn, *, link_fds: Sequence[int], obituary_fd: int
    ) -> Awaitable[Spawned]: ...


class Driver(Protocol):
    """How a worker comes to life: this file's, or attach.py's."""

    @property
    def link(self) -> LinkConfig: ...
    def start(self, worker_id: int, plan: RolePlan) -> Awaitable[Started]: ...


class HandshakeDriver:
    """Starts workers. Holds no worker: each `start` stands for itself.

    `hide`: files that no worker may read, beside the usual places of the cookie. `link` may change:
    it is for links that are made from then on.
    """

    def __init__(
        self,
        relay: Links,
        *,
        link: LinkConfig,
        base_env: Mapping[str, str],
        start_guard: StartGuard,
        hide: Sequence[str] = (),
        close: Callable[[int], None] = os.close,
    ) -> None:
        self._relay = relay
        self.link = link
        self._base_env = base_env
        self._start_guard = start_guard
        self._hide = tuple(hide)
        self._close = close

    async def start(self, worker_id: int, plan: RolePlan) -> Started:
        """Start worker `worker_id` of a role and give it to the relay.

        Raises OSError (no memory, no process, no such program) with nothing left behind. The same
        holds when it is cancelled.
        """
        fds = self._relay.create_link(plan.id, worker_id, self.link)
        with contextlib.ExitStack() as undo:
            undo.callback(self._relay.drop_link, worker_id)
            channel, worker_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.callback(channel.close)
            with worker_end:
                guard, obituary = await self._guard(worker_id, plan, (*fds, worker_end.fileno()))
            try:
                # A worker hears of its jobs through its link only; at its stdin is the end of file.
                self._close(guard.take_stdin())
                self._give(worker_id, guard, obituary)
            except BaseException:
                await guard.aclose()
                raise
            undo.pop_all()
        return Started(guard, channel)

    async def _guard(
        self, worker_id: int, plan: RolePlan, fds: Sequence[int]
    ) -> tuple[Spawned, int]:
        """Its shepherd, and the read end of its obituary."""
        spawn = Spawn(
            argv=plan.argv,
            env=worker_environment(
                worker_id=worker_id,
                role=plan.name,
                role_env=plan.config.env,
                base=self._base_env,
                chaos=plan.config.chaos,
            ),
            cwd=plan.cwd,
            grace_s=plan.config.grace_ms / 1000,
            terminal=plan.config.terminal,
            sandbox=plan.config.sandbox,
            limits=plan.config.limits,
            hide=self._hide,
        )
        obituary, obituary_end = os.pipe2(os.O_CLOEXEC)
        try:
            guard = await self._start_guard(spawn, link_fds=fds, obituary_fd=obituary_end)
        except BaseException:
            self._close(obituary)
            raise
        finally:
            self._close(obituary_end)
        return guard, obituary

    def _give(self, worker_id: int, guard: Spawned, obituary: int) -> None:
        """Hand the worker's descriptors to the relay. If it refuses them, they are closed."""
        fds = {
            "obituary_fd": obituary,
            "pidfd": guard.take_pidfd(),
            "stdout_fd": guard.take_stdout(),
            "stderr_fd": guard.take_stderr(),
        }
        try:
            self._relay.add_worker(worker_id, **fds)
        except OSError:
            for fd in fds.values():
                self._close(fd)
            raise
