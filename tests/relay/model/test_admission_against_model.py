"""The relay against admission_model.py: depths, rates, and what becomes of who breaks one."""

from admission_model import Admission
from dispatcher_model import Asked
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule
from relay_machine import NODES, RelayMachine, role_limits, run
from turns_model import Turns

from bridge.fabric.limits import (
    AccountKind,
    AdmissionLimits,
    AllowanceLimits,
    ChoiceLimits,
    OrderLimits,
    RateLimits,
)
from bridge.fabric.structs import rules

rates = st.sampled_from(
    [
        RateLimits(),
        RateLimits(),
        RateLimits("token_bucket", jobs=2, per_ms=10, burst=3),
        RateLimits("leaky_bucket", jobs=3, per_ms=10, burst=2),
        RateLimits("sliding_window", jobs=3, per_ms=16),
    ]
)
allowances = st.builds(AllowanceLimits, depth_max=st.sampled_from([0, 0, 3]), rate=rates)
admissions = st.builds(
    AdmissionLimits,
    depth_max=st.sampled_from([2, 5, 100]),
    node_depth_max=st.sampled_from([0, 0, 2]),
    tenant_depth_max=st.sampled_from([0, 0, 2]),
    on_full=st.sampled_from(["reject", "drop_oldest", "defer", "defer"]),
    defer_max=st.sampled_from([2, 100]),
    defer_ms=st.sampled_from([5, 1000]),
    rate=rates,
)


class AdmissionOfTenants(Admission, Turns):
    """Tenants have depths and rates, and take turns."""


class AdmissionMachine(RelayMachine):
    MODEL = AdmissionOfTenants
    model: AdmissionOfTenants

    @initialize(red=admissions, blue=admissions, ada=allowances, others=allowances, shop=allowances)
    def begin(
        self,
        red: AdmissionLimits,
        blue: AdmissionLimits,
        ada: AllowanceLimits,
        others: AllowanceLimits,
        shop: AllowanceLimits,
    ) -> None:
        order, choice = OrderLimits(aging_ms=0), ChoiceLimits(credit_us=30)
        allowed = {("node", "ada@host"): ada, ("node", ""): others, ("tenant", "shop"): shop}
        self.model.allowances = allowed
        for (kind, name), given in allowed.items():
            self.relay.configure_allowance(AccountKind[kind.upper()], name, given)
        roles = [
            role_limits(name, order=order, choice=choice, admission=admission)
            for name, admission in (("red", red), ("blue", blue))
        ]
        self.open(roles, ["red", "blue"])

    @rule(
        node=st.sampled_from(NODES),
        role=st.sampled_from(["red", "red", "blue"]),
        tenants=st.lists(st.sampled_from(["", "shop", "lab"]), min_size=1, max_size=6),
        band=st.sampled_from([1, 2, 2]),
        timeout_ms=st.sampled_from([None, None, 20]),
    )
    def they_submit(
        self, node: str, role: str, tenants: list[str], band: int, timeout_ms: int | None
    ) -> None:
        for tenant in tenants:
            self.submit(node, Asked(role, self.new_payload(), band, timeout_ms, tenant=tenant))

    @precondition(RelayMachine.has_placed)
    @rule(times=st.integers(1, 3))
    def workers_serve(self, times: int) -> None:
        for _ in range(times):
            for worker in self.placed():
                self.serve_one(worker, run_us=25)
            self.go(0)

    @precondition(lambda self: self.waiting())
    @rule(data=st.data())
    def caller_lets_go(self, data: st.DataObject) -> None:
        self.demonitor(self.pick(data, self.waiting()).caller)

    @rule(node=st.sampled_from(NODES))
    def node_breaks(self, node: str) -> None:
        self.node_goes_down(node)

    @rule(ms=st.sampled_from([0, 1, 1, 3, 5, 20]))
    def time_passes(self, ms: int) -> None:
        self.go(ms)

    def go(self, ms: int) -> None:
        super().go(ms)
        told = self.relay.stats()["overloaded_by"]
        assert told == [self.model.overloaded_by[rule] for rule in rules()]


TestAdmissionAgainstModel = run(AdmissionMachine, examples=80)
