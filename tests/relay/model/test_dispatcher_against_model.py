"""The relay against a model of the dispatcher (dispatcher_model.py), move by move.

Whatever is submitted, cancelled, lost, drained and suspended, and however workers behave: each
answer that leaves, each request that a worker finds and each figure is what the model says, and
the books are even after every round. MODEL_EXAMPLES=5000 for a long run.
"""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest
from dispatcher_model import (
    BANDS,
    CANCELLED,
    FAILED,
    MS,
    OK,
    Caller,
    Completion,
    Dispatcher,
    Job,
    Role,
    RoleState,
    Said,
    Where,
    Worker,
)
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from still_relay import ALIAS_SEND, DEMONITOR, MONITOR, Peer, Received, StillRelay
from still_relay import Worker as PlayedWorker

from bridge.etf import Atom, Reference, Term
from bridge.fabric.limits import AdmissionLimits, ChoiceLimits, OrderLimits, RoleLimits
from bridge.fabric.structs import reasons

WORKER_READY, WORKER_BROKE, WORKER_ENDED, CONNECTION_LOST = 4, 6, 7, 2
STATES = [*[RoleState.RUNNING] * 6, RoleState.DRAINING, RoleState.GIVEN_UP]
EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "150"))
NODES = ("ada@host", "bob@host")
Numbered = TypeVar("Numbered", Job, Worker)
SLOTS = 4


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


def plain(reply: Term) -> tuple[object, ...]:
    """An answer as the model says it."""
    if reply == Atom("ok"):
        return ("ok",)
    assert isinstance(reply, tuple)
    kind, value = reply
    if kind == Atom("ok"):
        if isinstance(value, list):
            return ("jobs", frozenset(listed(job) for job in value))
        return ("ok", value)
    assert kind == Atom("error"), reply
    if isinstance(value, Atom):
        return ("error", str(value))
    assert isinstance(value, tuple)
    match str(value[0]), value[1:]:
        case "overloaded", (dict() as hint,):
            assert 1 <= hint[Atom("retry_after_ms")] <= 10_000
            return ("error", "overloaded")
        case "bad_request", _:
            return ("error", "bad_request")
        case "worker_crashed", (dict() as m,):
            how = (none(m[Atom("status")]), none(m[Atom("signal")]))
            return ("error", "worker_crashed", m[Atom("worker")], *how)
        case reason, more:
            return ("error", reason, *(str(m) if isinstance(m, Atom) else m for m in more))


def none(value: Term) -> Term:
    return None if value == Atom("nil") else value


def listed(job: Term) -> tuple[object, ...]:
    assert isinstance(job, dict)
    state = job[Atom("state")]
    return (job[Atom("job")] >> 20, str(state), none(job[Atom("worker")]))


class RelayAgainstModel(RuleBasedStateMachine):
    """Rules put moves together; `go` makes the round in which they are heard."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 10_000 * MS
        self.relay = StillRelay(now=self.now)
        self.model = Dispatcher()
        self.peers: dict[str, Peer] = {}
        self.played: dict[int, PlayedWorker] = {}
        self.workers: dict[int, Worker] = {}
        self.ids: dict[int, int] = {}  # job id by its number
        self.watches: dict[tuple[str, int], Reference] = {}
        self.calls = 0
        self.pending: list[Callable[[], None]] = []  # what the model is to hear in this round
        self.source = ""  # signals of one node, or the end or greeting of workers
        self.expect_events: Counter[tuple[int, int]] = Counter()

    @initialize(red=limits("red"), blue=limits("blue"))
    def begin(self, red: RoleLimits, blue: RoleLimits) -> None:
        for index, role in enumerate((red, blue)):
            assert self.relay.add_role(role) == index
            self.model.roles[role.name] = Role(role)
        for node in NODES:
            self.connect(node)
        self.hire("red")
        self.hire("red")
        self.hire("blue")
        for number in list(self.workers):
            self.greet(number)
        self.go(1)

    def connect(self, node: str) -> None:
        self.peers[node] = self.relay.connect(node)

    def hire(self, role: str) -> None:
        index = list(self.model.roles).index(role)
        played = self.relay.hire(index, slots=SLOTS)
        worker = Worker(played.number, self.model.roles[role], SLOTS)
        worker.role.workers.append(worker)
        self.played[played.number], self.workers[played.number] = played, worker

    def greet(self, number: int) -> None:
        self.hear("workers", lambda: self.model.greeted(self.workers[number]))
        self.played[number].greet(self.workers[number].role.limits.name)
        self.expect_events[WORKER_READY, number] += 1

    def hear(self, source: str, move: Callable[[], None]) -> None:
        """No rule says in which order signals of two nodes, or of one and a worker, are heard."""
        if self.source not in ("", source):
            self.go(0)
        self.source = source
        self.pending.append(move)

    def pick(self, data: st.DataObject, among: Sequence[Numbered]) -> Numbered:
        """One of them, which a failing example names by its number."""
        number = data.draw(st.sampled_from([each.number for each in among]))
        return next(each for each in among if each.number == number)

    # ---- calls

    def new_caller(self, node: str, monitors: bool) -> Caller:
        self.calls += 1
        return Caller(node, self.calls, self.calls, monitors)

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
    def submit(
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
        self.submit_one(node, role, band, timeout_ms, size, monitors, as_map, retry)

    def submit_one(
        self,
        node: str,
        role: str,
        band: int,
        timeout_ms: int | None = None,
        size: int = 0,
        monitors: bool = True,
        as_map: bool = True,
        retry: int = 0,
    ) -> None:
        caller = self.new_caller(node, monitors)
        payload = b"%d." % caller.ref + b"x" * size
        opcode = caller.ref % 1000
        options: dict[Atom, Term] = {
            Atom("priority"): Atom(BANDS[band]),
            Atom("opcode"): opcode,
        }
        if retry:
            options[Atom("retry")] = retry
        if timeout_ms is not None:
            options[Atom("timeout")] = timeout_ms
        opts: Term = options if as_map else list(options.items())
        self.hear(
            node,
            lambda: self.model.submit(
                caller, role, payload, band=band, timeout_ms=timeout_ms, opcode=opcode, retry=retry
            ),
        )
        peer = self.peers[node]
        if monitors:
            peer.monitor(caller.process, caller.ref)
        peer.call(caller.process, caller.ref, (Atom("submit"), Atom(role), payload, opts))

    @rule(
        node=st.sampled_from(NODES),
        role=st.sampled_from(["red", "red", "blue"]),
        bands=st.lists(st.integers(0, 3), min_size=2, max_size=8),
        retry=st.sampled_from([0, 1]),
    )
    def submit_many_at_once(self, node: str, role: str, bands: list[int], retry: int) -> None:
        for band in bands:
            self.submit_one(node, role, band, retry=retry)

    def waiting(self, monitors: bool | None = None) -> list[Job]:
        jobs = self.model.jobs.values()
        return [j for j in jobs if monitors is None or j.caller.monitors == monitors]

    @precondition(lambda self: self.waiting(True))
    @rule(data=st.data())
    def caller_lets_go(self, data: st.DataObject) -> None:
        self.demonitor(self.pick(data, self.waiting(True)).caller)

    def demonitor(self, caller: Caller) -> None:
        self.hear(caller.node, lambda: self.model.caller_gone(caller.node, caller.ref))
        self.peers[caller.node].demonitor(caller.process, caller.ref)

    @precondition(lambda self: self.waiting(False))
    @rule(data=st.data())
    def watched_caller_dies(self, data: st.DataObject) -> None:
        caller = self.pick(data, self.waiting(False)).caller
        if watch := self.watches.get((caller.node, caller.ref)):
            self.hear(caller.node, lambda: self.model.caller_died(caller.node, caller.ref))
            self.peers[caller.node].down(caller.process, watch)

    @rule(node=st.sampled_from(NODES))
    def list_jobs(self, node: str) -> None:
        asker = self.new_caller(node, True)
        self.hear(node, lambda: self.model.listing(asker))
        self.peers[node].call(asker.process, asker.ref, (Atom("jobs"), Atom("all")))

    @precondition(lambda self: self.ids)
    @rule(node=st.sampled_from(NODES), data=st.data())
    def cancel_by_id(self, node: str, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.ids)))
        asker = self.new_caller(node, True)
        self.hear(node, lambda: self.model.cancel(asker, number))
        self.peers[node].call(asker.process, asker.ref, (Atom("cancel"), self.ids[number]))

    def node_goes_down(self, node: str) -> None:
        self.go(0)  # the end of a connection is read after what came before it
        self.hear(node, lambda: self.model.node_down(node))
        self.peers[node].close()
        self.expect_events[CONNECTION_LOST, 0] += 1
        self.go(0)
        self.connect(node)
        self.go(0)  # a descriptor that a note brings is looked at from the next round on

    # ---- workers

    def placed(self) -> list[Worker]:
        return [w for w in self.workers.values() if w.in_flight and w.state != "fenced"]

    def started_jobs(self, worker: Worker) -> list[Job]:
        """Those that it may complete: entered, and not yet completed by it."""
        done = {c.job for c in worker.completions}
        entered = worker.ring[: worker.started]
        return [job for job in entered if job is not None and job not in done]

    @precondition(placed)
    @rule(data=st.data())
    def worker_starts(self, data: st.DataObject) -> None:
        worker = self.pick(data, self.placed())
        if worker.started < len(worker.ring):
            worker.started += 1
            self.played[worker.number].start(worker.started - worker.released)

    @precondition(placed)
    @rule(
        data=st.data(),
        status=st.sampled_from([OK, OK, OK, FAILED, CANCELLED]),
        size=st.sampled_from([0, 30, 200]),
        run_us=st.sampled_from([0, 10, 60, 5000]),
    )
    def worker_completes(self, data: st.DataObject, status: int, size: int, run_us: int) -> None:
        worker = self.pick(data, self.placed())
        jobs = self.started_jobs(worker)
        if not jobs:
            return
        job = self.pick(data, jobs)
        payload = b"" if status == CANCELLED else b"answer to %d" % job.number + b"y" * size
        worker.completions.append(Completion(job, status, payload, run_us * 1000))
        self.played[worker.number].complete(self.ids[job.number], status, payload, run_us * 1000)

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def worker_releases(self, data: st.DataObject) -> None:
        worker = self.pick(data, list(self.workers.values()))
        if worker.released < worker.started:
            self.played[worker.number].release(1)
            worker.released += 1

    @precondition(placed)
    @rule(data=st.data(), run_us=st.sampled_from([0, 10, 60]), everybody=st.booleans())
    def worker_serves(self, data: st.DataObject, run_us: int, everybody: bool) -> None:
        """Everything that it has, quickly: it is trusted with more at once."""
        for worker in self.placed() if everybody else [self.pick(data, self.placed())]:
            self.serve_all(worker, run_us)
        self.go(0 if run_us == 0 else 1)

    def serve_all(self, worker: Worker, run_us: int) -> None:
        worker.started = len(worker.ring)
        self.played[worker.number].start(worker.started - worker.released)
        for job in self.started_jobs(worker):
            worker.completions.append(Completion(job, OK, b"", run_us * 1000))
            self.played[worker.number].complete(self.ids[job.number], OK, b"", run_us * 1000)
        self.played[worker.number].release(worker.started - worker.released)
        worker.released = worker.started

    def worker_lies(self, worker: Worker, of: str) -> None:
        job_id = 0xDEAD << 20
        if of == "twice" and worker.completions and (job := worker.completions[-1].job):
            job_id = self.ids[job.number]
        worker.completions.append(Completion(None, OK, b"", 0))
        self.played[worker.number].complete(job_id, OK, b"", 0)
        self.expect_events[WORKER_BROKE, worker.number] += 1
        self.go(0)

    def worker_dies(self, number: int, signal: int) -> None:
        if self.source != "workers":
            self.go(0)
        worker = self.workers.pop(number)
        how = (None, signal) if signal else (3, None)
        self.hear("workers", lambda: self.model.died(worker, *how))
        self.played.pop(number).die(*(-1 if signal else 3, signal))
        self.expect_events[WORKER_ENDED, number] += 1
        self.go(0)

    @precondition(lambda self: len(self.workers) < 5)
    @rule(role=st.sampled_from(["red", "red", "blue"]), greets=st.sampled_from([True, True, False]))
    def another_worker(self, role: str, greets: bool) -> None:
        self.worker_comes(role, greets)

    def worker_comes(self, role: str, greets: bool) -> None:
        self.hire(role)
        self.go(0)
        if greets:
            self.greet(max(self.workers))
            self.go(0)

    @precondition(lambda self: any(w.state == "greeting" for w in self.workers.values()))
    @rule()
    def worker_greets(self) -> None:
        self.go(0)
        self.greet(next(n for n, w in self.workers.items() if w.state == "greeting"))
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
                worker.started = len(worker.ring)
                self.played[worker.number].start(worker.started - worker.released)
            self.worker_dies(worker.number, signal)
            if what == "worker at work":  # and another comes in its stead
                self.worker_comes(worker.role.limits.name, greets=True)

    # ---- the operator

    @precondition(lambda self: any(w.state == "ready" for w in self.workers.values()))
    @rule(data=st.data())
    def worker_is_drained(self, data: st.DataObject) -> None:
        ready = [w for w in self.workers.values() if w.state == "ready"]
        worker = self.pick(data, ready)
        self.note(lambda: self.model.drain(worker))
        self.relay.drain(self.played[worker.number])
        self.go(0)
        assert self.played[worker.number].is_draining()

    def note(self, move: Callable[[], None]) -> None:
        """Notes are heard before signals: what was sent before them is heard first."""
        self.go(0)
        self.pending.append(move)

    @rule(role=st.sampled_from(["red", "blue"]), state=st.sampled_from(STATES))
    def role_changes_state(self, role: str, state: RoleState) -> None:
        index = list(self.model.roles).index(role)
        self.note(lambda: self.model.set_role_state(self.model.roles[role], state))
        self.relay.set_role_state(index, state)

    @rule(given=limits("red") | limits("blue"))
    def role_is_configured(self, given: RoleLimits) -> None:
        index = list(self.model.roles).index(given.name)
        self.note(lambda: self.model.configure(self.model.roles[given.name], given))
        self.relay.configure_role(index, given)

    @rule(on=st.sampled_from([False, False, False, True]))
    def dispatcher_is_held(self, on: bool) -> None:
        def held() -> None:
            self.model.held = on

        self.note(held)
        self.relay.hold(on)

    # ---- time

    @rule(ms=st.sampled_from([0, 0, 1, 10, 60]))
    def time_passes(self, ms: int) -> None:
        self.go(ms)

    def go(self, ms: int) -> None:
        """One round: what the relay says and does in it is what the model says."""
        self.now += ms * MS
        self.relay.round(self.now)
        seen = self.look_at_rings()
        self.model.now = self.now
        self.model.said.clear()
        moves, self.pending, self.source = self.pending, [], ""
        for move in moves:
            move()
        self.model.end_overdue()
        self.model.place(seen)
        self.model.take_completions()
        self.model.place(seen)
        self.model.end_lost()
        self.compare()

    def look_at_rings(self) -> dict[bytes, list[int]]:
        """To which workers each payload came in this round, in the order of their numbers; and the
        ids of jobs, by which they complete them.
        """
        seen: dict[bytes, list[int]] = {}
        for number, played in self.played.items():
            worker = self.workers[number]
            for request in played.requests()[len(worker.ring) - worker.released :]:
                seen.setdefault(request.payload, []).append(number)
                self.ids[request.job >> 20] = request.job
        return seen

    def compare(self) -> None:
        heard = Counter(said for peer in self.peers.values() for said in self.heard(peer))
        assert heard == Counter(self.model.said)
        for number, worker in self.workers.items():
            self.compare_ring(worker, self.played[number])
        stats = self.relay.stats()
        assert stats["accepted"] == self.model.accepted
        assert stats["in_flight"] == len(self.model.jobs)
        assert stats["answered"] == [self.model.answered[reason] for reason in reasons()]
        assert stats["refused"] == [self.model.refused[reason] for reason in reasons()]
        self.expect_events -= Counter(self.relay.events())
        assert not self.expect_events
        self.relay.audit()

    def compare_ring(self, worker: Worker, played: PlayedWorker) -> None:
        if worker.state == "fenced":
            return
        requests = played.requests()
        for job, request in zip(worker.ring[worker.released :], requests, strict=True):
            if job is None:
                continue
            assert request.payload == job.payload
            assert request.opcode == job.opcode
            assert request.deadline_ns == job.deadline
            assert request.job == self.ids[job.number]
            assert request.cancelled == (job.where is Where.ABANDONED)
        if worker.state == "ready" and worker.service_ns:
            assert self.relay.credit(played) == worker.credit

    def heard(self, peer: Peer) -> list[Said]:
        return [said for signal in peer.received() if (said := self.said_by(peer, signal))]

    def said_by(self, peer: Peer, signal: Received) -> Said:
        match signal.control:
            case (op, _, Reference() as alias) if op == ALIAS_SEND:
                assert isinstance(signal.message, tuple)
                _, reply = signal.message
                ref = alias.words[0]
                what = plain(reply)
                if what[0] == "jobs":
                    self.learn_ids(reply)
                return Said(peer.name, ref, what)
            case (op, _, pid, Reference() as watch) if op == MONITOR:
                self.watches[peer.name, pid.id] = watch
                return Said(peer.name, pid.id, ("watch",))
            case (op, _, pid, Reference() as watch) if op == DEMONITOR:
                assert self.watches.pop((peer.name, pid.id)) == watch
                return Said(peer.name, pid.id, ("unwatch",))
        raise AssertionError(f"unexpected: {signal}")

    def learn_ids(self, reply: Term) -> None:
        assert isinstance(reply, tuple)
        for job in reply[1]:
            self.ids[job[Atom("job")] >> 20] = job[Atom("job")]

    def teardown(self) -> None:
        self.relay.close()


# A failing example is made as short as it can be, which takes a while.
TestRelayAgainstModel = pytest.mark.timeout(240)(RelayAgainstModel.TestCase)
TestRelayAgainstModel.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=50, report_multiple_bugs=False
)
