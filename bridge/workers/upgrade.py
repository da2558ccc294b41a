"""Hot upgrade: the workers of a role are replaced by such of another program, one after the other.

One upgrade at a time: those of other roles wait for their turn (decision 0027). Each step: the
successor starts beside the one that it replaces; it greets, and lives through its probation, in
which both get jobs; then the old one gets nothing new, finishes what it has, and ends. It may take
as long as its jobs' deadlines: none of them is lost. A role of one worker is never without one.

When a successor cannot be started, is refused, does not greet in time or ends unasked before the
upgrade is through, everything goes back: the old program's workers are started again and greet,
then those of the new one end in the same way. What had not been replaced was never touched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from typing import Any

import structlog
import trio

from bridge.etf import Atom
from bridge.workers.handshake_driver import RolePlan
from bridge.workers.port_supervisor import PortSupervisor
from bridge.workers.wishes import Wanted
from bridge.workers.worker import State, Worker

_UNWELL = (State.RESTARTING, State.GIVEN_UP, State.FINISHED, State.DRAINED)


class Stage(Enum):
    WAITING = "waiting"  # for another upgrade
    RUNNING = "running"
    ROLLING_BACK = "rolling_back"
    DONE = "done"
    ROLLED_BACK = "rolled_back"
    STOPPED = "stopped"  # the bridge stops


class Upgrade:
    """One upgrade of one role, from its present plan to `plan`. `run` tells its story."""

    def __init__(self, supervisor: PortSupervisor, plan: RolePlan) -> None:
        self.plan = plan
        self.stage = Stage.RUNNING
        self.replaced = 0
        self.why: str | None = None
        self._supervisor = supervisor
        self._before = supervisor.plan(plan.id)
        self._old = supervisor.lasting(plan.id)
        self._new: list[Worker] = []
        self._log = structlog.get_logger("ringbridge.workers").bind(role=plan.name)

    @property
    def is_under_way(self) -> bool:
        return self.stage in (Stage.WAITING, Stage.RUNNING, Stage.ROLLING_BACK)

    def describe(self) -> Mapping[str, Any]:
        """What an operator is told."""
        return {
            "state": Atom(self.stage.value),
            "replaced": self.replaced,
            "of": len(self._old),
            "why": self.why,
            "command": list(self.plan.argv),
        }

    async def run(self) -> None:
        """Replace them all, or go back, when it is this upgrade's turn. Returns when either is
        done, or when the bridge stops.
        """
        turn, together = self._supervisor.upgrading, self._supervisor.together
        if turn.locked():
            self.stage = Stage.WAITING
            self._log.info("upgrade waits for another one")
        async with turn:
            self.stage = Stage.RUNNING
            self._old = self._supervisor.lasting(self.plan.id)
            together.suspend(self.plan.id)  # a fall rolls back, and takes nobody along
            try:
                await self._replace_all()
            finally:
                together.resume(self.plan.id)

    async def _replace_all(self) -> None:
        self._log.info("upgrade begins", workers=len(self._old), command=self.plan.argv)
        for worker in self._old:
            if worker.leaves:  # somebody has ended it meanwhile
                continue
            new = self._supervisor.add_worker(self.plan, worker.index)
            self._new.append(new)
            await self._ready_or(self._is_over, new)
            with trio.move_on_after(self.plan.config.probation_ms / 1000):
                await self._supervisor.until(self._is_over)
            if self._is_over():
                break
            await self._retire(worker)
            self.replaced += 1
            self._log.info("worker replaced", worker=worker.id, by=new.id)
            if self._is_over():
                break
        if self._supervisor.stopping:
            self.stage = Stage.STOPPED
        elif self._failed():
            await self._roll_back()
        else:
            self._supervisor.adopt(self.plan)
            self.stage = Stage.DONE
            self._log.info("upgrade done", replaced=self.replaced)

    async def _roll_back(self) -> None:
        self.stage, failed = Stage.ROLLING_BACK, self._failed()
        assert failed is not None
        why = failed.first_error or failed.last_error or "somebody has drained it"
        self.why = f"worker {failed.id}: {why}"
        self._log.error("upgrade fails, going back to what was", why=self.why)
        gone = [worker for worker in self._old if worker.leaves]
        for new in self._new:
            before = next((worker for worker in gone if worker.index == new.index), None)
            if before is None:
                pass
            elif self.plan.starts_as(self._before):
                continue  # the program was replaced in its place: there is no other to go back to
            else:
                back = self._supervisor.add_worker(self._before, new.index)
                await self._ready_or(partial(_unwell, back), back)
                self.replaced -= 1
            await self._retire(new)
        stopping = self._supervisor.stopping
        self.stage = Stage.STOPPED if stopping else Stage.ROLLED_BACK
        self._log.warning("upgrade rolled back", why=self.why)

    async def _ready_or(self, over: Callable[[], bool], worker: Worker) -> None:
        """Until the worker is ready, or it is over; its start_ms bounds that."""
        await self._supervisor.until(
            lambda: worker.state is State.READY or over() or self._supervisor.stopping
        )

    async def _retire(self, worker: Worker) -> None:
        """Let it finish what it has, however long that takes: deadlines bound it."""
        worker.set_drain(math.inf)
        worker.want(Wanted.STOP)
        await self._supervisor.until(lambda: worker.state is State.STOPPED)

    def _is_over(self) -> bool:
        return self._failed() is not None or self._supervisor.stopping

    def _failed(self) -> Worker | None:
        return next((worker for worker in self._new if _unwell(worker)), None)


def _unwell(worker: Worker) -> bool:
    """Has its program ended, in this life or one before, and not because the upgrade wanted it?"""
    return worker.failures > 0 or worker.state in _UNWELL
