"""The messages of remote workers: what is read, and what breaks a rule (docs/remote-workers.md)."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.etf import Atom, ImproperList, Pid, Reference, decode, encode
from bridge.fabric import layout
from bridge.fabric.events import Operation
from bridge.fabric.proxy import Request
from bridge.workers.remote import messages
from bridge.workers.remote.messages import (
    Began,
    BrokenRule,
    Bytes,
    Credit,
    Ended,
    Heartbeat,
    Leave,
    Pulse,
    Refusal,
    Said,
)

PID = Pid(Atom("app@host"), 1, 0, 7)
REF = Reference(Atom("app@host"), 7, (1, 2, 3))
HELLO = {
    "version": 1,
    "ref": REF,
    "pid": PID,
    "role": Atom("reports"),
    "slots": 4,
    "credit": 8,
    "kit": b"elixir",
    "kit_version": (0, 1),
}
RAW = (Atom("raw"), b"bytes")


def hello(**changes: Any) -> Any:
    said = {**HELLO, **changes}
    return messages.message("hello", **{key: said[key] for key in said if said[key] is not ...})


def said(kind: str, *payload: Any, **keys: Any) -> Any:
    return (*messages.message(kind, **keys), *payload)


def operation(**changes: Any) -> Any:
    said = {"opcode": 1, "name": b"sum", "takes": [], **changes}
    return {Atom(key): value for key, value in said.items()}


def test_a_hello_is_read() -> None:
    ops = [{Atom("opcode"): 3, Atom("name"): b"sum", Atom("takes"): [Atom("raw"), Atom("parts")]}]
    read = messages.read_hello(hello(ops=ops, features=[Atom("zstd")], later=1))
    assert (read.pid, read.ref, read.role, read.slots, read.credit) == (PID, REF, "reports", 4, 8)
    assert (read.kit, read.kit_version) == ("elixir", (0, 1))
    assert read.operations == (Operation(3, "sum", ("raw", "parts")),)
    assert messages.read_hello(hello(role=b"reports")).role == "reports"


@pytest.mark.parametrize(
    ("change", "reason", "word"),
    [
        ({"version": 2}, "version", "version 1"),
        ({"version": ...}, "version", "version 1"),
        ({"version": True}, "version", "version 1"),
        ({"pid": b"me"}, "bad_hello", "pid"),
        ({"role": ...}, "bad_hello", "role"),
        ({"role": 3}, "bad_hello", "role"),
        ({"slots": 0}, "bad_hello", "slots"),
        ({"slots": 65}, "bad_hello", "slots"),
        ({"slots": True}, "bad_hello", "slots"),
        ({"credit": 257}, "bad_hello", "credit"),
        ({"kit": b""}, "bad_hello", "kit"),
        ({"kit": b"\xff"}, "bad_hello", "kit"),
        ({"kit": 32 * b"x"}, "bad_hello", "kit"),
        ({"kit_version": (1,)}, "bad_hello", "kit_version"),
        ({"kit_version": (1, 65_536)}, "bad_hello", "kit_version"),
        ({"ops": [1]}, "bad_hello", "operation"),
        ({"ops": 65 * [{}]}, "bad_hello", "ops"),
        ({"ops": [{Atom("opcode"): 1}]}, "bad_hello", "name"),
        ({"ops": [{Atom("opcode"): 65_536, Atom("name"): b"x"}]}, "bad_hello", "opcode"),
        (
            {"ops": [{Atom("opcode"): 1, Atom("name"): b"x", Atom("takes"): [Atom("all")]}]},
            "bad_hello",
            "takes",
        ),
        ({"ops": [operation(takes=[[]])]}, "bad_hello", "takes"),
        ({"ops": [operation(takes=[{}])]}, "bad_hello", "takes"),
        ({"ops": [operation(takes=[Atom("raw"), Atom("raw")])]}, "bad_hello", "takes"),
        ({"ops": [operation(takes=16_384 * [Atom("parts")])]}, "bad_hello", "takes"),
        ({"ops": [operation(name=b"a\x00b")]}, "bad_hello", "name"),
        ({"ops": [operation(name=b"a\x1fb")]}, "bad_hello", "name"),
        ({"ops": [operation(name=b"\x7f")]}, "bad_hello", "name"),
        ({"ops": [operation(), operation(name=b"other")]}, "bad_hello", "the opcode 1 twice"),
        ({"ops": [operation(), operation(opcode=2)]}, "bad_hello", "the name sum twice"),
    ],
)
def test_a_hello_that_breaks_a_rule_says_which(
    change: dict[str, Any], reason: str, word: str
) -> None:
    with pytest.raises(Refusal) as refusal:
        messages.read_hello(hello(**change))
    assert refusal.value.reason == reason
    assert word in str(refusal.value)
    assert refusal.value.again is False


def test_a_hello_is_answerable_whatever_else_is_wrong_with_it() -> None:
    assert messages.answerable(hello(version="no", role=...)) == (PID, REF)
    assert messages.answerable(hello(pid=3)) is None
    assert messages.answerable(hello(ref=...)) is None
    assert messages.answerable((messages.TAG, Atom("hello"), 3)) is None


def test_what_a_worker_says_is_read() -> None:
    ok, failed, cancelled = Atom("ok"), Atom("failed"), Atom("cancelled")
    term = (Atom("term"), encode({1: 2}))
    for message, read in [
        (said("started", job=7), Began(7)),
        (said("pulse", job=7), Pulse(7)),
        (said("part", RAW, job=7), Said(7, layout.STATUS_PART, Bytes(b"bytes"))),
        (
            said("progress", term, job=7),
            Said(7, layout.STATUS_PROGRESS, Bytes(encode({1: 2})[1:], is_term=True)),
        ),
        (
            said("complete", RAW, job=7, status=ok),
            Ended(7, layout.STATUS_OK, Bytes(b"bytes")),
        ),
        (
            said("complete", RAW, job=7, status=ok, run_us=3, more=1),
            Ended(7, layout.STATUS_OK, Bytes(b"bytes"), run_ns=3_000),
        ),
        (
            said("complete", RAW, job=7, status=failed, code=65_535),
            Ended(7, layout.STATUS_FAILED, Bytes(b"bytes"), code=65_535),
        ),
        (
            said("complete", job=7, status=cancelled),
            Ended(7, layout.STATUS_CANCELLED, Bytes(b"")),
        ),
        (said("heartbeat", ready=False), Heartbeat(ready=False)),
        (said("credit", credit=0), Credit(0)),
        (said("leave"), Leave()),
    ]:
        assert messages.read(message) == read


@pytest.mark.parametrize(
    "message",
    [
        (messages.TAG, Atom("started")),
        (messages.TAG, b"started", {}),
        (messages.TAG, Atom("started"), {Atom("job"): 7}, RAW),
        (messages.TAG, Atom("started"), {Atom("job"): 7}, RAW, RAW),
        said("started"),
        said("started", job=True),
        said("started", job=b"7"),
        said("part", job=7),
        said("part", b"bytes", job=7),
        said("part", (Atom("raw"), 3), job=7),
        said("part", (Atom("term"), b""), job=7),
        said("part", (Atom("term"), b"\x82a\x01"), job=7),
        said("part", (Atom("term"), b"\x83P\x00\x00"), job=7),
        said("complete", RAW, job=7),
        said("complete", RAW, job=7, status=Atom("part")),
        said("complete", RAW, job=7, status=0),
        said("complete", job=7, status=Atom("ok")),
        said("complete", RAW, job=7, status=Atom("cancelled")),
        said("complete", RAW, job=7, status=Atom("failed")),
        said("complete", RAW, job=7, status=Atom("failed"), code=65_536),
        said("complete", (Atom("term"), b"\x83a\x01"), job=7, status=Atom("failed"), code=1),
        said("complete", RAW, job=7, status=Atom("ok"), run_us=-1),
        said("heartbeat"),
        said("heartbeat", ready=1),
        said("hello", job=1),
        said("job", job=1),
        said("leave", RAW),
    ],
)
def test_what_the_page_does_not_have_breaks_a_rule(message: Any) -> None:
    with pytest.raises(BrokenRule) as error:
        messages.read(message)
    assert error.value.rule == "remote_bad_message"


def test_a_credit_out_of_its_range_is_a_rule_of_its_own() -> None:
    for credit in (-1, 257, b"1", True):
        with pytest.raises(BrokenRule) as error:
            messages.read(said("credit", credit=credit))
        assert error.value.rule == "remote_credit"


def improper(tail: Any) -> Any:
    return tail if isinstance(tail, list | ImproperList) else ImproperList((1,), tail)


terms = st.recursive(
    st.integers()
    | st.binary(max_size=8)
    | st.sampled_from([*map(Atom, ["job", "status", "raw", "ok"])]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.sampled_from([*map(Atom, ("job", "status", "code", "ready"))]), inner)
        | st.builds(improper, inner)
    ),
    max_leaves=8,
)
kinds = st.sampled_from(["started", "complete", "part", "heartbeat", "credit", "leave", "x"])


@given(kinds.map(Atom), terms, st.lists(terms, max_size=2))
def test_no_message_at_all_does_more_than_break_a_rule(kind: Atom, map_: Any, rest: Any) -> None:
    for message in ((messages.TAG, kind, map_, *rest), (messages.TAG, kind), map_):
        with contextlib.suppress(BrokenRule):
            messages.read(message)
        with contextlib.suppress(Refusal):
            messages.read_hello((messages.TAG, Atom("hello"), map_))


operations = st.fixed_dictionaries(
    {},
    optional={
        Atom("opcode"): st.sampled_from([0, 65_535]) | terms,
        Atom("name"): st.sampled_from([b"sum", b"a\x00"]) | terms,
        Atom("takes"): st.lists(st.sampled_from([*map(Atom, ("raw", "parts"))]) | terms) | terms,
    },
)
changes = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(HELLO, terms)
    | {"ops": st.lists(operations | terms, max_size=3) | terms, "features": terms},
)


@given(changes)
def test_no_hello_at_all_does_more_than_be_refused(change: dict[str, Any]) -> None:
    message = decode(encode(hello(**change)))
    messages.answerable(message)
    with contextlib.suppress(Refusal):
        messages.role_of(message)
    with contextlib.suppress(Refusal):
        messages.read_hello(message)


def test_a_job_is_written_as_the_page_has_it() -> None:
    flags = layout.FLAG_TERM | layout.FLAG_PROGRESS
    trace, span = bytes(range(16)), bytes(range(8))
    request = Request(9, 0, 5_000_000_000, 3, flags, 1, trace, span, 1, encode(b"x")[1:])
    message = messages.job(2, request, now_ns=2_000_000_000, parts=4)
    read: Any = decode(encode(message))
    tag, kind, map_, payload = read
    assert (tag, kind) == (messages.TAG, Atom("job"))
    assert payload == (Atom("term"), encode(b"x"))
    assert {key.name: value for key, value in map_.items()} == {
        "job": 9,
        "slot": 2,
        "opcode": 3,
        "deadline_ms": 3_000,
        "priority": 1,
        "trace": b"00-000102030405060708090a0b0c0d0e0f-0001020304050607-01",
        "parts": 4,
        "progress": True,
    }
    plain = Request(9, 0, 0, 0, 0, 2, bytes(16), bytes(8), 0, b"raw")
    _, _, map_, payload = messages.job(0, plain, now_ns=1, parts=None)
    assert payload == (Atom("raw"), b"raw")
    assert [map_[Atom(key)] for key in ("deadline_ms", "trace", "parts", "progress")] == [
        None,
        None,
        None,
        False,
    ]
    # Never less than is left: a loop would take the job for late before the relay does.
    message = messages.job(2, request, now_ns=4_999_999_999, parts=4)
    assert message[2][Atom("deadline_ms")] == 1
    late = Request(9, 0, 5, 0, 0, 2, bytes(16), bytes(8), 0, b"")
    assert messages.job(0, late, now_ns=6, parts=None)[2][Atom("deadline_ms")] == 0
