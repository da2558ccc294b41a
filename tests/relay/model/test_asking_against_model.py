"""The relay against asking_model.py: submit_async, submit_many, dedupe, orphans."""

from typing import Any

from asking_model import Asking
from dispatcher_model import FAILED, OK, Asked, Caller, RoleState
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule
from relay_machine import NODES, RelayMachine, role_limits, run
from turns_model import Turns

from bridge.etf import Atom, Term
from bridge.fabric.limits import AdmissionLimits, ChoiceLimits, OrderLimits


class AskingTenants(Asking, Turns):
    """A dedupe key is a tenant's own, so tenants ask here too, and take turns."""


class AskingMachine(RelayMachine):
    MODEL = AskingTenants
    model: AskingTenants

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Caller] = []  # callers of asynchronous jobs

    @initialize(depth_max=st.sampled_from([3, 100]), idempotent=st.booleans())
    def begin(self, depth_max: int, idempotent: bool) -> None:
        order, choice = OrderLimits(aging_ms=0), ChoiceLimits(credit_us=30)
        admission = AdmissionLimits(depth_max=depth_max)
        shared: dict[str, Any] = {"order": order, "choice": choice, "idempotent": idempotent}
        roles = [role_limits("red", admission=admission, **shared), role_limits("blue", **shared)]
        self.open(roles, ["red", "red", "blue"])

    # ---- ways of asking

    @rule(
        node=st.sampled_from(NODES),
        role=st.sampled_from(["red", "red", "blue", "none"]),
        timeout_ms=st.sampled_from([None, None, 20]),
        finish=st.booleans(),
        is_async=st.booleans(),
        monitors=st.booleans(),
    )
    def someone_submits(
        self,
        node: str,
        role: str,
        timeout_ms: int | None,
        finish: bool,
        is_async: bool,
        monitors: bool,
    ) -> None:
        payload = self.new_payload()
        asked = Asked(role, payload, timeout_ms=timeout_ms, is_async=is_async, finish=finish)
        caller = self.submit(node, asked, monitors=monitors)
        if is_async:
            self.asked.append(caller)

    @rule(
        node=st.sampled_from(NODES),
        role=st.sampled_from(["red", "red", "red", "none"]),
        sizes=st.lists(st.sampled_from([0, 0, 0, 300, 5000]), max_size=5),
        timeout_ms=st.sampled_from([None, None, 20]),
        retry=st.sampled_from([0, 0, 1]),
        finish=st.booleans(),
        monitors=st.booleans(),
    )
    def someone_submits_many(
        self,
        node: str,
        role: str,
        sizes: list[int],
        timeout_ms: int | None,
        retry: int,
        finish: bool,
        monitors: bool,
    ) -> None:
        caller = self.new_caller(node, monitors)
        asked = Asked(role, b"", timeout_ms=timeout_ms, retry=retry, finish=finish)
        payloads = [self.new_payload(size) for size in sizes]
        many: list[Term] = [*payloads]
        request = (Atom("submit_many"), Atom(role), many, asked.options())
        self.call(caller, request, lambda: self.model.submit_many(caller, asked, payloads))

    @rule(
        node=st.sampled_from(NODES),
        key=st.sampled_from([b"a", b"b"]),
        payload=st.sampled_from([b"work", b"work", b"work", b"work", b"other work"]),
        tenant=st.sampled_from(["", "", "shop"]),
        ttl_ms=st.sampled_from([0, 5, 100]),
        timeout_ms=st.sampled_from([None, None, 20, 60]),
        finish=st.sampled_from([False, False, True]),
        is_async=st.booleans(),
        monitors=st.booleans(),
    )
    def someone_shares(
        self,
        node: str,
        key: bytes,
        payload: bytes,
        tenant: str,
        ttl_ms: int,
        timeout_ms: int | None,
        finish: bool,
        is_async: bool,
        monitors: bool,
    ) -> None:
        asked = Asked(
            "red",
            payload + b" on " + key + b" of " + tenant.encode(),
            timeout_ms=timeout_ms,
            tenant=tenant,
            is_async=is_async,
            finish=finish,
            dedupe=key,
            ttl_ms=ttl_ms,
        )
        caller = self.submit(node, asked, monitors=monitors)
        if is_async:
            self.asked.append(caller)

    # ---- who leaves, who cancels

    @precondition(lambda self: self.callers(True))
    @rule(data=st.data())
    def caller_lets_go(self, data: st.DataObject) -> None:
        caller = data.draw(st.sampled_from(self.callers(True)))
        self.demonitor(caller)

    @precondition(lambda self: self.watches)
    @rule(data=st.data())
    def watched_caller_dies(self, data: st.DataObject) -> None:
        node, process = data.draw(st.sampled_from(sorted(self.watches)))
        self.caller_dies(Caller(node, process, process, False))
        self.watches.pop((node, process), None)

    def callers(self, monitors: bool) -> list[Caller]:
        jobs = [*self.waiting(monitors), *(b.head for b in self.model.batches.values())]
        callers = {job.caller for job in jobs if job.caller.monitors == monitors}
        return sorted(callers, key=lambda caller: caller.ref)

    @precondition(lambda self: self.handles)
    @rule(node=st.sampled_from(NODES), data=st.data())
    def cancel_by_handle(self, node: str, data: st.DataObject) -> None:
        of = data.draw(st.sampled_from(sorted(self.handles)))
        caller, asker = Caller(*of, of[1], True), self.new_caller(node)
        request = (Atom("cancel"), self.handles[of])
        self.call(asker, request, lambda: self.model.cancel_by_handle(asker, caller))

    @precondition(lambda self: self.ids)
    @rule(node=st.sampled_from(NODES), data=st.data())
    def cancel_by_id(self, node: str, data: st.DataObject) -> None:
        self.cancel(node, data.draw(st.sampled_from(sorted(self.ids))))

    @rule(node=st.sampled_from(NODES))
    def list_jobs(self, node: str) -> None:
        asker = self.new_caller(node)
        self.call(asker, (Atom("jobs"), Atom("all")), lambda: self.model.listing(asker))

    @rule(node=st.sampled_from(NODES))
    def node_breaks(self, node: str) -> None:
        self.node_goes_down(node)
        self.watches = {of: watch for of, watch in self.watches.items() if of[0] != node}

    # ---- workers

    @precondition(RelayMachine.has_placed)
    @rule(data=st.data(), status=st.sampled_from([OK, OK, OK, FAILED]))
    def worker_serves_one(self, data: st.DataObject, status: int) -> None:
        self.serve_one(self.pick(data, self.placed()), status=status)

    @precondition(RelayMachine.has_placed)
    @rule(times=st.integers(1, 3))
    def workers_serve(self, times: int) -> None:
        for _ in range(times):
            for worker in self.placed():
                self.serve_all(worker)
            self.go(0)

    @precondition(RelayMachine.has_placed)
    @rule(data=st.data())
    def worker_dies_at_work(self, data: st.DataObject) -> None:
        worker = self.pick(data, self.placed())
        self.start_all(worker)
        self.worker_dies(worker.number)
        self.worker_comes(worker.role.limits.name)

    @rule(state=st.sampled_from([*[RoleState.RUNNING] * 4, RoleState.DRAINING, RoleState.GIVEN_UP]))
    def role_changes_state(self, state: RoleState) -> None:
        self.set_role_state("red", state)

    @rule(ms=st.sampled_from([0, 0, 1, 10, 60]))
    def time_passes(self, ms: int) -> None:
        self.go(ms)


TestAskingAgainstModel = run(AskingMachine, examples=80)
