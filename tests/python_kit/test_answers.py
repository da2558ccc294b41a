"""What a handler returns or raises, and what its caller is answered."""

from __future__ import annotations

import pytest

from bridge.etf import Atom, encode_bare
from bridge.fabric import layout
from workers.conformance.jobs import CANCELLED, FAILED, OK

from .conftest import Start

NO_ANSWER, TOO_LARGE, EXCEPTION = 65281, 65280, 65282


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ("b'bytes'", b"bytes"),
        ("bytearray(b'array')", b"array"),
        ("b''", b""),
        ("memoryview(b'0123456789')[2:5]", b"234"),
        ("b'x' * 64", b"x" * 64),
        ("b'x' * 65", b"x" * 65),
        ("b'x' * 300_000", b"x" * 300_000),
        ("job.payload", b"p" * 100),
        ("job.payload[50:]", b"p" * 50),
        ("memoryview(bytes(range(8))).cast('H')", bytes(range(8))),
    ],
)
def test_bytes_like_results_are_raw_answers(start: Start, expression: str, answer: bytes) -> None:
    peer = start(f"def handle(job):\n    return {expression}\nserve(handle)")
    peer.expect(peer.submit(0, b"p" * 100), OK, answer)
    peer.expect(peer.submit(0, b"p" * 100), OK, answer)


def test_a_term_is_answered_as_a_term_and_payload_terms_are_decoded(start: Start) -> None:
    peer = start(
        """
def handle(job):
    from bridge.etf import Atom
    if job.opcode == 1:
        return Term.of_bytes(bytes(job.payload))
    return Term({Atom("is_term"): job.is_term, Atom("twice"): [job.term()] * 2})
serve(handle)
"""
    )
    term = encode_bare({"a": 1.5})
    job = peer.submit(0, term, flags=layout.FLAG_TERM)
    twice = encode_bare({Atom("is_term"): True, Atom("twice"): [{b"a": 1.5}] * 2})
    peer.expect(job, OK, twice, term=True)
    peer.expect(peer.submit(1, term), OK, term, term=True)
    peer.expect(peer.submit(0, b"raw"), FAILED, code=EXCEPTION)


def test_the_codec_is_not_imported_before_the_first_term(start: Start) -> None:
    peer = start(
        """
def handle(job):
    if job.opcode == 1:
        job.term()
    return b"%d" % ("bridge.etf" in sys.modules)
serve(handle)
"""
    )
    peer.expect(peer.submit(0), OK, b"0")
    peer.expect(peer.submit(1, encode_bare(1), flags=layout.FLAG_TERM), OK, b"1")


@pytest.mark.parametrize(
    ("statement", "code", "message"),
    [
        ("raise JobFailed(7, 'no such thing')", 7, b"no such thing"),
        ("raise JobFailed(65535, b'\\xff raw')", 65535, b"\xff raw"),
        ("raise ValueError('not 3')", EXCEPTION, b"ValueError: not 3"),
        ("raise KeyError", EXCEPTION, b"KeyError"),
        ("1 / 0", EXCEPTION, b"ZeroDivisionError: division by zero"),
        ("raise ValueError('\\u20ac' * 500)", EXCEPTION, b"ValueError: " + "€".encode() * 337),
        ("return {'a': 1}", EXCEPTION, b"a bytes-like object, a Term, or None, not dict"),
        ("return 'text'", EXCEPTION, b"not str"),
        ("return Term(object())", EXCEPTION, b"EncodeError"),
        ("return None", NO_ANSWER, b"without an answer"),
        ("return b'x' * 2_000_000", TOO_LARGE, b"2000000 bytes"),
        ("job.reserve(2_000_000)", TOO_LARGE, b"2000000 bytes"),
    ],
)
def test_what_fails_a_job_has_a_code_and_a_message(
    start: Start, statement: str, code: int, message: bytes
) -> None:
    peer = start(
        f"""
def handle(job):
    if job.opcode == 1:
        return b"lives"
    {statement}
serve(handle)
"""
    )
    answer = peer.expect(peer.submit(0), FAILED, code=code)
    assert message in answer.payload
    assert len(answer.payload) <= 1024
    assert ("its handler raised" in peer.process.stderr) == (code == EXCEPTION)
    peer.expect(peer.submit(1), OK, b"lives")


def test_a_room_is_answered_from_where_it_lies(start: Start) -> None:
    peer = start(
        """
def handle(job):
    size = int(bytes(job.payload))
    room = job.reserve(size)
    room[:] = b"r" * size
    return {0: room, 1: room[: size // 2], 2: room[size // 2 :], 3: b"other"}[job.opcode]
serve(handle)
"""
    )
    for size in (10, 64, 65, 4096, 100_000):
        for opcode, left in ((0, size), (1, size // 2), (2, size - size // 2)):
            peer.expect(peer.submit(opcode, b"%d" % size), OK, b"r" * left)
        peer.expect(peer.submit(3, b"%d" % size), OK, b"other")


def test_a_second_room_replaces_the_first(start: Start) -> None:
    peer = start(
        """
def handle(job):
    for size in (900_000, 900_001, 70, 900_002):
        room = job.reserve(size)
    room[:] = b"z" * len(room)
    return room
serve(handle)
"""
    )
    for _ in range(3):
        peer.expect(peer.submit(0), OK, b"z" * 900_002)


def test_a_room_that_is_too_large_may_be_answered_otherwise(start: Start) -> None:
    peer = start(
        """
def handle(job):
    try:
        return job.reserve(2_000_000)
    except AnswerTooLarge:
        return b"less"
serve(handle)
"""
    )
    peer.expect(peer.submit(0), OK, b"less")


def test_the_job_tells_what_it_is(start: Start) -> None:
    peer = start(
        """
def handle(job):
    told = [job.id, job.opcode, job.is_term, job.wants_parts, job.wants_progress]
    return repr([*told, job.deadline_ns, job.traceparent, job.demand]).encode()
serve(handle)
"""
    )
    job = peer.submit(513)
    plain = f"[{job}, 513, False, False, False, None, None, 0]"
    peer.expect(job, OK, plain.encode())
    far = 1 << 62
    job = peer.submit(
        0,
        flags=layout.FLAG_PROGRESS | layout.FLAG_TERM,
        deadline_ns=far,
        trace=(bytes(range(16)), bytes(range(8)), 1),
    )
    trace = "00-000102030405060708090a0b0c0d0e0f-0001020304050607-01"
    peer.expect(job, OK, f"[{job}, 0, True, False, True, {far}, '{trace}', 0]".encode())


def test_a_cancel_is_an_exception_that_is_none(start: Start) -> None:
    peer = start(
        """
def handle(job):
    try:
        if job.opcode == 0:
            job.sleep(60)
        while job.opcode == 1:
            job.check()
        while not job.is_cancelled():
            time.sleep(0.001)
        return b"saw it"
    except Exception:
        return b"swallowed"
serve(handle)
"""
    )
    for opcode in (0, 1):
        job = peer.submit(opcode)
        peer.await_started(peer.put_count)
        peer.cancel(job)
        peer.expect(job, CANCELLED, b"")
    job = peer.submit(2)
    peer.await_started(peer.put_count)
    peer.cancel(job)
    peer.expect(job, OK, b"saw it")


def test_every_job_is_marked_as_started_in_a_batch_of_short_ones(start: Start) -> None:
    peer = start(
        """
def handle(job):
    if job.opcode == 1:
        while not job.is_cancelled():
            pass
    return job.payload
serve(handle, short_jobs=True)
"""
    )
    jobs = [peer.put(0, b"%d" % number) for number in range(20)]
    last = peer.put(1)
    peer.put(0, b"behind")
    peer.publish()
    peer.await_started(21)
    assert peer.started.load() == 21  # the one behind has not begun
    peer.cancel(last)
    for number, job in enumerate(jobs):
        peer.expect(job, OK, b"%d" % number)
    peer.expect(last, OK, b"")
    assert peer.take().payload == b"behind"
