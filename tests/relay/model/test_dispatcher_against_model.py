"""The relay against dispatcher_model.py: whatever is submitted, cancelled, lost, drained and
suspended, and however workers behave.
"""

from dispatcher_model import CANCELLED, FAILED, OK, Asked, RoleState
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule
from relay_machine import NODES, RelayMachine, run

from bridge.etf import Atom
from bridge.fabric.limits import AdmissionLimits, ChoiceLimits, OrderLimits, RoleLimits

STATES = [*[RoleState.RUNNING] * 6, RoleState.DRAINING, RoleState.GIVEN_UP]


def limits(name: str) -> st.SearchStrategy[RoleLimits]:
    """What a role may be told; its name and its pool are fixed."""
    return st.builds(
        RoleLimits,
        name=st.just(name),
        payload_bytes_max=st.just(4096),
        pool_bytes=st.just(1 << 20),
        timeout_default_ms=st.sampled_from([60_000, 100]),
        timeout_max_ms=st.sampled_from([3_600_000, 40]),
        idempotent=st.booleans(),
        order=st.builds(
            OrderLimits,
            aging_ms=st.sampled_from([0, 1, 20, 5000]),
            patience_ms=st.sampled_from([0, 1, 30, 10_000]),
        ),
        choice=st.builds(ChoiceLimits, credit_us=st.sampled_from([200, 50, 10_000])),
        admission=st.builds(AdmissionLimits, depth_max=st.sampled_from([5, 1000])),
    )


class DispatcherMachine(RelayMachine):
    @initialize(red=limits("red"), blue=limits("blue"))
    def begin(self, red: RoleLimits, blue: RoleLimits) -> None:
        self.open([red, blue], ["red", "red", "blue"])

    # ---- calls

    @rule(
        node=st.sampled_from(NODES),
        role=st.sampled_from(["red", "red", "red", "blue", "green"]),
        band=st.integers(0, 3),
        timeout_ms=st.none() | st.integers(0, 50),
        size=st.sampled_from([0, 0, 0, 100, 3000, 5000]),
        monitors=st.booleans(),
        as_map=st.booleans(),
        retry=st.sampled_from([0, 0, 1, 2]),
    )
    def someone_submits(
        self,
        node: str,
        role: str,
        band: int,
        timeout_ms: int | None,
        size: int,
        monitors: bool,
        as_map: bool,
        retry: int,
    ) -> None:
        payload = self.new_payload(size)
        asked = Asked(role, payload, band, timeout_ms, opcode=self.calls % 1000, retry=retry)
        self.submit(node, asked, monitors=monitors, as_map=as_map)

    @rule(
        node=st.sampled_from(NODES),
        role=st.sampled_from(["red", "red", "blue"]),
        bands=st.lists(st.integers(0, 3), min_size=2, max_size=8),
        retry=st.sampled_from([0, 1]),
    )
    def many_submit(self, node: str, role: str, bands: list[int], retry: int) -> None:
        for band in bands:
            self.submit(node, Asked(role, self.new_payload(), band, retry=retry))

    @precondition(lambda self: self.waiting(True))
    @rule(data=st.data())
    def caller_lets_go(self, data: st.DataObject) -> None:
        self.demonitor(self.pick(data, self.waiting(True)).caller)

    @precondition(lambda self: self.waiting(False))
    @rule(data=st.data())
    def watched_caller_dies(self, data: st.DataObject) -> None:
        self.caller_dies(self.pick(data, self.waiting(False)).caller)

    @rule(node=st.sampled_from(NODES))
    def list_jobs(self, node: str) -> None:
        asker = self.new_caller(node)
        self.call(asker, (Atom("jobs"), Atom("all")), lambda: self.model.listing(asker))

    @precondition(lambda self: self.ids)
    @rule(node=st.sampled_from(NODES), data=st.data())
    def cancel_by_id(self, node: str, data: st.DataObject) -> None:
        self.cancel(node, data.draw(st.sampled_from(sorted(self.ids))))

    # ---- workers

    @precondition(RelayMachine.has_placed)
    @rule(data=st.data())
    def worker_starts(self, data: st.DataObject) -> None:
        worker = self.pick(data, self.placed())
        if worker.started < len(worker.ring):
            self.start(worker, 1)

    @precondition(RelayMachine.has_placed)
    @rule(
        data=st.data(),
        status=st.sampled_from([OK, OK, OK, FAILED, CANCELLED]),
        size=st.sampled_from([0, 30, 200]),
        run_us=st.sampled_from([0, 10, 60, 5000]),
    )
    def worker_completes(self, data: st.DataObject, status: int, size: int, run_us: int) -> None:
        worker = self.pick(data, self.placed())
        if jobs := self.started_jobs(worker):
            job = self.pick(data, jobs)
            payload = b"" if status == CANCELLED else b"answer to %d" % job.number + b"y" * size
            self.complete(worker, job, status, payload, run_us)

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def worker_releases(self, data: st.DataObject) -> None:
        worker = self.pick(data, list(self.workers.values()))
        if worker.released < worker.started:
            self.release(worker, 1)

    @precondition(RelayMachine.has_placed)
    @rule(data=st.data(), run_us=st.sampled_from([0, 10, 60]), everybody=st.booleans())
    def worker_serves(self, data: st.DataObject, run_us: int, everybody: bool) -> None:
        for worker in self.placed() if everybody else [self.pick(data, self.placed())]:
            self.serve_all(worker, run_us)
        self.go(0 if run_us == 0 else 1)

    @precondition(lambda self: len(self.workers) < 5)
    @rule(role=st.sampled_from(["red", "red", "blue"]), greets=st.sampled_from([True, True, False]))
    def another_worker(self, role: str, greets: bool) -> None:
        self.worker_comes(role, greets)

    @precondition(lambda self: self.of_state("greeting"))
    @rule()
    def worker_greets(self) -> None:
        self.go(0)
        self.greet(self.of_state("greeting")[0].number)
        self.go(0)

    # ---- what breaks

    @rule(
        what=st.sampled_from(["node", "lie", "worker", "worker at work", "worker at work"]),
        node=st.sampled_from(NODES),
        of=st.sampled_from(["nobody", "twice"]),
        signal=st.sampled_from([0, 9, 11]),
        data=st.data(),
    )
    def something_breaks(
        self, what: str, node: str, of: str, signal: int, data: st.DataObject
    ) -> None:
        busy = self.placed() or list(self.workers.values())
        if what == "node":
            self.node_goes_down(node)
        elif what == "lie" and self.placed():
            self.worker_lies(self.pick(data, self.placed()), of)
        elif busy:
            worker = self.pick(data, busy)
            if what == "worker at work":
                self.start_all(worker)
            self.worker_dies(worker.number, signal)
            if what == "worker at work":  # and another comes in its stead
                self.worker_comes(worker.role.limits.name)

    # ---- the operator

    @precondition(lambda self: self.of_state("ready"))
    @rule(data=st.data())
    def worker_is_drained(self, data: st.DataObject) -> None:
        self.drain(self.pick(data, self.of_state("ready")))

    @rule(role=st.sampled_from(["red", "blue"]), state=st.sampled_from(STATES))
    def role_changes_state(self, role: str, state: RoleState) -> None:
        self.set_role_state(role, state)

    @rule(given=limits("red") | limits("blue"))
    def role_is_configured(self, given: RoleLimits) -> None:
        self.configure(given)

    @rule(on=st.sampled_from([False, False, False, True]))
    def dispatcher_is_held(self, on: bool) -> None:
        self.hold(on)

    @rule(ms=st.sampled_from([0, 0, 1, 10, 60]))
    def time_passes(self, ms: int) -> None:
        self.go(ms)


TestDispatcherAgainstModel = run(DispatcherMachine, examples=120, steps=50)
