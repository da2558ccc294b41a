"""What the dispatcher does, without how: the life of a job, its worker's and its role's.

What other subjects add stands in models of their own, each derived from this one: whose turn it is
(turns_model.py), where jobs with a key go (keys_model.py), who is taken in (admission_model.py),
who is left alone (breaker_model.py), the other ways of asking (asking_model.py).

A round hears notes, then signals, deaths and greetings, ends what is overdue, gives queued jobs to
workers, takes completions, and gives jobs out again; connections that were lost end with it. The
model says what must be said to whom, and which job is next. Where a rule leaves a choice (which of
several workers that are equally free), it is told what the relay chose, and says whether that was
one of those that the rules allow.
"""

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Any

from bridge.etf import Atom, Term
from bridge.fabric.limits import RoleLimits

MS = 1_000_000
WAKE_BITS = 14
QUIET_NS = MS  # csrc/relay/dispatch/poll.c
# The reason and what is told with it; none where the job is taken in.
Refusal = tuple[str, *tuple[object, ...]] | tuple[()]
BANDS = ("critical", "high", "normal", "low")


class RoleState(IntEnum):
    RUNNING = 0
    DRAINING = 1
    GIVEN_UP = 2


class Where(Enum):
    QUEUED = "queued"
    PLACED = "placed"  # in a worker's ring; its caller waits
    ABANDONED = "abandoned"  # in a worker's ring; nobody waits
    DEFERRED = "deferred"  # accepted, and outside the queue
    WAITING = "waiting"  # for another job: it stands in no queue itself
    GONE = "gone"


@dataclass(frozen=True)
class Caller:
    """A process of a node that waits for the answer to one call."""

    node: str
    process: int
    ref: int
    monitors: bool  # it holds a monitor on the service; otherwise the relay watches it


@dataclass(frozen=True)
class Asked:
    """A request for work: {submit, Role, Payload, Options}."""

    role: str
    payload: bytes
    band: int = 2
    timeout_ms: int | None = None
    opcode: int = 0
    retry: int = 0
    tenant: str = ""
    key: Hashable = None
    is_async: bool = False  # submit_async: {ok, Ref} at once, the answer as a message
    finish: bool = False  # orphan: finish
    dedupe: bytes | None = None
    ttl_ms: int = 0

    def options(self) -> dict[Term, Term]:
        given: dict[str, Any] = {"priority": Atom(BANDS[self.band]), "opcode": self.opcode}
        if self.timeout_ms is not None:
            given["timeout"] = self.timeout_ms
        if self.retry:
            given["retry"] = self.retry
        if self.tenant:
            given["tenant"] = self.tenant.encode()
        if self.key is not None:
            given["key"] = self.key
        if self.finish:
            given["orphan"] = Atom("finish")
        if self.dedupe is not None:
            given["dedupe"] = self.dedupe
        if self.ttl_ms:
            given["ttl"] = self.ttl_ms
        return {Atom(name): value for name, value in given.items()}


@dataclass(eq=False, repr=False)
class Job:
    number: int  # of all that were accepted, from 1
    caller: Caller
    role: "Role"
    asked: Asked
    arrived: int
    deadline: int
    retry: int = 0  # so often may it begin again, in an idempotent role
    where: Where = Where.QUEUED
    worker: "Worker | None" = None
    position: int = 0  # in its worker's ring
    placed_at: int = 0
    element: tuple[int, ...] = ()  # of submit_many: which
    watched: bool = False  # the relay holds a monitor on its caller

    def __repr__(self) -> str:
        return f"<job {self.number} {self.where.value} {self.payload[:8]!r}>"

    @property
    def payload(self) -> bytes:
        return self.asked.payload

    @property
    def waits(self) -> bool:
        """Somebody still waits for the answer."""
        return self.where not in (Where.ABANDONED, Where.GONE)

    @property
    def name(self) -> tuple[object, ...]:
        """Of all whose answer is still to come."""
        return (self.caller.node, self.caller.ref, *self.element)


@dataclass(eq=False, repr=False)
class Role:
    limits: RoleLimits
    state: RoleState = RoleState.RUNNING
    queue: list[Job] = field(default_factory=list)
    workers: list["Worker"] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<role {self.limits.name} {self.state.name} {self.queue}>"

    def band(self, job: Job, now: int) -> int:
        """Waiting moves a job up: one band for each `aging_ms`."""
        aging = self.limits.order.aging_ms
        aged = (now - job.arrived) // (aging * MS) if aging else 0
        return max(job.asked.band - aged, 0)

    def urgency(self, job: Job) -> tuple[int, int]:
        """The earliest deadline, for which nobody is passed for longer than the role's patience;
        then as they came.
        """
        patience = self.limits.order.patience_ms
        patient = job.arrived + patience * MS if patience else job.deadline
        return min(job.deadline, patient), job.number

    def turn(self, job: Job, now: int) -> tuple[int, int, int]:
        return self.band(job, now), *self.urgency(job)


@dataclass(eq=False, repr=False)
class Worker:
    number: int
    role: Role
    slots: int
    state: str = "greeting"  # ready, draining, fenced
    ring: list[Job | None] = field(default_factory=list)  # every request so far; None: completed
    started: int = 0  # requests whose handler was entered
    released: int = 0  # slots given back
    service_ns: int = 0
    credit: int = 1
    completions: list["Completion"] = field(default_factory=list)  # published, not taken
    broke: str = ""  # the rule, once it is fenced for it
    ended: tuple[int | None, int | None] = (None, None)  # status, signal
    stirred: int = 0  # when it was given a job, or gave one back
    rings: bool = False  # it has been quiet for long: it is heard when it rings, with the signals

    def __repr__(self) -> str:
        return f"<worker {self.number} {self.state} {self.ring}>"

    @property
    def in_flight(self) -> int:
        return sum(job is not None for job in self.ring)

    @property
    def load(self) -> int:
        """Its jobs in flight; in units of a wake-up, where one takes less than that (16 us)."""
        bits = self.service_ns.bit_length() if self.service_ns else WAKE_BITS
        return self.in_flight >> max(WAKE_BITS - bits, 0)

    @property
    def has_room(self) -> bool:
        """Credit, and a slot that it has released and whose last job has been completed."""
        if self.state != "ready" or self.in_flight >= self.credit:
            return False
        if len(self.ring) - self.released >= self.slots:
            return False
        last = len(self.ring) - self.slots
        return last < 0 or self.ring[last] is None

    def measure(self, away_ns: int, run_ns: int) -> None:
        """Credit is time: as many jobs as it is expected to do in the role's credit_us."""
        run_ns = min(run_ns, away_ns)
        average = self.service_ns
        self.service_ns = average + run_ns // 8 - average // 8 + 1 if average else run_ns + 1
        self.credit = min(
            max(self.role.limits.choice.credit_us * 1000 // self.service_ns, 1), self.slots
        )


@dataclass(frozen=True)
class Completion:
    job: Job | None  # None: of no job of this worker's
    status: int
    payload: bytes
    run_ns: int


@dataclass(frozen=True)
class Said:
    """An answer, or the begin or end of a watch on a caller."""

    node: str
    ref: int
    what: tuple[object, ...]


OK, FAILED, CANCELLED = range(3)
Seen = dict[int, list[bytes]]  # payloads that came into each worker's ring in a round, in order


class Dispatcher:
    def __init__(self) -> None:
        self.now = 0
        self.roles: dict[str, Role] = {}
        self.jobs: dict[tuple[object, ...], Job] = {}  # accepted, and not answered
        self.numbers = 0  # given to jobs, as they come
        self.accepted = 0
        self.answered: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.held = False
        self.lost: set[str] = set()  # nodes whose connection ends with this round
        self.said: list[Said] = []
        # What callers were told in this round: read where a rule leaves the relay a choice.
        self.heard: dict[tuple[str, int], list[tuple[object, ...]]] = {}

    def round(self, seen: Seen) -> None:
        """After what was heard."""
        self.end_overdue()
        self.place(seen)
        self.take_completions()
        self.place(seen)
        self.end_lost()

    # ---- what is said

    def _tell(self, caller: Caller, *what: object) -> None:
        if caller.node not in self.lost:
            self.said.append(Said(caller.node, caller.ref, what))

    def _refuse(self, caller: Caller, reason: str, *more: object) -> None:
        self.refused[reason] += 1
        self._tell(caller, "error", reason, *more)

    def _answered(self, job: Job, reason: str) -> None:
        """The one answer of an accepted job: its caller is forgotten from here on."""
        assert job.waits
        self.answered[reason] += 1
        self._unwatch(job)
        del self.jobs[job.name]
        self._leave(job)

    def _watch(self, job: Job) -> None:
        if not job.watched:
            job.watched = True
            self._tell(job.caller, "watch")

    def _unwatch(self, job: Job) -> None:
        if job.watched:
            job.watched = False
            self._tell(job.caller, "unwatch")

    def _leave(self, job: Job) -> None:
        if job.where is Where.QUEUED:
            self._dequeue(job)
        job.where = Where.ABANDONED if job.where is Where.PLACED else Where.GONE

    def _dequeue(self, job: Job) -> None:
        job.role.queue.remove(job)

    def _answer(self, job: Job, reason: str, *more: object) -> None:
        self._deliver(job, ("ok", *more) if reason == "ok" else ("error", reason, *more))
        self._answered(job, reason)

    def _deliver(self, job: Job, answer: tuple[object, ...]) -> None:
        self._tell(job.caller, *answer)

    # ---- notes

    def add_role(self, role: Role) -> None:
        self.roles[role.limits.name] = role

    def remove_role(self, name: str) -> None:
        """It has no workers any more: what waits is told, and nobody can ask it again."""
        self.set_role_state(self.roles.pop(name), RoleState.GIVEN_UP)

    def set_role_state(self, role: Role, state: RoleState) -> None:
        role.state = state
        self._give_up(role)

    def _give_up(self, role: Role) -> None:
        while role.state is RoleState.GIVEN_UP and role.queue:
            self._answer(role.queue[0], "no_worker")

    def configure(self, role: Role, limits: RoleLimits) -> None:
        """Other numbers, for what waits too."""
        role.limits = limits

    def drain(self, worker: Worker) -> None:
        """It finishes what it has and gets nothing more."""
        if worker.state == "ready":
            worker.state = "draining"

    # ---- signals

    def submit(self, caller: Caller, asked: Asked) -> None:
        role = self.roles.get(asked.role)
        if role is None or (asked.retry and not role.limits.idempotent):
            self._refuse(caller, "bad_request")
        elif refusal := self._refusal(role, caller, asked):
            self._refuse(caller, *refusal)
        else:
            self._accept(role, caller, asked)

    def _refusal(self, role: Role, caller: Caller, asked: Asked) -> Refusal:
        """Closed or broken comes before too large, and full after it."""
        if role.state is RoleState.DRAINING:
            return ("draining",)
        if role.state is RoleState.GIVEN_UP:
            return ("no_worker",)
        if len(asked.payload) > role.limits.payload_bytes_max:
            return "too_large", role.limits.payload_bytes_max
        if len(role.queue) >= role.limits.admission.depth_max:
            return ("overloaded",)
        return ()

    def _accept(self, role: Role, caller: Caller, asked: Asked) -> Job:
        job = self._new_job(role, caller, asked)
        self._admit(job)
        self._begin(job)
        return job

    def _admit(self, job: Job) -> None:
        """One that is accepted: its caller is watched where it holds no monitor for the job."""
        self.accepted += 1
        self.jobs[job.name] = job
        if not job.caller.monitors:
            self._watch(job)

    def _begin(self, job: Job) -> None:
        """Where it goes first."""
        self._enqueue(job)

    def _new_job(self, role: Role, caller: Caller, asked: Asked) -> Job:
        self.numbers += 1
        default = role.limits.timeout_default_ms
        timeout = default if asked.timeout_ms is None else asked.timeout_ms
        deadline = self.now + min(timeout, role.limits.timeout_max_ms) * MS
        return Job(self.numbers, caller, role, asked, self.now, deadline, asked.retry)

    def _enqueue(self, job: Job) -> None:
        """One that was accepted, or that comes back unstarted: its place is by the same rules."""
        job.where, job.worker = Where.QUEUED, None
        job.role.queue.append(job)

    def caller_gone(self, node: str, ref: int) -> None:
        """DEMONITOR_P or DOWN: nothing is said for the job any more."""
        if job := self.jobs.get((node, ref)):
            self._answered(job, "cancelled")

    def caller_died(self, node: str, ref: int) -> None:
        """DOWN of a caller that is watched: its watch is used up."""
        if job := self.jobs.get((node, ref)):
            job.watched = False
            self._answered(job, "cancelled")

    def cancel(self, asker: Caller, number: int) -> None:
        """By the job's id: its caller is told, and whoever asked gets ok."""
        job = next((job for job in self.open_jobs() if job.number == number), None)
        if job is None:
            self._tell(asker, "error", "unknown_job")
        else:
            self._answer(job, "cancelled")
            self._tell(asker, "ok")

    def listing(self, asker: Caller) -> None:
        """Role by role, each one's oldest first."""
        found: list[object] = []
        for role in self.roles.values():
            jobs = sorted((j for j in self.open_jobs() if j.role is role), key=lambda j: j.number)
            found += [(j.number, j.where.value, j.worker and j.worker.number) for j in jobs]
        self._tell(asker, "ok", tuple(found))

    def open_jobs(self) -> list[Job]:
        return list(self.jobs.values())

    def node_down(self, node: str) -> None:
        """Nothing reaches it any more; its jobs end with the round."""
        self.lost.add(node)
        self.said = [said for said in self.said if said.node != node]

    # ---- workers

    def greeted(self, worker: Worker) -> None:
        worker.state = "ready"

    def rang(self, worker: Worker) -> None:
        """One that had been quiet for long gives a job back."""
        self._take_completions(worker)

    def _take_completions(self, worker: Worker) -> None:
        if worker.completions:
            self._stirs(worker)
        while worker.completions and worker.state != "fenced":
            completion = worker.completions.pop(0)
            job = completion.job
            if job is None or job.worker is not worker or job.where is Where.GONE:
                self._broke(worker, "completion_of_no_job_here")
                return
            if job.where is Where.PLACED:
                if completion.status == OK:
                    self._answer(job, "ok", completion.payload)
                elif completion.status == FAILED:
                    self._answer(job, "job_failed", 7, completion.payload)
                else:  # its worker saw the deadline first, or gave up by itself
                    late = self.now >= job.deadline
                    self._answer(job, "deadline_exceeded" if late else "cancelled")
            worker.measure(self.now - job.placed_at, completion.run_ns)
            worker.ring[job.position] = None
            job.where = Where.GONE

    def _broke(self, worker: Worker, rule: str) -> None:
        """It is killed, and may run on until that arrives: only what it began is certainly lost.
        A job that went elsewhere now could begin here in the same moment, and run twice.
        """
        worker.state = "fenced"
        worker.broke = rule
        for job in worker.ring[: worker.started]:
            if job is not None and job.where is Where.PLACED and not self._may_retry(job):
                self._lose(job)

    @staticmethod
    def _may_retry(job: Job) -> bool:
        return job.retry > 0 and job.role.limits.idempotent

    def died(self, worker: Worker, status: int | None, signal: int | None) -> None:
        """What it published before its end counts. Jobs that were started are lost with their
        worker; the others are queued again.
        """
        self._take_completions(worker)
        worker.state, worker.ended = "fenced", (status, signal)
        for position in reversed(range(len(worker.ring))):
            job, worker.ring[position] = worker.ring[position], None
            if job is None:
                continue
            if job.where is Where.ABANDONED:
                job.where = Where.GONE
            elif position >= worker.started:
                self._enqueue(job)
            elif self._may_retry(job):
                job.retry -= 1
                self._enqueue(job)
            else:
                self._lose(job)
                job.where = Where.GONE
        worker.role.workers.remove(worker)

    def _lose(self, job: Job) -> None:
        worker = job.worker
        assert worker is not None
        if worker.broke:
            self._answer(job, "worker_broke", worker.broke)
        else:
            self._answer(job, "worker_crashed", worker.number, *worker.ended)

    # ---- the steps of a round that nobody asks for

    def end_overdue(self) -> None:
        for job in self.open_jobs():
            if job.deadline <= self.now and job.waits:
                self._answer(job, "deadline_exceeded")

    def place(self, seen: Seen) -> None:
        """Give jobs to workers while there is credit."""
        for role in self.roles.values():
            self._give_up(role)
            while not self.held and role.queue:
                free = [worker for worker in role.workers if worker.has_room]
                if not free:
                    break
                given = [
                    (job, worker)
                    for job in self._next_jobs(role)
                    for worker in self._allowed(job, free)
                    if seen[worker.number][:1] == [job.payload]
                ]
                assert given, f"{self._next_jobs(role)} to none of {free}, but {seen}"
                job, worker = given[0]
                seen[worker.number].pop(0)
                self._give(job, worker)

    def _next_jobs(self, role: Role) -> list[Job]:
        """The one whose turn it is; several where the rules leave it open."""
        return [min(role.queue, key=lambda job: role.turn(job, self.now))]

    def _allowed(self, job: Job, free: list[Worker]) -> list[Worker]:
        """Those of the workers with room that may be chosen for it."""
        least = min(worker.load for worker in free)
        return [worker for worker in free if worker.load == least]

    def _give(self, job: Job, worker: Worker) -> None:
        self._dequeue(job)
        job.where, job.worker, job.placed_at = Where.PLACED, worker, self.now
        job.position = len(worker.ring)
        worker.ring.append(job)
        self._stirs(worker)

    def take_completions(self) -> None:
        """Of all that stirred a moment ago; whoever has not is left until it rings."""
        for role in self.roles.values():
            for worker in list(role.workers):
                quiet = not worker.completions and self.now - worker.stirred >= QUIET_NS
                self._take_completions(worker)
                if quiet and worker.in_flight and worker.state != "fenced":
                    worker.rings = True

    def _stirs(self, worker: Worker) -> None:
        worker.stirred, worker.rings = self.now, False

    def end_lost(self) -> None:
        for node in self.lost:
            for job in [job for job in self.jobs.values() if job.caller.node == node]:
                self._answered(job, "cancelled")
        self.lost.clear()
