"""A relay and shepherds that do what a test tells them, in the types of the real ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bridge.config import GroupSettings, RoleConfig
from bridge.fabric.relay import (
    LinkConfig,
    LinkFds,
    RoleState,
    RoleStats,
    WorkerEnded,
    WorkerReady,
)
from bridge.workers.handshake_driver import HandshakeDriver, RolePlan
from bridge.workers.life import WorkerEvent
from bridge.workers.port_supervisor import PortSupervisor
from bridge.workers.shepherd import Spawn
from bridge.workers.worker import State


class FixedRandom:
    """Takes nothing off a backoff, so that a test can name the moment of a restart."""

    def random(self) -> float:
        return 0.0


@dataclass
class FakeRelay:
    """Notes what it is told; `tell` is set by `Scene` to the supervisor's own `handle`."""

    calls: list[tuple[object, ...]] = field(default_factory=list)
    links: set[int] = field(default_factory=set)
    given: list[int] = field(default_factory=list)
    finish_when_drained: bool = True
    queued: int = 0
    tell: Callable[[WorkerEvent], None] = lambda event: None

    def create_link(self, role: int, worker_id: int, config: LinkConfig) -> LinkFds:
        self.links.add(worker_id)
        self.calls.append(("create_link", role, worker_id))
        return LinkFds(50, 51, 52, 53, 54)

    def drop_link(self, worker_id: int) -> None:
        self.links.remove(worker_id)
        self.calls.append(("drop_link", worker_id))

    def add_worker(
        self, worker_id: int, *, pidfd: int, obituary_fd: int, stdout_fd: int, stderr_fd: int
    ) -> None:
        self.given += [pidfd, obituary_fd, stdout_fd, stderr_fd]
        self.calls.append(("add_worker", worker_id))

    def drain_worker(self, worker_id: int) -> None:
        self.calls.append(("drain_worker", worker_id))
        if self.finish_when_drained:
            self.tell(WorkerEnded(worker_id, 0, None, core=False, oom=False))

    def spare_worker(self, worker_id: int) -> None:
        self.calls.append(("spare_worker", worker_id))

    def weigh_worker(self, worker_id: int, weight: int) -> None:
        self.calls.append(("weigh_worker", worker_id, weight))

    def set_role_state(self, role: int, state: RoleState) -> None:
        self.calls.append(("set_role_state", role, state))

    def role_stats(self, role: int) -> RoleStats:
        stats: dict[str, Any] = dict.fromkeys(RoleStats.__dataclass_fields__, 0)
        return RoleStats(**{**stats, "answered": {}, "refused": {}, "queued": self.queued})

    def remove_role(self, role: int) -> None:
        self.calls.append(("remove_role", role))

    def close(self) -> None:
        for fd in self.given:
            os.close(fd)
        self.given.clear()


@dataclass
class FakeGuard:
    """A shepherd whose worker is nobody."""

    worker_id: int
    scene: Scene
    closed: bool = False

    @property
    def pid(self) -> int:
        return 1000 + self.worker_id

    def take_pidfd(self) -> int:
        return os.open("/dev/null", os.O_RDONLY)

    take_stdin = take_stdout = take_stderr = take_pidfd

    async def stop(self, grace_s: float | None = None) -> None:
        self.scene.stopped.append(self.worker_id)
        if self.scene.end_when_stopped:
            self.scene.end(self.worker_id, signal=15)

    async def used(self) -> None: ...

    async def aclose(self) -> None:
        self.closed = True


class Scene:
    """One role with its supervisor, over the fakes."""

    def __init__(
        self,
        *,
        drain_s: float = 10.0,
        names: Sequence[str] = ("echo",),
        groups: Mapping[str, GroupSettings] | None = None,
        **config: object,
    ):
        self.relay = FakeRelay()
        self.guards: list[FakeGuard] = []
        self.spawns: list[Spawn] = []
        self.stopped: list[int] = []
        self.end_when_stopped = True
        self.refuse_to_start: Exception | None = None
        driver = HandshakeDriver(
            self.relay,
            link=LinkConfig(),
            base_env={"PATH": "/bin", "RINGBRIDGE_COOKIE": "secret"},
            start_guard=self.start_guard,
        )
        self.supervisor = PortSupervisor(
            [
                RolePlan(
                    number,
                    name,
                    ("/bin/rb-echo",),
                    "/",
                    RoleConfig(command=("rb-echo",), **config),  # type: ignore[arg-type]
                )
                for number, name in enumerate(names)
            ],
            relay=self.relay,
            driver=driver,
            drain_s=drain_s,
            random=FixedRandom(),  # type: ignore[arg-type]
            groups=groups,
        )
        self.relay.tell = self.supervisor.handle
        self.workers = self.supervisor.workers

    def state(self) -> State:
        """Of the first worker, as it is now."""
        return self.workers[0].state

    async def start_guard(
        self, spawn: Spawn, *, link_fds: Sequence[int], obituary_fd: int
    ) -> FakeGuard:
        if self.refuse_to_start:
            raise self.refuse_to_start
        self.spawns.append(spawn)
        guard = FakeGuard(int(spawn.env["RINGBRIDGE_WORKER_ID"]), self)
        self.guards.append(guard)
        return guard

    def greet(self, worker_id: int) -> None:
        self.supervisor.handle(
            WorkerReady(worker_id, 1000 + worker_id, "c", (1, 0), "echo", (3, 0))
        )

    def end(self, worker_id: int, *, status: int | None = None, signal: int | None = None) -> None:
        self.supervisor.handle(WorkerEnded(worker_id, status, signal, core=False, oom=False))
