"""The relay against turns_model.py: which tenant is next, in which band, by whatever weights."""

from dispatcher_model import Asked
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule
from relay_machine import NODES, RelayMachine, role_limits, run
from turns_model import Turns

from bridge.fabric.limits import ChoiceLimits, OrderLimits, TenantLimits

TENANTS = ("", "shop", "lab", "press")


class TurnsMachine(RelayMachine):
    MODEL = Turns
    model: Turns

    @initialize(patience_ms=st.sampled_from([0, 30]))
    def begin(self, patience_ms: int) -> None:
        order = OrderLimits(0, patience_ms)
        choice = ChoiceLimits(credit_us=30)
        roles = [role_limits(name, order=order, choice=choice) for name in ("red", "blue")]
        self.open(roles, ["red", "red", "blue"])

    @rule(
        node=st.sampled_from(NODES),
        role=st.sampled_from(["red", "red", "blue"]),
        tenants=st.lists(st.sampled_from(TENANTS), min_size=1, max_size=12),
        band=st.sampled_from([0, 2, 2, 2, 3]),
        timeout_ms=st.sampled_from([None, None, None, 15, 200]),
    )
    def tenants_submit(
        self, node: str, role: str, tenants: list[str], band: int, timeout_ms: int | None
    ) -> None:
        for tenant in tenants:
            asked = Asked(role, self.new_payload(), band, timeout_ms, tenant=tenant)
            self.submit(node, asked)

    @precondition(RelayMachine.has_placed)
    @rule(data=st.data(), times=st.integers(1, 8))
    def workers_serve(self, data: st.DataObject, times: int) -> None:
        for _ in range(times):
            for worker in self.placed():
                self.serve_one(worker, run_us=25)
            self.go(0)

    @precondition(RelayMachine.has_placed)
    @rule(data=st.data())
    def worker_dies_idle(self, data: st.DataObject) -> None:
        """What it had comes back, and pays for another turn."""
        worker = self.pick(data, self.placed())
        self.worker_dies(worker.number)
        self.worker_comes(worker.role.limits.name)

    @precondition(lambda self: self.waiting())
    @rule(data=st.data())
    def caller_lets_go(self, data: st.DataObject) -> None:
        self.demonitor(self.pick(data, self.waiting()).caller)

    @rule(tenant=st.sampled_from(TENANTS[1:]), weight=st.none() | st.sampled_from([1, 7, 30]))
    def tenant_is_weighed(self, tenant: str, weight: int | None) -> None:
        self.note(lambda: self.model.weigh(tenant, weight))
        self.relay.configure_tenant(tenant, TenantLimits(weight) if weight else None)

    @rule(ms=st.sampled_from([0, 1, 10, 30]))
    def time_passes(self, ms: int) -> None:
        self.go(ms)


TestTurnsAgainstModel = run(TurnsMachine, examples=60)
