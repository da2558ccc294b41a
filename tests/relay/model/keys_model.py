"""Where jobs with a key go (docs/dispatch.md, "Keys"; decision 0019).

Which worker a key belongs to is the relay's to choose. What holds whatever it chooses: jobs of one
key go to one worker while the same workers are ready; a worker that comes takes keys over from the
others and moves none between them; one that goes leaves its own, and no other key moves. With
`steal` an idle worker may take what waits for another. In an `ordered` role jobs of one key run one
after the other as they were accepted, whatever becomes of their workers. Nobody is kept waiting
beside a worker with room that may have it.
"""

from collections import defaultdict
from dataclasses import dataclass, field

from dispatcher_model import Dispatcher, Job, Role, Seen, Worker


@dataclass
class Homes:
    """Of one role's keys: which workers each may belong to, as far as is known."""

    ready: set[int] = field(default_factory=set)
    of: dict[object, set[int]] = field(default_factory=dict)
    age: int = 0  # changes with who is ready

    def may_be(self, key: object) -> set[int]:
        return self.of.get(key, self.ready)


class Keys(Dispatcher):
    def __init__(self) -> None:
        super().__init__()
        self.homes: dict[str, Homes] = defaultdict(Homes)
        self.came: dict[Job, int] = {}  # to its queue, at which age of its role's homes

    # ---- who is ready

    def greeted(self, worker: Worker) -> None:
        super().greeted(worker)
        homes = self.homes[worker.role.limits.name]
        homes.of = {key: may | {worker.number} for key, may in homes.of.items()}
        homes.ready.add(worker.number)
        homes.age += 1

    def _leaves(self, worker: Worker) -> None:
        homes = self.homes[worker.role.limits.name]
        if worker.number in homes.ready:
            homes.ready.remove(worker.number)
            theirs = [key for key, may in homes.of.items() if worker.number in may]
            for key in theirs:
                del homes.of[key]
            homes.age += 1

    def drain(self, worker: Worker) -> None:
        super().drain(worker)
        self._leaves(worker)

    def _broke(self, worker: Worker, rule: str) -> None:
        self._leaves(worker)
        super()._broke(worker, rule)

    def died(self, worker: Worker, status: int | None, signal: int | None) -> None:
        self._take_completions(worker)
        self._leaves(worker)
        super().died(worker, status, signal)

    # ---- jobs

    def _enqueue(self, job: Job) -> None:
        super()._enqueue(job)
        self.came[job] = self.homes[job.role.limits.name].age

    def round(self, seen: Seen) -> None:
        """A worker that is fenced in the middle of a round leaves its keys to others there: what
        these were given before and after cannot be told apart, and is taken for given after.
        """
        self.end_overdue()
        everyone = [worker for role in self.roles.values() for worker in role.workers]
        liars = [worker for worker in everyone if any(c.job is None for c in worker.completions)]
        if liars:
            self._take_from_all(seen, liars)
        else:
            self.place(seen)
        self.take_completions()
        self.place(seen)
        self.end_lost()

    def place(self, seen: Seen) -> None:
        for role in self.roles.values():
            self._give_up(role)
            if not self.held:
                self._take_from_all(seen, role.workers)
                self._nobody_waits_in_vain(role)

    def _take_from_all(self, seen: Seen, workers: list[Worker]) -> None:
        while any(self._take_from(seen, worker) for worker in workers):
            pass

    def _take_from(self, seen: Seen, worker: Worker) -> bool:
        """The next of what came to it, if that may be by now."""
        waiting = {job.payload: job for job in worker.role.queue}
        job = waiting.get(seen[worker.number][0]) if seen[worker.number] else None
        if job is None or not worker.has_room:
            return False
        if not self._is_first(job) or not self._goes_home(job, worker):
            return False  # not before what this round brings
        seen[worker.number].pop(0)
        self._give(job, worker)
        return True

    def _is_first(self, job: Job) -> bool:
        """Of the jobs of its key."""
        role, key = job.role, job.asked.key
        if key is None:
            others = [other for other in role.queue if other.asked.key is None]
            return all(role.turn(job, self.now) <= role.turn(o, self.now) for o in others)
        waiting = [other for other in role.queue if other.asked.key == key]
        if role.limits.choice.ordered:
            placed = any(o and o.asked.key == key for w in role.workers for o in w.ring)
            return not placed and job is min(waiting, key=lambda other: other.number)
        if role.limits.choice.steal:  # half of them may wait for another worker by now
            return True
        alike = [other for other in waiting if self.came[other] == self.came[job]]
        return job is min(alike, key=lambda other: role.turn(other, self.now))

    def _goes_home(self, job: Job, worker: Worker) -> bool:
        homes, key = self.homes[job.role.limits.name], job.asked.key
        if key is None or job.role.limits.choice.steal or self.came[job] != homes.age:
            return True
        if worker.number not in homes.may_be(key):
            return False
        homes.of[key] = {worker.number}
        return True

    def _nobody_waits_in_vain(self, role: Role) -> None:
        homes = self.homes[role.limits.name]
        free = {worker.number for worker in role.workers if worker.has_room}
        for job in role.queue:
            if job.asked.key is None:
                assert not free, f"{job} waits beside {free}"
            elif self._is_first(job) and self.came[job] == homes.age:
                home = homes.may_be(job.asked.key)
                assert not home <= free, f"{job} waits for {home}, which have room"
        idle = [w for w in role.workers if w.has_room and not w.in_flight]
        if role.limits.choice.steal and idle:  # it takes half of any two that wait for one
            waiting = [job for job in role.queue if job.asked.key is not None]
            assert sum(map(self._is_first, waiting)) < len(homes.ready), f"{idle} beside {waiting}"
