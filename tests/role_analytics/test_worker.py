"""The worker that serves the role: queries and columns in, terms, rows and raw numbers out."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from analytics import table

from bridge.etf import Atom, decode_bare, encode_bare
from bridge.fabric import layout
from workers.conformance.jobs import CANCELLED, FAILED, OK, PART, PROGRESS
from workers.conformance.link import LinkPlan
from workers.conformance.peer import Peer

from .conftest import CACHE, ROOT

COUNTS = {
    Atom("group_by"): [Atom("origin")],
    Atom("select"): [Atom("count"), (Atom("mean"), Atom("distance"))],
}
DAYS = {Atom("select"): [Atom("month"), Atom("day")], Atom("limit"): 1200}


@pytest.fixture
def peer(flights: table.Table) -> Iterator[Peer]:
    script = ROOT / "workers" / "python" / "analytics" / "rb_analytics.py"
    plan = LinkPlan(role="analytics", result_bytes=16 << 20)
    made = Peer([sys.executable, str(script)], plan, 20.0)
    try:
        made.greet()
        yield made
    finally:
        made.close()


def ask(peer: Peer, term: Any, opcode: int = 0, **how: Any) -> int:
    flags = how.pop("flags", 0) | layout.FLAG_TERM
    return peer.submit(opcode, encode_bare(term), flags=flags, **how)


def test_a_query_is_answered_with_a_term(peer: Peer) -> None:
    answer = peer.expect(ask(peer, COUNTS), OK, term=True)
    told: Any = decode_bare(answer.payload)[0]
    assert told[b"columns"] == [b"origin", b"count(*)", b"mean(distance)"]
    assert [row[:2] for row in told[b"rows"]] == [
        [b"EWR", 120835],
        [b"JFK", 111279],
        [b"LGA", 104662],
    ]
    missing = {
        Atom("select"): [Atom("dep_time")],
        Atom("where"): [(Atom("dep_time"), Atom("=="), Atom("nil"))],
        Atom("limit"): 1,
    }
    answer = peer.expect(ask(peer, missing), OK, term=True)
    told = decode_bare(answer.payload)[0]
    assert told[b"rows"] == [[None]]


def part(peer: Peer, job: int) -> Any:
    return decode_bare(peer.expect(job, PART, term=True).payload)[0]


def test_a_stream_has_the_rows_in_parts(peer: Peer) -> None:
    job = ask(peer, DAYS, flags=layout.FLAG_PARTS, demand=2)
    rows: list[Any] = []
    for _ in range(2):
        rows += part(peer, job)
    peer.demand(job, 9)
    rows += part(peer, job)
    peer.expect(job, OK, b"")
    assert len(rows) == 1200
    assert bytes(rows[0]) == b"\x01\x01"  # small numbers: Erlang sends them as a string


def test_a_column_comes_as_raw_numbers(peer: Peer, flights: table.Table) -> None:
    answer = peer.expect(ask(peer, (Atom("flights"), Atom("dep_delay")), opcode=1), OK)
    numbers = np.frombuffer(answer.payload, "<f8")
    column = flights["dep_delay"]
    assert column.valid is not None
    assert np.array_equal(np.isnan(numbers), ~np.asarray(column.valid))
    assert np.nansum(numbers) == column.values[column.valid].sum() == 4152200


def test_what_cannot_be_answered_fails_with_its_reason(peer: Peer) -> None:
    everything = {Atom("select"): [Atom("month")]}
    bad = {Atom("select"): [Atom("nowhere")]}
    for opcode, term, code, message in (
        (0, bad, 1, b"no column 'nowhere'"),
        (0, everything, 2, b"336776 rows"),
        (1, (Atom("flights"), Atom("dest")), 1, b"has words"),
        (1, Atom("flights"), 1, b"asked for as"),
        (0, {Atom("table"): b"trains", **everything}, 1, b"no table 'trains'"),
        (9, [], 3, b"opcode 9"),
    ):
        answer = peer.expect(ask(peer, term, opcode), FAILED, code=code)
        assert message in answer.payload
    assert b"raw bytes" in peer.expect(peer.submit(0, b"raw"), FAILED, code=1).payload
    peer.expect(ask(peer, COUNTS), OK, term=True)


def test_it_tells_its_progress_and_heeds_a_cancel(peer: Peer) -> None:
    job = ask(peer, COUNTS, flags=layout.FLAG_PROGRESS)
    answers: list[Any] = []
    while not answers or answers[-1].status == PROGRESS:
        answers.append(peer.take())
    reports: list[Any] = [decode_bare(answer.payload)[0] for answer in answers[:-1]]
    assert reports == sorted(reports)
    assert reports[0] == 0
    job = peer.put(0, encode_bare(COUNTS), flags=layout.FLAG_TERM)
    peer.cancel(job, ring=False)
    peer.publish()
    peer.expect(job, CANCELLED)


def test_the_columns_are_mapped_and_not_copied_into_each_worker(peer: Peer) -> None:
    peer.expect(ask(peer, COUNTS), OK, term=True)
    maps = (ROOT / f"/proc/{peer.process.pid}/maps").read_text()
    assert str(CACHE / "flights" / "distance.values.npy") in maps
