"""WorkerRegistry: answers what workers there are, and drains or restarts one of them.

Requests (GenServer.call to Ringbridge.WorkerRegistry or worker_registry):

    :list             {:ok, [worker]}        a map per worker, see `describe`
    {:lookup, role}   {:ok, map}             the role and its workers; role: atom or binary
    {:drain, id}      :ok                    finishes what it has, then stays ended
    {:restart, id}    :ok                    the same, then starts again; also one that was given up
    :stats            {:ok, map}             how many workers are in which state, restarts, roles

:drain and :restart are for nodes that [node] admin_nodes names, see `operation`.
Anything else is {:error, {:bad_request, why}}; it changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from bridge.etf import Atom, brief
from bridge.ops.answers import OK, Answering, BadRequest, Term, atom_keys
from bridge.workers.port_supervisor import PortSupervisor
from bridge.workers.worker import State, Wanted, Worker

NAMES = ("Elixir.Ringbridge.WorkerRegistry", "worker_registry")
REQUESTS = ":list, {:lookup, role}, {:drain, id}, {:restart, id} and :stats"


def operation(request: Term) -> str | None:
    """The words for a request that changes or stops things, or None."""
    match request:
        case (Atom("drain" | "restart" as name), _):
            return f"{{:{name}, id}}"
    return None


class WorkerFigures(Protocol):
    """What the relay counts about one worker."""

    @property
    def in_flight(self) -> int: ...
    @property
    def done(self) -> int: ...


class WorkerRegistry(Answering):
    """The answers; it keeps nothing of its own. `figures`: the relay's counters of a worker id."""

    module = "Ringbridge.WorkerRegistry"

    def __init__(
        self, supervisor: PortSupervisor, *, figures: Callable[[int], WorkerFigures | None]
    ) -> None:
        self._supervisor = supervisor
        self._figures = figures

    def answer(self, request: Term) -> Term:
        match request:
            case Atom("list"):
                return (OK, self.describe_all())
            case Atom("stats"):
                return (OK, atom_keys(self.statistics()))
            case (Atom("lookup"), role):
                return (OK, self.lookup(role))
            case (Atom("drain"), worker_id):
                self._worker(worker_id).want(Wanted.DRAIN)
                return OK
            case (Atom("restart"), worker_id):
                self._worker(worker_id).want(Wanted.RESTART)
                return OK
        raise BadRequest(f"the WorkerRegistry knows {REQUESTS}, not {brief(request)}")

    def describe_all(self) -> list[dict[Term, Term]]:
        """Every worker, in the order of the configuration."""
        return [self.describe(worker) for worker in self._supervisor.workers]

    def lookup(self, role: Term) -> dict[Term, Term]:
        """The role `role` (atom or binary) and its workers. Raises BadRequest."""
        match role:
            case Atom(name):
                pass
            case bytes():
                name = role.decode("utf-8", "replace")
            case _:
                raise BadRequest(f"a role is an atom or a binary, not {brief(role)}")
        plans = {plan.name: plan for plan in self._supervisor.plans}
        if (plan := plans.get(name)) is None:
            raise BadRequest(f"there is no role {name[:80]}; the roles are {', '.join(plans)}")
        state = self._supervisor.role_state(plan.id)
        workers = [self.describe(worker) for worker in self._supervisor.of_role(plan.id)]
        return atom_keys(
            {"role": Atom(name), "state": Atom(state.name.lower()), "workers": workers}
        )

    def statistics(self) -> Mapping[str, Any]:
        workers = self._supervisor.workers
        return {
            "workers": len(workers),
            "states": Counter(worker.state.value for worker in workers),
            "restarts": sum(worker.restarts for worker in workers),
            "roles": [Atom(plan.name) for plan in self._supervisor.plans],
        }

    def describe(self, worker: Worker) -> dict[Term, Term]:
        """One worker as a map with atom keys; what is not known (yet) is nil."""
        alive = worker.state in (State.STARTING, State.READY, State.DRAINING)
        figures = self._figures(worker.id) if alive else None
        return atom_keys(
            {
                "id": worker.id,
                "role": Atom(worker.plan.name),
                "index": worker.index,
                "state": Atom(worker.state.value),
                "pid": worker.registration.pid if worker.registration else None,
                "os_pid": worker.os_pid,
                "kit": worker.kit,
                "kit_version": worker.kit_version,
                "in_flight": figures.in_flight if figures else 0,
                "done": figures.done if figures else 0,
                "restarts": worker.restarts,
                "last_error": worker.last_error,
            }
        )

    def _worker(self, worker_id: Term) -> Worker:
        if type(worker_id) is not int:
            raise BadRequest(f"a worker's id is an integer, not {brief(worker_id)}")
        if (worker := self._supervisor.find(worker_id)) is None:
            raise BadRequest(f"no worker has the id {worker_id}; :list shows the ids of now")
        return worker
