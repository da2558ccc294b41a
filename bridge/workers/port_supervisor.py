"""PortSupervisor: one task per worker of every role, and what the relay is told about each role.

It holds the workers; each worker's own story (start, greeting, restart) is in worker.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol

import structlog
import trio

from bridge.fabric.relay import RoleState
from bridge.workers.handshake_driver import HandshakeDriver, Links, RolePlan
from bridge.workers.worker import Registration, State, Wanted, Worker, WorkerEvent


class Roles(Links, Protocol):
    """The relay, as far as roles and their workers go."""

    def set_role_state(self, role: int, state: RoleState) -> None: ...


class PortSupervisor:
    """The workers of all roles. `run` lives as long as they do."""

    def __init__(
        self,
        plans: Sequence[RolePlan],
        *,
        relay: Roles,
        driver: HandshakeDriver,
        drain_s: float = 10.0,
        random: Random | None = None,
        register: Callable[[Worker], Registration | None] = lambda worker: None,
    ) -> None:
        self.plans = tuple(plans)
        self._relay = relay
        self._by_id: dict[int, Worker] = {}
        self._ids = itertools.count(1)
        self._told: dict[int, RoleState] = {plan.id: RoleState.RUNNING for plan in plans}
        self._stopping = False
        self._log = structlog.get_logger("ringbridge.workers")
        self.workers = tuple(
            Worker(
                plan,
                index,
                driver=driver,
                relay=relay,
                next_id=self._take_id,
                changed=self._worker_changed,
                drain_s=drain_s,
                random=random or Random(),
                register=register,
            )
            for plan in plans
            for index in range(plan.config.workers)
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start every worker and keep them; returns once `stop` was called and all have ended.

        Cancelled, it ends all workers without a drain.
        """
        async with trio.open_nursery() as nursery:
            for worker in self.workers:
                nursery.start_soon(worker.live, name=f"{worker.plan.name} {worker.index}")
            task_status.started()

    def handle(self, event: WorkerEvent) -> None:
        """Take one of the relay's events about a worker. Never blocks."""
        worker = self._by_id.get(event.worker_id)
        if worker is None:  # the last output of a life that is over
            self._log.debug("event of a worker that is gone", worker=event.worker_id)
            return
        worker.handle(event)

    def find(self, worker_id: int) -> Worker | None:
        """The worker whose present (or last) life has this id."""
        return self._by_id.get(worker_id)

    def of_role(self, role: int) -> list[Worker]:
        return [worker for worker in self.workers if worker.plan.id == role]

    def role_state(self, role: int) -> RoleState:
        """RUNNING while any worker runs or will run again, so that jobs may wait for it."""
        if self._stopping:
            return RoleState.DRAINING
        workers = self.of_role(role)
        states = {worker.state for worker in workers}
        if states & {State.STARTING, State.READY, State.RESTARTING}:
            return RoleState.RUNNING
        if any(worker.comes_back for worker in workers):
            return RoleState.RUNNING
        if states & {State.DRAINING, State.DRAINED}:
            return RoleState.DRAINING
        return RoleState.GIVEN_UP

    def stop(self) -> None:
        """Admit nothing more, let every worker finish what it has, end it. `run` returns then."""
        self._stopping = True
        for plan in self.plans:
            self._tell_role(plan.id)
        for worker in self.workers:
            worker.want(Wanted.STOP)

    def _take_id(self, worker: Worker) -> int:
        self._by_id = {id_: other for id_, other in self._by_id.items() if other is not worker}
        worker_id = next(self._ids)
        self._by_id[worker_id] = worker
        return worker_id

    def _worker_changed(self, worker: Worker) -> None:
        self._tell_role(worker.plan.id)

    def _tell_role(self, role: int) -> None:
        state = self.role_state(role)
        if state is not self._told[role]:
            self._told[role] = state
            self._relay.set_role_state(role, state)
