"""What every machine of this directory shares: a relay and its model, side by side.

A machine's rules put moves together, each made in the relay and told to the model; `go` makes the
round in which they are heard, and holds against the model: all that left on every socket, in
order for each caller; every request in every worker's ring; the figures; and the relay's own audit.
MODEL_EXAMPLES=5000 for a long run.
"""

import errno
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, TypeVar, cast

import pytest
from dispatcher_model import (
    MS,
    OK,
    Asked,
    Caller,
    Completion,
    Dispatcher,
    Job,
    Role,
    RoleState,
    Seen,
    Where,
    Worker,
)
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine
from relay_peer import ALIAS_SEND, DEMONITOR, MONITOR, SENT, Peer, Received
from still_relay import Event, StillRelay
from still_relay import Worker as PlayedWorker

from bridge.etf import Atom, Pid, Reference, Term
from bridge.fabric.limits import RoleLimits
from bridge.fabric.structs import reasons

CONNECTION_LOST, WORKER_READY, WORKER_BROKE, WORKER_ENDED, ROLE_GONE = 2, 4, 6, 7, 9
NODES = ("ada@host", "bob@host")
SLOTS = 4
Numbered = TypeVar("Numbered", Job, Worker)
Heard = dict[tuple[str, int], list[tuple[object, ...]]]


def run(machine: type[RuleBasedStateMachine], *, examples: int, steps: int = 40) -> Any:
    """The test case of a machine. A failing example is made short, which takes a while."""
    case = pytest.mark.timeout(240)(machine.TestCase)
    case.settings = settings(
        max_examples=int(os.environ.get("MODEL_EXAMPLES", examples)),
        stateful_step_count=steps,
        report_multiple_bugs=False,
    )
    return case


def role_limits(name: str, **given: Any) -> RoleLimits:
    return RoleLimits(name=name, payload_bytes_max=4096, pool_bytes=1 << 20, **given)


def plain(reply: Term) -> tuple[object, ...]:
    """An answer as a model says it."""
    if isinstance(reply, Atom):
        return (str(reply),)
    assert isinstance(reply, tuple)
    kind, value = reply
    if kind == Atom("ok"):
        if isinstance(value, Reference):
            return ("handle",)
        if isinstance(value, list):
            return ("ok", tuple(listed(v) if isinstance(v, dict) else plain(v) for v in value))
        return ("ok", value)
    assert kind == Atom("error"), reply
    if isinstance(value, Atom):
        return ("error", str(value))
    assert isinstance(value, tuple)
    match str(value[0]), value[1:]:
        case "overloaded" | "circuit_open" as reason, (dict() as hint,):
            assert 1 <= hint[Atom("retry_after_ms")] <= 3_600_000
            return ("error", reason)
        case "bad_request", _:
            return ("error", "bad_request")
        case "worker_crashed", (dict() as m,):
            how = (none(m[Atom("status")]), none(m[Atom("signal")]))
            return ("error", "worker_crashed", m[Atom("worker")], *how)
        case reason, more:
            return ("error", reason, *(str(m) if isinstance(m, Atom) else m for m in more))


def none(value: Term) -> Term:
    return None if value == Atom("nil") else value


def listed(job: dict[Term, Term]) -> tuple[object, ...]:
    state, number = job[Atom("state")], job[Atom("job")]
    assert isinstance(number, int)
    return (number >> 20, str(state), none(job[Atom("worker")]))


class RelayMachine(RuleBasedStateMachine):
    MODEL: ClassVar[type[Dispatcher]] = Dispatcher

    def __init__(self) -> None:
        super().__init__()
        self.now = 10_000 * MS
        self.relay = StillRelay(now=self.now)
        self.model = self.MODEL()
        self.peers: dict[str, Peer] = {}
        self.played: dict[int, PlayedWorker] = {}
        self.workers: dict[int, Worker] = {}
        self.role_numbers: dict[str, int] = {}
        self.ids: dict[int, int] = {}  # job id by its number
        self.watches: dict[tuple[str, int], Reference] = {}
        self.handles: dict[tuple[str, int], Reference] = {}  # of asynchronous jobs, by caller
        self.calls = 0
        self.pending: list[Callable[[], object]] = []  # what the model is to hear in this round
        self.source = ""  # signals of one node, or the end or greeting of workers
        self.expect_events: Counter[tuple[int, int]] = Counter()

    def open(self, roles: Iterable[RoleLimits], workers: Sequence[str]) -> None:
        for role in roles:
            self.add_role(role)
        for node in NODES:
            self.connect(node)
        for role_name in workers:
            self.hire(role_name)
        for number in list(self.workers):
            self.greet(number)
        self.go(1)

    def hear(self, source: str, move: Callable[[], object]) -> None:
        """No rule says in which order signals of two nodes, or of one and a worker, are heard."""
        if self.source not in ("", source):
            self.go(0)
        self.source = source
        self.pending.append(move)

    def note(self, move: Callable[[], object]) -> None:
        """Notes are heard before signals: what was sent before them is heard first."""
        self.go(0)
        self.pending.append(move)

    def pick(self, data: st.DataObject, among: Sequence[Numbered]) -> Numbered:
        """One of them, which a failing example names by its number."""
        number = data.draw(st.sampled_from([each.number for each in among]))
        return next(each for each in among if each.number == number)

    # ---- roles

    def add_role(self, limits: RoleLimits) -> None:
        taken = set(self.role_numbers.values())
        number = next(n for n in range(64) if n not in taken)
        self.role_numbers[limits.name] = number
        self.relay.add_role(number, limits)
        self.model.add_role(Role(limits))

    def remove_role(self, name: str) -> None:
        """Refused while a worker of it lives; else it is unknown, and its number free."""
        self.go(0)
        if self.model.roles[name].workers:
            assert self.relay.remove_role(self.role_numbers[name]) == -errno.EBUSY
            return
        self.note(lambda: self.model.remove_role(name))
        assert self.relay.remove_role(self.role_numbers.pop(name)) == 0
        self.expect_events[ROLE_GONE, 0] += 1
        self.go(0)

    def set_role_state(self, role: str, state: RoleState) -> None:
        self.note(lambda: self.model.set_role_state(self.model.roles[role], state))
        self.relay.set_role_state(self.role_numbers[role], state)

    def configure(self, limits: RoleLimits) -> None:
        self.note(lambda: self.model.configure(self.model.roles[limits.name], limits))
        self.relay.configure_role(self.role_numbers[limits.name], limits)

    def hold(self, on: bool) -> None:
        self.note(lambda: setattr(self.model, "held", on))
        self.relay.hold(on)

    # ---- callers

    def connect(self, node: str) -> None:
        self.peers[node] = self.relay.connect(node)

    def new_caller(self, node: str, monitors: bool = True) -> Caller:
        self.calls += 1
        return Caller(node, self.calls, self.calls, monitors)

    def new_payload(self, size: int = 0) -> bytes:
        """Another one each time, so that a worker's request names its job."""
        self.calls += 1
        return b"%d." % self.calls + b"x" * size

    def call(self, caller: Caller, request: Term, move: Callable[[], object]) -> None:
        self.hear(caller.node, move)
        peer = self.peers[caller.node]
        if caller.monitors:
            peer.monitor(caller.process, caller.ref)
        peer.call(caller.process, caller.ref, request)

    def submit(
        self, node: str, asked: Asked, *, monitors: bool = True, as_map: bool = True
    ) -> Caller:
        caller = self.new_caller(node, monitors)
        options = asked.options()
        opts: Term = options if as_map else [*options.items()]
        verb = "submit_async" if asked.is_async else "submit"
        request = (Atom(verb), Atom(asked.role), asked.payload, opts)
        self.call(caller, request, lambda: self.model.submit(caller, asked))
        return caller

    def waiting(self, monitors: bool | None = None) -> list[Job]:
        jobs = self.model.jobs.values()
        return [j for j in jobs if monitors is None or j.caller.monitors == monitors]

    def demonitor(self, caller: Caller) -> None:
        self.hear(caller.node, lambda: self.model.caller_gone(caller.node, caller.ref))
        self.peers[caller.node].demonitor(caller.process, caller.ref)

    def caller_dies(self, caller: Caller) -> None:
        """One that the relay watches."""
        if watch := self.watches.get((caller.node, caller.ref)):
            self.hear(caller.node, lambda: self.model.caller_died(caller.node, caller.ref))
            self.peers[caller.node].down(caller.process, watch)

    def cancel(self, node: str, number: int) -> None:
        asker = self.new_caller(node)
        request = (Atom("cancel"), self.ids[number])
        self.call(asker, request, lambda: self.model.cancel(asker, number))

    def node_goes_down(self, node: str) -> None:
        self.go(0)  # the end of a connection is read after what came before it
        self.hear(node, lambda: self.model.node_down(node))
        self.peers[node].close()
        self.expect_events[CONNECTION_LOST, 0] += 1
        self.go(0)
        self.connect(node)
        self.go(0)  # a descriptor that a note brings is looked at from the next round on

    # ---- workers

    def hire(self, role: str, slots: int = SLOTS) -> Worker:
        played = self.relay.hire(self.role_numbers[role], slots=slots)
        worker = Worker(played.number, self.model.roles[role], slots)
        worker.role.workers.append(worker)
        self.played[played.number], self.workers[played.number] = played, worker
        return worker

    def greet(self, number: int) -> None:
        self.hear("workers", lambda: self.model.greeted(self.workers[number]))
        self.played[number].greet(self.workers[number].role.limits.name)
        self.expect_events[WORKER_READY, number] += 1

    def worker_comes(self, role: str, greets: bool = True) -> Worker:
        worker = self.hire(role)
        self.go(0)
        if greets:
            self.greet(worker.number)
            self.go(0)
        return worker

    def has_placed(self) -> bool:
        return bool(self.placed())

    def placed(self) -> list[Worker]:
        return [w for w in self.workers.values() if w.in_flight and w.state != "fenced"]

    def of_state(self, state: str) -> list[Worker]:
        return [w for w in self.workers.values() if w.state == state]

    def started_jobs(self, worker: Worker) -> list[Job]:
        """Those that it may complete: entered, and not yet completed by it."""
        done = {c.job for c in worker.completions if c.status <= 2}
        entered = worker.ring[: worker.started]
        return [job for job in entered if job is not None and job not in done]

    def start(self, worker: Worker, count: int) -> None:
        worker.started += count
        self.played[worker.number].start(worker.started - worker.released)

    def start_all(self, worker: Worker) -> None:
        self.start(worker, len(worker.ring) - worker.started)

    def complete(
        self, worker: Worker, job: Job, status: int = OK, payload: bytes = b"", run_us: int = 0
    ) -> None:
        self.publish(worker, Completion(job, status, payload, run_us * 1000))
        played = self.played[worker.number]
        played.complete(self.ids[job.number], status, payload, run_us * 1000)

    def publish(self, worker: Worker, completion: Completion) -> None:
        if worker.rings:
            self.hear("workers", lambda: self.model.rang(worker))
        worker.completions.append(completion)

    def release(self, worker: Worker, count: int) -> None:
        self.played[worker.number].release(count)
        worker.released += count

    def serve_all(self, worker: Worker, run_us: int = 10, status: int = OK) -> None:
        """Everything that it has, quickly: it is trusted with more at once."""
        self.start_all(worker)
        for job in self.started_jobs(worker):
            self.complete(worker, job, status, b"", run_us)
        self.release(worker, worker.started - worker.released)

    def serve_one(self, worker: Worker, run_us: int = 10, status: int = OK) -> None:
        """The first of what it has, if it has not done all of it."""
        if worker.started < len(worker.ring):
            self.start(worker, 1)
            if (job := worker.ring[worker.started - 1]) is not None:
                self.complete(worker, job, status, b"", run_us)
        self.release(worker, worker.started - worker.released)

    def worker_lies(self, worker: Worker, of: str) -> None:
        job_id = 0xDEAD << 20
        if of == "twice" and worker.completions and (job := worker.completions[-1].job):
            job_id = self.ids[job.number]
        self.publish(worker, Completion(None, OK, b"", 0))
        self.played[worker.number].complete(job_id, OK, b"", 0)
        self.expect_events[WORKER_BROKE, worker.number] += 1
        self.go(0)

    def worker_dies(self, number: int, signal: int = 9) -> None:
        if self.source != "workers":
            self.go(0)
        worker = self.workers.pop(number)
        how = (None, signal) if signal else (3, None)
        self.hear("workers", lambda: self.model.died(worker, *how))
        self.played.pop(number).die(*(-1 if signal else 3, signal))
        self.expect_events[WORKER_ENDED, number] += 1
        self.go(0)

    def drain(self, worker: Worker) -> None:
        self.note(lambda: self.model.drain(worker))
        self.relay.drain(self.played[worker.number])
        self.go(0)
        assert self.played[worker.number].is_draining()

    # ---- a round

    def go(self, ms: int) -> None:
        """One round: what the relay says and does in it is what the model says."""
        self.now += ms * MS
        self.relay.round(self.now)
        seen, heard = self.look_at_rings(), self.look_at_sockets()
        self.model.now = self.now
        self.model.said.clear()
        self.model.heard = heard
        moves, self.pending, self.source = self.pending, [], ""
        for move in moves:
            move()
        self.model.round(seen)
        assert not any(seen.values()), f"given, but by no rule: {seen}"
        self.compare(heard)

    def look_at_rings(self) -> Seen:
        """What came to each worker; and the ids of jobs, by which they complete them."""
        seen: Seen = {}
        for number, played in self.played.items():
            worker = self.workers[number]
            came = played.requests()[len(worker.ring) - worker.released :]
            seen[number] = [request.payload for request in came]
            self.ids.update((request.job >> 20, request.job) for request in came)
        return seen

    def look_at_sockets(self) -> Heard:
        """What each caller was told, in its order."""
        heard: Heard = defaultdict(list)
        for peer in self.peers.values():
            for signal in peer.received():
                process, what = self.said_by(peer, signal)
                heard[peer.name, process].append(what)
        return heard

    def compare(self, heard: Heard) -> None:
        said: Heard = defaultdict(list)
        for each in self.model.said:
            said[each.node, each.ref].append(each.what)
        assert heard == said, f"heard {dict(heard)}, not {dict(said)}"
        for number, worker in self.workers.items():
            self.compare_ring(worker, self.played[number])
        stats = self.relay.stats()
        assert stats["accepted"] == self.model.accepted
        assert stats["in_flight"] == len(self.model.jobs)
        assert stats["answered"] == [self.model.answered[reason] for reason in reasons()]
        assert stats["refused"] == [self.model.refused[reason] for reason in reasons()]
        self.compare_events(self.relay.events())
        self.relay.audit()

    def compare_events(self, events: Iterable[Event]) -> None:
        assert Counter((e.kind, e.worker) for e in events if self.is_told(e)) == self.expect_events
        self.expect_events.clear()

    def is_told(self, event: Event) -> bool:
        """Events that no rule of this machine foresees are not looked at: jobs lost, and..."""
        return event.kind in (CONNECTION_LOST, WORKER_READY, WORKER_BROKE, WORKER_ENDED, ROLE_GONE)

    def compare_ring(self, worker: Worker, played: PlayedWorker) -> None:
        if worker.state == "fenced":
            return
        requests = played.requests()
        for job, request in zip(worker.ring[worker.released :], requests, strict=True):
            if job is None:
                continue
            assert request.payload == job.payload
            assert request.opcode == job.asked.opcode
            assert request.deadline_ns == job.deadline
            assert request.job == self.ids[job.number]
            assert request.cancelled == (job.where is Where.ABANDONED)
        if worker.state == "ready" and worker.service_ns:
            assert self.relay.credit(played) == worker.credit

    def said_by(self, peer: Peer, signal: Received) -> tuple[int, tuple[object, ...]]:
        match signal.control:
            case (op, _, Reference() as alias) if op == ALIAS_SEND:
                assert isinstance(signal.message, tuple)
                _, reply = signal.message
                self.learn_ids(reply)
                what = plain(reply)
                if what == ("handle",):
                    assert isinstance(reply, tuple)
                    assert isinstance(reply[1], Reference)
                    self.handles[peer.name, alias.words[0]] = reply[1]
                return alias.words[0], what
            case (op, _, Pid() as pid) if op == SENT:
                return self.message_to(peer, pid, signal.message)
            case (op, _, Pid() as pid, Reference() as watch) if op == MONITOR:
                self.watches[peer.name, pid.id] = watch
                return pid.id, ("watch",)
            case (op, _, Pid() as pid, Reference() as watch) if op == DEMONITOR:
                assert self.watches.pop((peer.name, pid.id), watch) == watch
                return pid.id, ("unwatch",)
        raise AssertionError(f"unexpected: {signal}")

    def message_to(self, peer: Peer, pid: Pid, message: Term) -> tuple[int, tuple[object, ...]]:
        """{ringbridge, Ref, Answer}: of an asynchronous job, by the reference that it was given."""
        assert isinstance(message, tuple)
        name, ref, answer = message
        assert name == Atom("ringbridge")
        assert ref == self.handles[peer.name, pid.id]
        return pid.id, ("message", *plain(answer))

    def learn_ids(self, reply: Term) -> None:
        match reply:
            case (_, [dict(), *_] as jobs):
                for job in cast(list[Any], jobs):
                    self.ids[job[Atom("job")] >> 20] = job[Atom("job")]

    def teardown(self) -> None:
        self.relay.close()
