"""WorkerRegistry: answers what workers there are, and takes what changes or stops them.

Requests (GenServer.call to Ringbridge.WorkerRegistry or worker_registry):

    :list                        {:ok, [worker]}   a map per worker, see `describe`
    {:lookup, role}              {:ok, map}        the role and its workers; role: atom or binary
    :stats                       {:ok, map}        how many workers are in which state, restarts
    :layout                      {:ok, map}        version and digest of csrc/layout.toml
    :watch                       {:ok, ref, [worker]}   changes come as messages, see watching.py
    {:watch, pid}                the same           to this process of the caller's node
    :unwatch, {:unwatch, pid}    :ok               no more of them
    {:drain, id}                 :ok               finishes what it has, then stays ended
    {:restart, id}               :ok               the same, then starts again; also if given up
    {:scale, role, n}            {:ok, [change]}   so many workers; the file stays as it is
    :crash_reports               {:ok, [map]}      of the last lives that went wrong, newest first
    {:crash_report, id}          {:ok, map}        one of them, with what the worker wrote last
    {:drain_role, role}          :ok               no new jobs; what waits and runs is finished
    {:resume_role, role}         :ok               it takes jobs again
    :drain_node, :resume_node    :ok               the same of all roles
    :reload                      {:ok, [change]}   the file is read again, and the certificates
    {:configure, key, value}     {:ok, [change]}   one key, "roles.echo.depth_max"; nil: its default
    {:upgrade, role}             {:ok, map}        its workers are replaced, one after the other;
    {:upgrade, role, command}                      {:lookup, role} shows how far that is
    {:breaker, role | id, how}   :ok               how: :open, :close or :auto
    {:record, :status | :stop}   {:ok, map}        the recording that `serve --record` began
    {:checkpoint, id}            {:ok, map}        its state is saved, once it is
    {:move_state, from, to, how} {:ok, map}        how: :stop_and_copy, :pre_copy or :post_copy
    {:chaos, id, hook, v, jobs}  {:ok, map}        trouble on purpose, see docs/chaos.md

All from {:drain, id} on are for nodes that [node] admin_nodes names, see `operation`.
Anything else is {:error, {:bad_request, why}}, and so is what is refused; it changes nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import Any, Protocol

from bridge.config import ConfigError
from bridge.config.ops import OpSettings
from bridge.etf import Atom, Pid, brief
from bridge.fabric.events import Operation
from bridge.fabric.figures import BreakerState
from bridge.fabric.layout import LAYOUT_DIGEST_HEX, LAYOUT_VERSION
from bridge.node import NO_REPLY, NoReply, Sender
from bridge.ops.answers import OK, Answering, BadRequest, Term, atom_keys, bad_request
from bridge.workers.checkpoints.requests import StateRequests
from bridge.workers.crash_reports import REPORTS_MAX
from bridge.workers.port_supervisor import PortSupervisor
from bridge.workers.watching import Watching
from bridge.workers.wishes import Wanted
from bridge.workers.worker import State, Worker

NAMES = ("Elixir.Ringbridge.WorkerRegistry", "worker_registry")
SETTING_DEPTH_MAX = 8
SETTING_MAX = 2**63 - 1  # as in TOML
LOOKS = ":list, {:lookup, role}, :stats, :layout, :watch and :unwatch"
# Name, number of elements (0: the atom alone), and how it is spelt.
OPERATIONS = {
    ("drain", 2): "{:drain, id}",
    ("restart", 2): "{:restart, id}",
    ("scale", 3): "{:scale, role, n}",
    ("crash_reports", 0): ":crash_reports",
    ("crash_report", 2): "{:crash_report, id}",
    ("drain_role", 2): "{:drain_role, role}",
    ("resume_role", 2): "{:resume_role, role}",
    ("drain_node", 0): ":drain_node",
    ("resume_node", 0): ":resume_node",
    ("reload", 0): ":reload",
    ("configure", 3): "{:configure, key, value}",
    ("upgrade", 2): "{:upgrade, role}",
    ("upgrade", 3): "{:upgrade, role, command}",
    ("breaker", 3): "{:breaker, role_or_id, how}",
    ("attach", 2): "{:attach, role}",
    ("record", 2): "{:record, :status | :stop}",
    ("checkpoint", 2): "{:checkpoint, id}",
    ("move_state", 4): "{:move_state, from, to, how}",
    ("chaos", 5): "{:chaos, id, hook, value, jobs}",
}


def operation(request: Term) -> str | None:
    """The words for a request that changes or stops things, or None."""
    match request:
        case Atom(name):
            return OPERATIONS.get((name, 0))
        case (Atom(name), *_):
            return OPERATIONS.get((name, len(request)))
    return None


class Operator(Protocol):
    """Who carries out what changes things: bridge/operating.py. Raises ConfigError."""

    def reload(self) -> list[Term]: ...
    def configure(self, key: str, value: Any) -> list[Term]: ...
    def scale(self, role: str, workers: int) -> list[Term]: ...
    def upgrade(self, role: str, command: Sequence[str] | None) -> Term: ...
    def describe_upgrade(self, role: str) -> Term: ...
    def close_role(self, role: str, closed: bool) -> None: ...
    def close_node(self, closed: bool) -> None: ...
    def force_breaker(self, target: str | int, how: str) -> None: ...
    def attach(self, role: str) -> Term: ...
    def record(self, how: str) -> Term: ...


class WorkerFigures(Protocol):
    """What the relay counts about one worker."""

    @property
    def in_flight(self) -> int: ...
    @property
    def done(self) -> int: ...
    @property
    def lost(self) -> int: ...
    @property
    def credit(self) -> int: ...
    @property
    def service_ns(self) -> int: ...
    @property
    def breaker(self) -> BreakerState: ...
    @property
    def heartbeat_ns(self) -> int: ...
    @property
    def failed(self) -> int: ...
    @property
    def run_ns(self) -> int: ...
    @property
    def pulses(self) -> int: ...
    @property
    def still_ns(self) -> int: ...
    @property
    def last_code(self) -> int: ...
    @property
    def ring_queued(self) -> int: ...
    @property
    def unready(self) -> int: ...
    @property
    def placed(self) -> int: ...
    @property
    def begun(self) -> int: ...


class WorkerRegistry(Answering):
    """The answers; it keeps nothing of its own. `figures`: the relay's counters of a worker id."""

    module = "Ringbridge.WorkerRegistry"

    def __init__(
        self,
        supervisor: PortSupervisor,
        *,
        figures: Callable[[int], WorkerFigures | None],
        operator: Operator,
        state_requests: StateRequests | None = None,
    ) -> None:
        self._state_requests = state_requests
        self._supervisor = supervisor
        self._figures = figures
        self._operator = operator
        self._watching: Watching | None = None

    async def init(self) -> None:
        await super().init()
        self._watching = Watching(self.node)
        self._supervisor.observers.append(self._changed)

    async def terminate(self, reason: Term) -> None:
        if self._watching is not None:
            self._supervisor.observers.remove(self._changed)
            self._watching.end_all()
        await super().terminate(reason)

    async def handle_call(self, request: Term, sender: Sender) -> Term | NoReply:
        match request:
            case Atom("watch"):
                return self._answered(self._watch, sender.pid, sender)
            case (Atom("watch"), Pid() as watcher):
                return self._answered(self._watch, watcher, sender)
            case Atom("unwatch"):
                return self._answered(self._unwatch, sender.pid, sender)
            case (Atom("unwatch"), Pid() as watcher):
                return self._answered(self._unwatch, watcher, sender)
        try:
            if self._state_requests and self._state_requests.begin(
                request, self._worker, partial(self.reply, sender)
            ):
                return NO_REPLY
        except BadRequest as error:
            return bad_request(str(error))
        return self.answer_any(request)

    async def handle_info(self, message: Term) -> None:
        match message:
            case (Atom("DOWN"), _, Atom("process"), Pid() as watcher, _) if self._watching:
                self._watching.end(watcher)
            case _:
                await super().handle_info(message)

    def _answered(self, do: Callable[[Pid], Term], watcher: Pid, sender: Sender) -> Term:
        """A process may ask for itself and for others of its node, and for nobody else."""
        if watcher.node != sender.pid.node:
            return bad_request(f"{watcher} is not of the caller's node, {sender.pid.node.name}")
        try:
            return do(watcher)
        except BadRequest as error:
            return bad_request(str(error))

    def _watch(self, watcher: Pid) -> Term:
        assert self._watching is not None
        ref = self._watching.ref_of(watcher)
        if ref is None:
            ref = self._me.monitor(watcher)
            try:
                self._watching.begin(watcher, ref)
            except BadRequest:
                self.demonitor(ref, flush=True)
                raise
        return (OK, ref, self.describe_all())

    def _unwatch(self, watcher: Pid) -> Term:
        assert self._watching is not None
        if (ref := self._watching.end(watcher)) is not None:
            self.demonitor(ref, flush=True)
        return OK

    def _changed(self, worker: Worker) -> None:
        if self._watching:  # and somebody watches
            self._watching.changed(worker.id, self.describe(worker))

    def answer(self, request: Term) -> Term:
        match request:
            case Atom("list"):
                return (OK, self.describe_all())
            case Atom("stats"):
                return (OK, atom_keys(self.statistics()))
            case Atom("layout"):
                return (OK, layout())
            case (Atom("lookup"), role):
                return (OK, self.lookup(role))
            case (Atom("drain"), worker_id):
                self._worker(worker_id).want(Wanted.DRAIN)
                return OK
            case (Atom("restart"), worker_id):
                self._worker(worker_id).want(Wanted.RESTART)
                return OK
        try:
            return self._operate(request)
        except ConfigError as error:
            raise BadRequest(error.words) from error

    def _operate(self, request: Term) -> Term:
        """What changes or stops things."""
        operator = self._operator
        match request:
            case (Atom("scale"), role, int() as workers) if not isinstance(workers, bool):
                return (OK, operator.scale(_role_name(role), workers))
            case Atom("crash_reports"):
                heads = [report.head() for report in self._supervisor.crashes.newest_first()]
                return (OK, [atom_keys(head) for head in heads])
            case (Atom("crash_report"), worker_id):
                return (OK, self._crash_report(worker_id))
            case (Atom("drain_role"), role):
                operator.close_role(_role_name(role), True)
            case (Atom("resume_role"), role):
                operator.close_role(_role_name(role), False)
            case Atom("drain_node"):
                operator.close_node(True)
            case Atom("resume_node"):
                operator.close_node(False)
            case (Atom("breaker"), target, Atom("open" | "close" | "auto" as how)):
                operator.force_breaker(target if type(target) is int else _role_name(target), how)
            case (Atom("attach"), role):
                return (OK, operator.attach(_role_name(role)))
            case (Atom("record"), Atom("status" | "stop" as how)):
                return (OK, operator.record(how))
            case Atom("reload"):
                return (OK, operator.reload())
            case (Atom("configure"), key, value):
                return (OK, operator.configure(_text(key, "a key"), _setting(value)))
            case (Atom("upgrade"), role):
                return (OK, operator.upgrade(_role_name(role), None))
            case (Atom("upgrade"), role, command):
                return (OK, operator.upgrade(_role_name(role), _command(command)))
            case _:
                known = ", ".join(OPERATIONS.values())
                raise BadRequest(f"the WorkerRegistry knows {LOOKS}; {known}; not {brief(request)}")
        return OK

    def describe_all(self) -> list[dict[Term, Term]]:
        """Every worker, in the order of the configuration."""
        return [self.describe(worker) for worker in self._supervisor.workers]

    def lookup(self, role: Term) -> dict[Term, Term]:
        """The role `role` (atom or binary) and its workers. Raises BadRequest."""
        name = _role_name(role)
        plans = {plan.name: plan for plan in self._supervisor.plans}
        if (plan := plans.get(name)) is None:
            raise BadRequest(f"there is no role {name[:80]}; the roles are {', '.join(plans)}")
        state = self._supervisor.role_state(plan.id)
        workers = [self.describe(worker) for worker in self._supervisor.of_role(plan.id)]
        return atom_keys(
            {
                "role": Atom(name),
                "state": Atom(state.name.lower()),
                "strategy": Atom(plan.config.strategy),
                "group": self._supervisor.together.group_name(plan.id),
                "operations": declared_operations(plan.config.ops),
                "layout": layout(),
                "workers": workers,
                "upgrade": self._operator.describe_upgrade(name),
            }
        )

    def statistics(self) -> Mapping[str, Any]:
        workers = self._supervisor.workers
        return {
            "workers": len(workers),
            "states": Counter(worker.state.value for worker in workers),
            "restarts": sum(worker.restarts for worker in workers),
            "watchers": len(self._watching) if self._watching is not None else 0,
            "roles": [Atom(plan.name) for plan in self._supervisor.plans],
        }

    def describe(self, worker: Worker) -> dict[Term, Term]:
        """One worker as a map with atom keys; what is not known (yet) is nil."""
        alive = worker.state in (State.STARTING, State.READY, State.DRAINING)
        figures = self._figures(worker.id) if alive else None
        return atom_keys(
            {
                "id": worker.id,
                "role": Atom(worker.plan.name),
                "index": worker.index,
                "state": Atom(worker.state.value),
                "pid": worker.registration.pid if worker.registration else None,
                "os_pid": worker.os_pid,
                "attached": worker.attached,
                "remote": worker.remote.describe() if worker.remote else None,
                "kit": worker.kit,
                "kit_version": worker.kit_version,
                "layout_version": worker.layout_version,
                "operations": _operations(worker.operations),
                "encodings": [Atom(encoding) for encoding in worker.encodings],
                "link": worker.link and asdict(worker.link),
                "credit": figures.credit if figures else None,
                "in_flight": figures.in_flight if figures else 0,
                "placed": figures.placed if figures else 0,
                "begun": figures.begun if figures else 0,
                "done": figures.done if figures else 0,
                "lost": figures.lost if figures else 0,
                "service_us": figures.service_ns // 1000 if figures else None,
                "restarts": worker.restarts,
                "last_error": worker.last_error,
                "breaker": Atom(figures.breaker.name.lower()) if figures else None,
                "silent_ms": _silent_ms(figures) if figures else None,
                "health": _health(figures) if figures else None,
                "said": worker.conversation.statistics() if worker.conversation else {},
            }
        )

    def _crash_report(self, worker_id: Term) -> Term:
        if type(worker_id) is not int:
            raise BadRequest(f"a worker's id is an integer, not {brief(worker_id)}")
        if (report := self._supervisor.crashes.find(worker_id)) is None:
            raise BadRequest(
                f"there is no crash report of worker {worker_id}; :crash_reports lists the last "
                f"{REPORTS_MAX} lives that went wrong"
            )
        return atom_keys(report.whole())

    def _worker(self, worker_id: Term) -> Worker:
        if type(worker_id) is not int:
            raise BadRequest(f"a worker's id is an integer, not {brief(worker_id)}")
        if (worker := self._supervisor.find(worker_id)) is None:
            raise BadRequest(
                f"no worker has the id {worker_id}; :list and `ringbridge status` show them"
            )
        return worker


def layout() -> Mapping[Term, Term]:
    """What callers with records of their own compare (Ringbridge.LayoutLoader)."""
    return atom_keys({"version": LAYOUT_VERSION, "digest": LAYOUT_DIGEST_HEX})


def declared_operations(ops: Mapping[str, OpSettings]) -> list[Term]:
    """[roles.<name>.ops] as it was declared; an empty list: the role takes every opcode."""
    return [
        {
            **atom_keys({"opcode": op.opcode, "name": name, "version": op.version}),
            # Keys as binaries: a caller's table of atoms is not ours to fill.
            Atom("payload"): _declared(op.payload),
        }
        for name, op in ops.items()
    ]


def _declared(value: Any) -> Term:
    match value:
        case str():
            return value.encode()
        case Mapping():
            return {key.encode(): _declared(item) for key, item in value.items()}
        case list():
            return [_declared(item) for item in value]
    return value


def _operations(declared: Iterable[Operation]) -> list[Term]:
    """As maps; an empty list: it takes every opcode."""
    return [
        atom_keys(
            {"opcode": op.opcode, "name": op.name, "takes": [Atom(word) for word in op.takes]}
        )
        for op in declared
    ]


def _health(figures: WorkerFigures) -> dict[Term, Term]:
    """What its kit says of itself; how long its jobs have shown no sign (docs/health.md)."""
    return atom_keys(
        {
            "ready": not figures.unready,
            "waiting": figures.ring_queued,
            "failed": figures.failed,
            "last_code": figures.last_code,
            "last_run_us": figures.run_ns // 1_000,
            "pulses": figures.pulses,
            "still_ms": figures.still_ns // 1_000_000,
        }
    )


def _silent_ms(figures: WorkerFigures) -> int | None:
    """Since its last heartbeat; None before its first."""
    if not figures.heartbeat_ns:
        return None
    return max(0, time.monotonic_ns() - figures.heartbeat_ns) // 1_000_000


def _role_name(role: Term) -> str:
    return _text(role, "a role")


def _text(term: Term, what: str) -> str:
    match term:
        case Atom(name):
            return str(name)
        case bytes():
            return term.decode("utf-8", "replace")
    raise BadRequest(f"{what} is an atom or a binary, not {brief(term)}")


def _command(command: Term) -> list[str]:
    """As TOML would have it: UTF-8, as logs and status show it, too."""
    if isinstance(command, list) and all(isinstance(part, bytes) for part in command):
        with suppress(UnicodeDecodeError):
            return [part.decode() for part in command]
    raise BadRequest(f"a command is a list of binaries in UTF-8, not {brief(command)}")


def _setting(value: Term, depth: int = SETTING_DEPTH_MAX) -> Any:
    """A term as TOML would have it: binaries and atoms as texts; None for nil, the default."""
    if depth == 0:
        raise BadRequest(f"no setting is more than {SETTING_DEPTH_MAX} lists or maps deep")
    match value:
        case bytes():
            return value.decode("utf-8", "replace")
        case Atom(name):
            return name
        case None | bool() | float():
            return value
        case int() if abs(value) <= SETTING_MAX:
            return value
        case list():
            return [_setting(item, depth - 1) for item in value]
        case Mapping():
            return {_text(key, "a key"): _setting(v, depth - 1) for key, v in value.items()}
    raise BadRequest(f"no setting is like {brief(value)}")
