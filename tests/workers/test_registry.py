"""WorkerRegistry: what it answers to requests of callers, good and bad."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from registry_fakes import Scene

from bridge.config import ConfigError
from bridge.config.ops import OpSettings
from bridge.etf import Atom, Term
from bridge.fabric.events import Operation
from bridge.fabric.figures import BreakerState
from bridge.fabric.layout import LAYOUT_DIGEST_HEX, LAYOUT_VERSION
from bridge.fabric.relay import LinkConfig
from bridge.workers._shepherd_protocol import Usage
from bridge.workers.crash_reports import CrashReport, CrashReports
from bridge.workers.registry import OPERATIONS, WorkerRegistry, operation
from bridge.workers.wishes import Wanted
from bridge.workers.worker import State

A = Atom
OK = A("ok")


class FakeOperator:
    """Notes what it is asked; refuses what has the name `refuse`."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def describe_upgrade(self, role: str) -> Term:
        return None

    def _note(self, *asked: Any) -> Any:
        if "refuse" in asked:
            raise ConfigError(file="/x.toml", key="k", value=0, rule="it is too little", mend="Add")
        self.asked.append(asked)
        return ["done"]

    def reload(self) -> list[Term]:
        return self._note("reload")  # type: ignore[no-any-return]

    def configure(self, key: str, value: Any) -> list[Term]:
        return self._note("configure", key, value)  # type: ignore[no-any-return]

    def scale(self, role: str, workers: int) -> list[Term]:
        return self._note("scale", role, workers)  # type: ignore[no-any-return]

    def upgrade(self, role: str, command: Sequence[str] | None) -> Term:
        return self._note("upgrade", role, command)  # type: ignore[no-any-return]

    def close_role(self, role: str, closed: bool) -> None:
        self._note("close_role", role, closed)

    def close_node(self, closed: bool) -> None:
        self._note("close_node", closed)

    def attach(self, role: str) -> Term:
        return self._note("attach", role)  # type: ignore[no-any-return]

    def record(self, how: str) -> Term:
        return self._note("record", how)  # type: ignore[no-any-return]

    def force_breaker(self, target: str | int, how: str) -> None:
        self._note("breaker", target, how)


def registry(scene: Scene) -> WorkerRegistry:
    figures = SimpleNamespace(
        in_flight=2,
        placed=43,
        begun=42,
        done=40,
        lost=1,
        credit=12,
        service_ns=16_400,
        breaker=BreakerState.CLOSED,
        heartbeat_ns=0,
        failed=3,
        run_ns=12_345,
        pulses=9,
        still_ns=20_000_000,
        last_code=7,
        ring_queued=1,
        unready=1,
    )
    return WorkerRegistry(
        scene.supervisor, figures=lambda worker_id: figures, operator=FakeOperator()
    )


def scene_of_two() -> Scene:
    scene = Scene(names=("echo", "sleep"))
    for worker_id, worker in enumerate(scene.workers, 1):
        worker.id = worker_id
        scene.supervisor._by_id[worker_id] = worker
    scene.workers[0].state = State.READY
    scene.workers[0].kit = "c"
    scene.workers[0].operations = (Operation(3, "mean", ("term",)),)
    scene.workers[0].os_pid = 77
    scene.workers[0].encodings = ("zstd",)
    scene.workers[0].layout_version = "3.0"
    scene.workers[0].link = LinkConfig(8, 65536, 4096, "off")
    scene.workers[1].state = State.GIVEN_UP
    scene.workers[1].last_error = "it ended: signal 9 (SIGKILL)"
    return scene


LAYOUT = {A("version"): LAYOUT_VERSION, A("digest"): LAYOUT_DIGEST_HEX.encode()}

ECHO = {
    A("id"): 1,
    A("role"): A("echo"),
    A("index"): 0,
    A("state"): A("ready"),
    A("pid"): None,
    A("os_pid"): 77,
    A("attached"): False,
    A("remote"): None,
    A("kit"): b"c",
    A("kit_version"): None,
    A("layout_version"): b"3.0",
    A("operations"): [{A("opcode"): 3, A("name"): b"mean", A("takes"): [A("term")]}],
    A("encodings"): [A("zstd")],
    A("link"): {
        A("slots"): 8,
        A("result_bytes"): 65536,
        A("result_block_bytes"): 4096,
        A("crc"): b"off",
    },
    A("credit"): 12,
    A("in_flight"): 2,
    A("placed"): 43,
    A("begun"): 42,
    A("done"): 40,
    A("lost"): 1,
    A("service_us"): 16,
    A("restarts"): 0,
    A("last_error"): None,
    A("breaker"): A("closed"),
    A("silent_ms"): None,  # before its first heartbeat
    A("health"): {
        A("ready"): False,
        A("waiting"): 1,
        A("failed"): 3,
        A("last_code"): 7,
        A("last_run_us"): 12,
        A("pulses"): 9,
        A("still_ms"): 20,
    },
    A("said"): {},
}


def test_list_gives_a_map_for_each_worker() -> None:
    answer = registry(scene_of_two()).answer(A("list"))
    assert isinstance(answer, tuple)
    assert answer[0] == OK
    assert answer[1][0] == ECHO
    sleep = answer[1][1]
    assert sleep[A("state")] == A("given_up")
    assert sleep[A("last_error")] == b"it ended: signal 9 (SIGKILL)"
    assert sleep[A("in_flight")] == 0  # what is gone has nothing in flight


@pytest.mark.parametrize("role", [A("echo"), b"echo"])
def test_lookup_finds_a_role_by_atom_and_by_binary(role: Term) -> None:
    assert registry(scene_of_two()).answer((A("lookup"), role)) == (
        OK,
        {
            A("role"): A("echo"),
            A("state"): A("running"),
            A("strategy"): A("one_for_one"),
            A("group"): None,
            A("operations"): [],
            A("layout"): LAYOUT,
            A("workers"): [ECHO],
            A("upgrade"): None,
        },
    )


def test_lookup_tells_the_operations_of_the_settings_as_they_were_declared() -> None:
    payload = {"map": {"q": {"list": {"float": [0.0, 1.0]}, "size": [1, 9]}, "how?": "atom"}}
    ops = {"mean": OpSettings(3, payload, version=2), "any": OpSettings(0)}
    found = registry(Scene(ops=ops)).lookup(A("echo"))[A("operations")]
    texts = {
        b"map": {
            b"q": {b"list": {b"float": [0.0, 1.0]}, b"size": [1, 9]},
            b"how?": b"atom",
        }
    }
    assert found == [
        {A("opcode"): 3, A("name"): b"mean", A("version"): 2, A("payload"): texts},
        {A("opcode"): 0, A("name"): b"any", A("version"): None, A("payload"): b"any"},
    ]


def test_the_layout_is_that_of_the_generated_bindings() -> None:
    assert registry(scene_of_two()).answer(A("layout")) == (OK, LAYOUT)


def test_stats_count_the_workers_by_state() -> None:
    assert registry(scene_of_two()).answer(A("stats")) == (
        OK,
        {
            A("workers"): 2,
            A("states"): {A("ready"): 1, A("given_up"): 1},
            A("restarts"): 0,
            A("watchers"): 0,
            A("roles"): [A("echo"), A("sleep")],
        },
    )


@pytest.mark.parametrize(("verb", "wanted"), [("drain", Wanted.DRAIN), ("restart", Wanted.RESTART)])
async def test_drain_and_restart_ask_the_worker(verb: str, wanted: Wanted) -> None:
    scene = scene_of_two()
    assert registry(scene).answer((A(verb), 2)) == OK
    assert scene.workers[1]._wanted is wanted
    assert scene.workers[0]._wanted is Wanted.RUN


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (A("lst"), b"the WorkerRegistry knows :list, {:lookup, role}"),
        ((A("lookup"),), b"the WorkerRegistry knows"),
        ((A("configure"), A("k")), b"the WorkerRegistry knows"),
        ((A("configure"), b"refuse", 0), b"k = 0: it is too little. Add"),
        ((A("configure"), 7, 0), b"a key is an atom or a binary, not 7"),
        ((A("configure"), b"k", (1, 2)), b"no setting is like"),
        ((A("upgrade"), A("echo"), b"prog"), b"a command is a list of binaries in UTF-8, not"),
        ((A("upgrade"), A("echo"), [b"x\xff"]), b"a command is a list of binaries in UTF-8, not"),
        ((A("breaker"), A("echo"), A("ajar")), b"the WorkerRegistry knows"),
        ((A("breaker"), (1,), A("open")), b"a role is an atom or a binary"),
        ((A("lookup"), A("ech")), b"there is no role ech; the roles are echo, sleep"),
        ((A("lookup"), 7), b"a role is an atom or a binary, not 7"),
        ((A("drain"), 9), b"no worker has the id 9"),
        ((A("drain"), True), b"a worker's id is an integer"),
        ((A("crash_report"), 1), b"there is no crash report of worker 1; :crash_reports lists"),
        ((A("crash_report"), A("one")), b"a worker's id is an integer"),
        ((A("scale"), A("echo"), True), b"the WorkerRegistry knows"),
        ((A("scale"), A("echo"), b"2"), b"the WorkerRegistry knows"),
        ((A("restart"), b"1"), b"a worker's id is an integer"),
        ([1, 2], b"the WorkerRegistry knows"),
        ({}, b"the WorkerRegistry knows"),
        (None, b"the WorkerRegistry knows"),
    ],
)
def test_anything_else_is_a_bad_request_that_names_the_rule(request_: Term, why: bytes) -> None:
    answer = registry(scene_of_two()).answer_any(request_)
    assert isinstance(answer, tuple)
    error, (reason, text) = answer
    assert (error, reason) == (A("error"), A("bad_request"))
    assert text.startswith(why)


@pytest.mark.parametrize(
    ("request_", "asked", "answer"),
    [
        (A("reload"), ("reload",), (OK, ["done"])),
        (A("drain_node"), ("close_node", True), OK),
        (A("resume_node"), ("close_node", False), OK),
        ((A("drain_role"), A("echo")), ("close_role", "echo", True), OK),
        ((A("resume_role"), b"echo"), ("close_role", "echo", False), OK),
        ((A("breaker"), A("echo"), A("open")), ("breaker", "echo", "open"), OK),
        ((A("breaker"), 7, A("auto")), ("breaker", 7, "auto"), OK),
        ((A("scale"), A("echo"), 3), ("scale", "echo", 3), (OK, ["done"])),
        ((A("record"), A("stop")), ("record", "stop"), (OK, ["done"])),
        ((A("upgrade"), A("echo")), ("upgrade", "echo", None), (OK, ["done"])),
        ((A("upgrade"), b"echo", [b"x"]), ("upgrade", "echo", ["x"]), (OK, ["done"])),
        ((A("configure"), b"k", [b"a", A("b"), 1.5]), ("configure", "k", ["a", "b", 1.5]), None),
        ((A("configure"), b"k", {A("a"): True}), ("configure", "k", {"a": True}), None),
        ((A("configure"), b"k", None), ("configure", "k", None), None),
    ],
)
def test_what_changes_things_is_asked_of_the_operator_and_is_for_admins(
    request_: Any, asked: tuple[Any, ...], answer: Any
) -> None:
    subject = registry(scene_of_two())
    assert subject.answer(request_) == (answer or (OK, ["done"]))
    assert subject._operator.asked == [asked]  # type: ignore[attr-defined]
    assert operation(request_) is not None


def test_crash_reports_are_listed_newest_first_and_given_whole_one_by_one() -> None:
    scene = scene_of_two()
    for worker_id in (7, 8):
        scene.supervisor.crashes.add(crash(worker_id))
    subject = registry(scene)
    _, listed = subject.answer(A("crash_reports"))
    assert [report[A("worker")] for report in listed] == [8, 7]
    assert A("output") not in listed[0]
    _, report = subject.answer((A("crash_report"), 7))
    assert report[A("output")] == b"last words\n"
    assert report[A("jobs")] == [5, 6]
    assert report[A("usage")][A("rss_max_kib")] == 3
    assert operation(A("crash_reports")) is not None  # others' jobs write there: for admins


def test_the_oldest_crash_report_makes_room() -> None:
    reports = CrashReports(2)
    for worker_id in (1, 2, 3):
        reports.add(crash(worker_id))
    assert [report.worker for report in reports.newest_first()] == [3, 2]
    assert reports.find(1) is None


def crash(worker_id: int) -> CrashReport:
    return CrashReport(
        worker=worker_id,
        role="echo",
        index=0,
        at="2026-01-01T00:00:00.000+00:00",
        why="it ended: signal 9 (SIGKILL)",
        status=None,
        signal=9,
        core=False,
        oom=False,
        os_pid=77,
        kit="c",
        kit_version="1.0",
        lived_ms=12,
        jobs_lost=2,
        jobs=(5, 6),
        usage=Usage(1, 2, 3, 4, 5, 6, 7),
        output=b"last words\n",
        output_forgotten=0,
    )


def test_every_operation_is_known_by_its_name_and_size() -> None:
    for (name, size), words in OPERATIONS.items():
        request_ = (A(name), *range(size - 1)) if size else A(name)
        assert operation(request_) == words
    for looks in (A("list"), A("stats"), (A("lookup"), A("echo")), (A("drain"),), 7, ()):
        assert operation(looks) is None
