"""The role's worker on a link: its operations, and what a long job says and hears."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bridge.fabric import layout
from integration.solar.many import OPCODE, Answer, Request, decode_progress
from workers.conformance.bench import Bench
from workers.conformance.jobs import CANCELLED, FAILED, OK, PROGRESS
from workers.conformance.peer import Peer, now_ns

ROOT = Path(__file__).parents[2]
CODE_UNKNOWN_OPCODE, CODE_IS_TERM, CODE_TOO_LARGE = 11, 10, 65_280
# Hours of work: only a cancel ends it in time.
LONG = Request(50_000, steps=1_000_000, step=1e-3)


@pytest.fixture
def peer() -> Iterator[Peer]:
    bench = Bench([str(ROOT / "build" / "bin" / "rb-simulation")], patience_s=30.0)
    try:
        yield bench.start()
    finally:
        bench.close()


def test_a_cluster_is_answered(peer: Peer) -> None:
    request = Request(3000, steps=2, returned=10, sampled=100)
    answer = Answer.decode(peer.expect(peer.submit(OPCODE, request.encode())).payload)
    assert answer.bodies.shape == (10, 6)
    assert 0 < answer.error_rms < 0.05 * 0.5**3
    assert abs(answer.energy_after / answer.energy_before - 1) < 1e-3


def test_bodies_may_come_with_the_request(peer: Peer) -> None:
    rows = np.random.default_rng(5).normal(size=(2000, 7)) ** 2
    request = Request(rows, returned=2000)
    answer = Answer.decode(peer.expect(peer.submit(OPCODE, request.encode())).payload)
    np.testing.assert_array_equal(answer.bodies, rows[:, 1:])


def test_its_progress_ends_with_the_last_step(peer: Peer) -> None:
    request = Request(20_000, steps=3)
    job = peer.submit(OPCODE, request.encode(), flags=layout.FLAG_PROGRESS)
    told = []
    while (answer := peer.take()).status == PROGRESS:
        told.append(decode_progress(answer.payload))
        assert answer.job == job
    assert answer.status == OK
    assert [step for step, _, _ in told] == sorted(step for step, _, _ in told)
    assert {step for step, _, _ in told} == {0, 1, 2, 3}
    assert len(told) > 20
    assert all(steps == 3 for _, steps, _ in told)
    shares = [share for _, _, share in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_a_job_of_hours_pulses_and_notices_its_cancel(peer: Peer) -> None:
    job = peer.submit(OPCODE, LONG.encode())
    peer.await_started(1)
    before = peer.pulse.load()
    peer.until(lambda: peer.pulse.load() > before + 100, "no pulses")
    peer.cancel(job)
    peer.expect(job, CANCELLED)


def test_a_job_of_hours_ends_at_its_deadline(peer: Peer) -> None:
    job = peer.submit(OPCODE, LONG.encode(), deadline_ns=now_ns() + 100_000_000)
    peer.expect(job, CANCELLED)


def test_summing_all_pairs_of_many_notices_its_cancel(peer: Peer) -> None:
    """One cell of bodies in one place has no inside: it is summed in slices."""
    request = Request(np.zeros((70_000, 7)), theta=0.5)
    job = peer.submit(OPCODE, request.encode())
    peer.await_started(1)
    peer.cancel(job)
    peer.expect(job, CANCELLED)


def test_an_answer_that_never_fits_is_refused_before_the_work(peer: Peer) -> None:
    request = Request(1_500_000, steps=1_000_000, returned=1_500_000)
    peer.expect(peer.submit(OPCODE, request.encode()), FAILED, code=CODE_TOO_LARGE)


def test_other_opcodes_and_terms_are_refused(peer: Peer) -> None:
    answer = peer.expect_any(peer.submit(2, b""))
    assert (answer.status, answer.code) == (FAILED, CODE_UNKNOWN_OPCODE)
    assert b"0 (orbits) or 1 (cluster), got 2" in answer.payload
    peer.expect(peer.submit(OPCODE, b"j", flags=layout.FLAG_TERM), FAILED, code=CODE_IS_TERM)
