"""What the bridge adds to the node's inspection: its workers, its dispatcher, the relay's traffic.

In observer, LiveDashboard and `process_info` each worker is a process below
`Ringbridge.PortSupervisor`:

    message_queue_len   jobs that it has in hand
    reductions          jobs that it has done
    memory              what the node keeps for its pid, and the resident memory of the worker's OS
                        process without the shared rings and pools (those count once, as binary)
    current_function    Ringbridge.Worker, its role, and 1 while it has jobs in hand, else 0
    label               the role, the worker's id and its OS pid
    dictionary          what the WorkerRegistry tells of it

The dispatcher's queue is that of all roles together, its reductions are the jobs accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from bridge.etf import Atom, Pid
from bridge.node.inspection import Child, SupervisorView, facts
from bridge.node.process.details import Details, module_atom
from bridge.node.signals.router import Router
from bridge.workers.worker import State, Worker

Term = Any
WORKER_MODULE = "Ringbridge.Worker"
SUPERVISOR_MODULE = "Ringbridge.PortSupervisor"
SUPERVISOR_NAMES = ("Elixir.Ringbridge.PortSupervisor", "port_supervisor")
_SHOWN = ("role", "id", "index", "state", "os_pid", "kit", "kit_version", "restarts")
_GONE = (State.DRAINED, State.GIVEN_UP, State.FINISHED, State.STOPPED)


class Workload(Protocol):
    """What the relay counts about one worker."""

    @property
    def in_flight(self) -> int: ...
    @property
    def done(self) -> int: ...


class DispatchFigures(Protocol):
    """The relay's counters, as far as they are shown here."""

    @property
    def accepted(self) -> int: ...
    @property
    def bytes_in(self) -> int: ...
    @property
    def bytes_out(self) -> int: ...


def worker_details(
    worker: Worker, workload: Workload | None, described: dict[Term, Term]
) -> Details:
    """One worker's process. `described` is what the WorkerRegistry says of it."""
    role = worker.plan.name
    in_flight = workload.in_flight if workload else 0
    label = f"{role} worker {worker.id}"
    if worker.os_pid is not None:
        label += f", OS pid {worker.os_pid}"
    return Details(
        module=WORKER_MODULE,
        doing=(module_atom(WORKER_MODULE), Atom(role), int(in_flight > 0)),
        label=label.encode(),
        queue_len=in_flight,
        handled=workload.done if workload else 0,
        memory_bytes=facts.resident(worker.os_pid).own if worker.os_pid else 0,
        dictionary=[(Atom(name), described[Atom(name)]) for name in _SHOWN],
    )


def dispatcher_details(module: str, figures: DispatchFigures, queued: int) -> Details:
    return Details(module=module, queue_len=queued, handled=figures.accepted)


class WorkersSupervisor:
    """The process that the workers stand below in the tree of the application."""

    def __init__(self, router: Router, workers: Callable[[], Sequence[Worker]]) -> None:
        self._router = router
        self._workers = workers
        self._start()

    @property
    def pid(self) -> Pid:
        return self._view.pid

    def _start(self) -> None:
        self._view = SupervisorView(
            self._router,
            module=SUPERVISOR_MODULE,
            children=lambda: [_child(each) for each in self._workers() if each.state not in _GONE],
            ended=self._start_again,
        )
        self._view.start(tuple(map(Atom, SUPERVISOR_NAMES)))

    def _start_again(self) -> None:
        self._start()
        for worker in self._workers():
            registration = worker.registration
            process = self._router.table.find(registration.pid if registration else None)
            if process is not None:
                process.parent = self.pid


def _child(worker: Worker) -> Child:
    return Child(
        id=(Atom(worker.plan.name), worker.index),
        pid=worker.registration.pid if worker.registration else None,
        module=WORKER_MODULE,
    )
