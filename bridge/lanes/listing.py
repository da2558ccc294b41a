"""The list of workers that BEAMs with a lane read in memory: kept as workers change.

Each worker has a place while the supervisor has it, whatever it does. Beyond PLACES_MAX workers are
counted only, and take the places that become free. The figures beside the list are the relay's.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

import structlog

from bridge.fabric.lanes import PLACES_MAX, ListedState, ListedWorker
from bridge.workers.crash_reports import CrashReport
from bridge.workers.port_supervisor import PortSupervisor
from bridge.workers.worker import Worker

_log = structlog.get_logger("ringbridge.lanes")


class ListingRelay(Protocol):
    """The relay, as far as it is needed here."""

    def list_worker(self, place: int, worker: ListedWorker) -> None: ...
    def list_hidden(self, workers: int) -> None: ...
    def list_errors(self, errors: Sequence[tuple[int, str]]) -> None: ...


class Listing:
    """Told of each change of a worker by the supervisor. Never blocks, never raises."""

    def __init__(self, relay: ListingRelay, supervisor: PortSupervisor, errors_max: int) -> None:
        """`errors_max`: how many of the last errors are told."""
        self._relay = relay
        self._supervisor = supervisor
        self._errors_max = errors_max
        self._places: dict[Worker, int] = {}
        self._free = list(range(PLACES_MAX))  # a heap: the list stays short
        self._without: OrderedDict[Worker, None] = OrderedDict()
        self._last_error: CrashReport | None = None
        self._broken = False
        supervisor.observers.append(self.changed)
        for worker in supervisor.workers:
            self.changed(worker)

    def changed(self, worker: Worker) -> None:
        if self._broken:
            return
        try:
            self._tell_errors()  # first: who reads of an end reads why
            if worker in self._supervisor.workers:
                self._tell(worker)
            else:
                self._forget(worker)
        except OSError as error:  # no memory: then nobody has a lane either
            self._broken = True
            _log.error("workers cannot be listed for lanes", why=str(error))

    def _tell(self, worker: Worker) -> None:
        place = self._places.get(worker)
        if place is None:
            if not self._free:
                self._without[worker] = None
                self._relay.list_hidden(len(self._without))
                return
            place = self._places[worker] = heapq.heappop(self._free)
        self._relay.list_worker(place, listed(worker))

    def _forget(self, worker: Worker) -> None:
        if worker in self._without:
            del self._without[worker]
            self._relay.list_hidden(len(self._without))
        place = self._places.pop(worker, None)
        if place is None:
            return
        self._relay.list_worker(place, ListedWorker())
        heapq.heappush(self._free, place)
        if self._without:
            longest, _ = self._without.popitem(last=False)
            self._tell(longest)
            self._relay.list_hidden(len(self._without))

    def _tell_errors(self) -> None:
        newest = self._supervisor.crashes.newest_first()[: self._errors_max]
        if newest and newest[0] is not self._last_error:
            self._last_error = newest[0]
            self._relay.list_errors([(each.worker, each.why) for each in newest])


def listed(worker: Worker) -> ListedWorker:
    """One worker as it is now."""
    return ListedWorker(
        worker=worker.id,
        state=ListedState[worker.state.name],
        index=worker.index,
        os_pid=worker.os_pid or 0,
        restarts=worker.restarts,
        kit=worker.kit or "",
        role=worker.plan.name,
    )
