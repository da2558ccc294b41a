"""The relay against keys_model.py: affinity, order of a key, and workers that come and go."""

from dispatcher_model import Asked
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule
from keys_model import Keys
from relay_machine import NODES, RelayMachine, role_limits, run

from bridge.fabric.limits import ChoiceLimits

KEYS = (None, b"a", b"b", b"c", 7)


class KeysMachine(RelayMachine):
    MODEL = Keys
    model: Keys

    @initialize(ordered=st.booleans(), steal=st.booleans(), credit_us=st.sampled_from([30, 10_000]))
    def begin(self, ordered: bool, steal: bool, credit_us: int) -> None:
        choice = ChoiceLimits(credit_us=credit_us, ordered=ordered, steal=steal)
        self.open([role_limits("red", choice=choice, idempotent=True)], ["red"] * 3)

    @rule(
        node=st.sampled_from(NODES),
        keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=8),
        band=st.sampled_from([0, 2, 2]),
        timeout_ms=st.sampled_from([None, None, None, 20]),
        retry=st.sampled_from([0, 1]),
    )
    def someone_submits(
        self,
        node: str,
        keys: list[bytes | int | None],
        band: int,
        timeout_ms: int | None,
        retry: int,
    ) -> None:
        for key in keys:
            asked = Asked("red", self.new_payload(), band, timeout_ms, retry=retry, key=key)
            self.submit(node, asked)

    @precondition(lambda self: self.waiting())
    @rule(data=st.data())
    def caller_lets_go(self, data: st.DataObject) -> None:
        self.demonitor(self.pick(data, self.waiting()).caller)

    @precondition(RelayMachine.has_placed)
    @rule(data=st.data(), run_us=st.sampled_from([5, 25]))
    def worker_serves_one(self, data: st.DataObject, run_us: int) -> None:
        self.serve_one(self.pick(data, self.placed()), run_us)
        self.go(0)

    @precondition(RelayMachine.has_placed)
    @rule(times=st.integers(1, 4))
    def workers_serve(self, times: int) -> None:
        for _ in range(times):
            for worker in self.placed():
                self.serve_all(worker, run_us=5)
            self.go(0)

    @precondition(lambda self: len(self.of_state("ready")) > 1)
    @rule(data=st.data(), how=st.sampled_from(["idle", "at work", "lies", "drained"]))
    def worker_goes(self, data: st.DataObject, how: str) -> None:
        worker = self.pick(data, self.of_state("ready"))
        if how == "at work":
            self.start_all(worker)
        if how == "lies" and worker.in_flight:
            self.worker_lies(worker, "nobody")
        if how == "drained":
            self.drain(worker)
        else:
            self.worker_dies(worker.number)

    @precondition(lambda self: len(self.workers) < 5)
    @rule()
    def worker_is_hired(self) -> None:
        self.worker_comes("red")

    @rule(ms=st.sampled_from([0, 1, 30]))
    def time_passes(self, ms: int) -> None:
        self.go(ms)


TestKeysAgainstModel = run(KeysMachine, examples=80)
