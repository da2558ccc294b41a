"""PortSupervisor: one task per worker of every role, and what the relay is told about each role.

It holds the workers; each worker's own story (start, greeting, restart) is in worker.py, and who
falls with whom in together.py. Roles come and go, and so do workers of a role, while it runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from random import Random
from socket import socket
from typing import Protocol

import msgspec
import structlog
import trio

from bridge.config import GroupSettings
from bridge.fabric.relay import RoleState, RoleStats
from bridge.workers.attach import Alone, AttachDesk, AttachDriver, AttachLinks
from bridge.workers.crash_reports import CrashReports
from bridge.workers.handshake_driver import Driver, HandshakeDriver, RolePlan
from bridge.workers.life import WorkerEvent
from bridge.workers.together import Together
from bridge.workers.wishes import Wanted
from bridge.workers.worker import Conversation, Registration, Remote, State, Worker

ATTACHED_FROM = 10_000  # their places in their roles
REMOTE_FROM = 20_000
QUEUE_LOOK_S = 0.02  # between two looks at the queue of a role that goes


class Roles(AttachLinks, Protocol):
    """The relay, as far as roles and their workers go."""

    def set_role_state(self, role: int, state: RoleState) -> None: ...
    def remove_role(self, role: int) -> None: ...
    def role_stats(self, role: int) -> RoleStats: ...


class PortSupervisor:
    """The workers of all roles. `run` lives until `stop`, and until the last of them has ended."""

    def __init__(
        self,
        plans: Sequence[RolePlan],
        *,
        relay: Roles,
        driver: HandshakeDriver,
        drain_s: float = 10.0,
        random: Random | None = None,
        groups: Mapping[str, GroupSettings] | None = None,
        register: Callable[[Worker], Registration | None] = lambda worker: None,
        converse: Callable[[Worker, socket], Conversation | None] = lambda worker, channel: None,
    ) -> None:
        self.driver = driver
        self.plans: list[RolePlan] = []
        self.workers: list[Worker] = []
        self.crashes = CrashReports()
        self.observers: list[Callable[[Worker], None]] = []  # of changes; they never block
        self._relay = relay
        self._drain_s = drain_s
        self._random = random or Random()
        self.together = Together(groups or {}, self._random, self._tell_role)
        self._register = register
        self._converse = converse
        self.upgrading = trio.Lock()  # one upgrade at a time
        self.desk = AttachDesk(begin=self.begin, join=self.attach)
        self._by_id: dict[int, Worker] = {}
        self._ids = itertools.count(1)
        self._told: dict[int, RoleState] = {}
        self._closed: set[int] = set()  # roles that somebody drains
        self._removed: set[int] = set()  # roles that go with their last worker
        self._stopping = False
        self._nursery: trio.Nursery | None = None
        self._news = trio.Event()
        self._log = structlog.get_logger("ringbridge.workers")
        for plan in plans:
            self.add_role(plan)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start every worker and keep them; returns once `stop` was called and all have ended.

        Cancelled, it ends all workers without a drain.
        """
        async with trio.open_nursery() as beside:
            async with trio.open_nursery() as self._nursery:
                for worker in self.workers:
                    self._start(worker)
                beside.start_soon(self.together.run)
                task_status.started()
                await self.until(lambda: self._stopping)
            beside.cancel_scope.cancel()

    def handle(self, event: WorkerEvent) -> None:
        """Take one of the relay's events about a worker. Never blocks."""
        worker = self._by_id.get(event.worker_id)
        if worker is None:  # the last output of a life that is over
            self._log.debug("event of a worker that is gone", worker=event.worker_id)
            return
        worker.handle(event)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until `condition` holds; it is looked at whenever a worker enters another state."""
        while not condition():
            await self._news.wait()

    # ---- who there is

    def find(self, worker_id: int) -> Worker | None:
        """The worker whose present (or last) life has this id."""
        return self._by_id.get(worker_id)

    def plan(self, role: int) -> RolePlan:
        return next(plan for plan in self.plans if plan.id == role)

    def role(self, name: str) -> RolePlan | None:
        """The role of that name; one that goes is not found."""
        plans = (plan for plan in self.plans if plan.id not in self._removed)
        return next((plan for plan in plans if plan.name == name), None)

    def is_leaving(self, name: str) -> bool:
        """Was the role of that name removed, with workers that have not ended?"""
        return any(plan.name == name and plan.id in self._removed for plan in self.plans)

    def of_role(self, role: int) -> list[Worker]:
        return [worker for worker in self.workers if worker.plan.id == role]

    def lasting(self, role: int) -> list[Worker]:
        """The workers of a role that are the bridge's own, without those that end for good."""
        return [w for w in self.of_role(role) if not w.leaves and w.is_own]

    def role_state(self, role: int) -> RoleState:
        """RUNNING while any worker runs or will run again, so that jobs may wait for it."""
        if self._stopping or role in self._closed or role in self._removed:
            return RoleState.DRAINING
        workers = [worker for worker in self.of_role(role) if not worker.leaves]
        states = {worker.state for worker in workers}
        if states & {State.STARTING, State.READY, State.RESTARTING}:
            return RoleState.RUNNING
        if any(worker.comes_back for worker in workers) or self.together.waits(role):
            return RoleState.RUNNING
        if states & {State.DRAINING, State.DRAINED}:
            return RoleState.DRAINING
        return RoleState.GIVEN_UP

    def is_closed(self, role: int) -> bool:
        """Somebody drains it."""
        return role in self._closed

    # ---- changes

    def add_role(self, plan: RolePlan) -> None:
        """Start the workers of a role that the relay has been given under `plan.id`."""
        self.plans.append(plan)
        self.together.add_role(plan)
        self._told[plan.id] = RoleState.RUNNING
        for _ in range(plan.config.workers):
            self.add_worker(plan)
        if not plan.config.workers:  # nobody whose state it will be told for
            self._tell_role(plan.id)

    def remove_role(self, role: int) -> None:
        """Admit nothing more for it, let its workers finish what waits and what they have, and end
        them; the relay forgets it after the last one. Both are bounded by the drain time.
        """
        self._removed.add(role)
        self.together.remove_role(role)
        self._tell_role(role)
        self.begin(partial(self._end_role, role))

    def change_role(self, plan: RolePlan) -> None:
        """Give a role other settings, and as many workers as they say.

        Its workers keep the program, the environment and the folder that they were started with,
        also when they start again: `Upgrade` changes those.
        """
        plan = plan.started_as(self.plan(plan.id))
        self._put_plan(plan)
        self.together.change_role(plan)
        workers = self.lasting(plan.id)
        for worker in workers:
            worker.change(plan)
        for worker in workers[plan.config.workers :]:
            worker.want(Wanted.STOP)
        for _ in range(plan.config.workers - len(workers)):
            self.add_worker(plan)

    def add_worker(self, plan: RolePlan, index: int | None = None) -> Worker:
        """One more worker of a role, at the place `index` or the lowest that is free."""
        if index is None:
            taken = {worker.index for worker in self.lasting(plan.id)}
            index = next(i for i in itertools.count() if i not in taken)
        worker = Worker(
            plan,
            index,
            driver=self.driver,
            relay=self._relay,
            next_id=self._take_id,
            changed=self._worker_changed,
            drain_s=self._drain_s,
            random=self._random,
            siblings=self.together,
            crashes=self.crashes,
            register=self._register,
            converse=self._converse,
        )
        place = sum(other.index < index for other in self.lasting(plan.id))
        self.workers.append(worker)
        if not self.together.join(worker, place):
            worker.told(Wanted.HOLD)
        order = [known.id for known in self.plans]
        self.workers.sort(key=lambda w: (order.index(w.plan.id), w.index, w.id))
        if self._nursery is not None:
            self._start(worker)
        return worker

    def attach(self, plan: RolePlan, connection: trio.SocketStream, pid: int) -> None:
        """Let in a worker that somebody has started by hand; it is never started again."""
        driver = AttachDriver(
            self._relay, connection, pid=pid, link=self.driver.link, begin=self.begin
        )
        worker = self._guest(plan, driver, ATTACHED_FROM)
        worker.attached = True
        self._let_in(worker)

    def hire(self, plan: RolePlan, driver: Driver, *, remote: Remote) -> Worker:
        """Let in a worker that is a process of another node; it is never started again unasked."""
        once = msgspec.structs.replace(plan.config, restart="temporary")
        worker = self._guest(replace(plan, config=once), driver, REMOTE_FROM)
        worker.remote = remote
        self._let_in(worker)
        return worker

    def _guest(self, plan: RolePlan, driver: Driver, first: int) -> Worker:
        """A worker that the bridge does not start, at a place from `first` on."""
        taken = {worker.index for worker in self.of_role(plan.id)}
        return Worker(
            plan,
            next(i for i in itertools.count(first) if i not in taken),
            driver=driver,
            relay=self._relay,
            next_id=self._take_id,
            changed=self._worker_changed,
            drain_s=self._drain_s,
            random=self._random,
            siblings=Alone(),
            crashes=self.crashes,
            register=self._register,
            converse=self._converse,
        )

    def _let_in(self, worker: Worker) -> None:
        self.workers.append(worker)
        self._start(worker)
        self._worker_changed(worker)  # from now on jobs wait for it, before it has begun
        self.begin(partial(self._let_go, worker))

    async def _let_go(self, worker: Worker) -> None:
        ended = (State.FINISHED, State.GIVEN_UP, State.DRAINED, State.STOPPED)
        await self.until(lambda: worker.state in ended)
        worker.want(Wanted.STOP)

    def adopt(self, plan: RolePlan) -> None:
        """From now on workers of the role start as `plan` says; all that last do so already."""
        self._put_plan(plan)
        self.change_role(plan)

    def begin(self, story: Callable[[], Awaitable[None]]) -> None:
        """Run a task that changes workers, for as long as there are any."""
        assert self._nursery is not None
        self._nursery.start_soon(story)

    def close_role(self, role: int, closed: bool) -> None:
        """Admit nothing more for a role, or admit again; its workers stay, and finish its queue."""
        (self._closed.add if closed else self._closed.discard)(role)
        self._tell_role(role)

    def set_drain(self, drain_s: float) -> None:
        """How long workers may take to finish what they have, from now on."""
        self._drain_s = drain_s
        for worker in self.workers:
            worker.set_drain(drain_s)

    def stop(self) -> None:
        """Admit nothing more, let every worker finish what it has, end it. `run` returns then."""
        self._stopping = True
        for plan in self.plans:
            self._tell_role(plan.id)
        for worker in self.workers:
            worker.set_drain(self._drain_s)
            worker.want(Wanted.STOP)
        self._tell()

    @property
    def stopping(self) -> bool:
        return self._stopping

    # ---- small change

    def _put_plan(self, plan: RolePlan) -> None:
        self.plans[self.plans.index(self.plan(plan.id))] = plan

    def _start(self, worker: Worker) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(self._keep, worker, name=f"{worker.plan.name} {worker.index}")

    async def _keep(self, worker: Worker) -> None:
        await worker.live()
        if not self._stopping:  # then all are kept to the end, to be looked at
            self.workers.remove(worker)
            self._by_id = {id_: other for id_, other in self._by_id.items() if other is not worker}
            self._worker_changed(worker)
            self._forget_role_without_workers(worker.plan.id)

    async def _end_role(self, role: int) -> None:
        with trio.move_on_after(self._drain_s):
            while self._relay.role_stats(role).queued and not self._stopping:  # noqa: ASYNC110
                await trio.sleep(QUEUE_LOOK_S)  # the relay tells nobody of it
        for worker in self.of_role(role):
            worker.want(Wanted.STOP)
        self._forget_role_without_workers(role)

    def _forget_role_without_workers(self, role: int) -> None:
        if role not in self._removed or self.of_role(role):
            return
        plan = self.plan(role)
        try:
            self._relay.remove_role(role)
        except OSError as error:  # the relay has not told of an end: its memory stays
            self._log.error("role not forgotten", role=plan.name, why=str(error))
        self.plans.remove(plan)
        self._removed.discard(role)
        self._closed.discard(role)
        del self._told[role]
        self._log.info("role removed", role=plan.name)
        self._tell()

    def _take_id(self, worker: Worker) -> int:
        self._by_id = {id_: other for id_, other in self._by_id.items() if other is not worker}
        worker_id = next(self._ids)
        self._by_id[worker_id] = worker
        return worker_id

    def _worker_changed(self, worker: Worker) -> None:
        for observer in self.observers:
            observer(worker)
        self._tell_role(worker.plan.id)
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    def _tell_role(self, role: int) -> None:
        state = self.role_state(role)
        if state is not self._told[role]:
            self._told[role] = state
            self._relay.set_role_state(role, state)
