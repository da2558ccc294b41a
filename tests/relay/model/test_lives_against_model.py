"""Lives that end: workers that die at work and are replaced, jobs that may begin again, rolling
replacement, roles that come and go. Few moves, so that each run meets second deaths.
"""

from dispatcher_model import Asked, RoleState, Where
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule
from relay_machine import NODES, RelayMachine, role_limits, run

from bridge.fabric.limits import AdmissionLimits, ChoiceLimits

ROLES = ("red", "blue", "green")


class LivesMachine(RelayMachine):
    def limits(self, name: str, idempotent: bool) -> None:
        choice, admission = ChoiceLimits(credit_us=10_000), AdmissionLimits(depth_max=20)
        limits = role_limits(name, idempotent=idempotent, choice=choice, admission=admission)
        if name in self.role_numbers:
            self.configure(limits)
        else:
            self.go(0)
            self.add_role(limits)

    @initialize()
    def begin(self) -> None:
        limits = [role_limits(name, idempotent=True) for name in ROLES[:2]]
        self.open(limits, ["red", "red", "blue"])

    @rule(
        node=st.sampled_from(NODES),
        role=st.sampled_from(["red", "red", *ROLES]),
        retries=st.lists(st.sampled_from([0, 1, 1, 2]), min_size=1, max_size=4),
        timeout_ms=st.sampled_from([None, None, 20]),
    )
    def someone_submits(
        self, node: str, role: str, retries: list[int], timeout_ms: int | None
    ) -> None:
        for retry in retries:
            self.submit(node, Asked(role, self.new_payload(), timeout_ms=timeout_ms, retry=retry))

    @precondition(lambda self: self.waiting())
    @rule(data=st.data())
    def caller_lets_go(self, data: st.DataObject) -> None:
        self.demonitor(self.pick(data, self.waiting()).caller)

    @precondition(RelayMachine.has_placed)
    @rule(data=st.data())
    def worker_serves_one(self, data: st.DataObject) -> None:
        self.serve_one(self.pick(data, self.placed()))

    @precondition(RelayMachine.has_placed)
    @rule(data=st.data(), began=st.integers(0, 4), lies=st.booleans())
    def worker_dies_at_work(self, data: st.DataObject, began: int, lies: bool) -> None:
        """After it has begun some of what it had; another comes in its stead."""
        worker = self.pick(data, self.placed())
        self.start(worker, min(began, len(worker.ring) - worker.started))
        if lies:
            self.worker_lies(worker, "nobody")
        self.worker_dies(worker.number)
        self.worker_comes(worker.role.limits.name)

    @precondition(RelayMachine.has_placed)
    @rule(data=st.data(), times=st.integers(2, 4))
    def one_job_kills_its_workers(self, data: st.DataObject, times: int) -> None:
        """It is given to one after the other, as often as it may begin."""
        worker = self.pick(data, self.placed())
        job = next(job for job in worker.ring if job is not None)
        for _ in range(times):
            if job.where is Where.PLACED and job.worker is not None:
                self.start(job.worker, max(job.position + 1 - job.worker.started, 0))
                self.worker_dies(job.worker.number)
                self.worker_comes(job.role.limits.name)

    @precondition(lambda self: self.of_state("ready"))
    @rule(data=st.data(), dies=st.booleans())
    def worker_is_replaced(self, data: st.DataObject, dies: bool) -> None:
        """As an upgrade does it: the new one greets, the old one drains, finishes, ends. Or it
        dies before it has finished: what it had not begun goes to the others.
        """
        worker = self.pick(data, self.of_state("ready"))
        self.worker_comes(worker.role.limits.name)
        self.drain(worker)
        if not dies:
            self.serve_all(worker)
            self.go(1)
            assert worker.in_flight == 0
        self.worker_dies(worker.number, signal=0)

    @precondition(lambda self: len(self.workers) > 1)
    @rule(data=st.data())
    def worker_goes_for_good(self, data: st.DataObject) -> None:
        self.worker_dies(self.pick(data, list(self.workers.values())).number)

    @rule(role=st.sampled_from(["red", "blue"]))
    def worker_comes_to(self, role: str) -> None:
        if role in self.role_numbers and len(self.model.roles[role].workers) < 3:
            self.worker_comes(role)

    @rule(name=st.sampled_from(ROLES), idempotent=st.sampled_from([True, True, False]))
    def role_is_added_or_told(self, name: str, idempotent: bool) -> None:
        self.limits(name, idempotent)

    @rule(name=st.sampled_from(ROLES), with_workers=st.booleans())
    def role_is_removed(self, name: str, with_workers: bool) -> None:
        if name not in self.role_numbers:
            return
        workers = list(self.model.roles[name].workers)
        for worker in workers if with_workers else []:
            self.worker_dies(worker.number)
        self.remove_role(name)

    @precondition(lambda self: self.role_numbers)
    @rule(data=st.data(), state=st.sampled_from([RoleState.RUNNING, RoleState.GIVEN_UP]))
    def role_changes_state(self, data: st.DataObject, state: RoleState) -> None:
        self.set_role_state(data.draw(st.sampled_from(sorted(self.role_numbers))), state)

    @rule(ms=st.sampled_from([0, 1, 30]))
    def time_passes(self, ms: int) -> None:
        self.go(ms)


TestLivesAgainstModel = run(LivesMachine, examples=100)
