"""Before the answer: parts as far as they are asked for, and progress where it is wanted."""

from __future__ import annotations

from bridge.fabric import layout
from workers.conformance import language
from workers.conformance.bench import Bench, Chapter
from workers.conformance.jobs import (
    CANCELLED,
    CODE_REFUSED,
    FAILED,
    PART,
    PROGRESS,
    Broke,
)
from workers.conformance.language import part, parts
from workers.conformance.peer import Peer, now_ns

CHAPTER = Chapter("Parts and progress")
WANTED, TOLD = layout.FLAG_PARTS, layout.FLAG_PROGRESS


def expect_parts(
    peer: Peer, job: int, numbers: range, size: int, *, as_term: bool = False, status: int = PART
) -> None:
    for number in numbers:
        peer.expect(job, status, part(number, size, as_term=as_term), term=as_term)


@CHAPTER.rule(41, "parts come as far as they are asked for, and no further")
def on_demand(bench: Bench) -> None:
    peer = bench.start()
    job = peer.submit(language.EMIT, parts(11, 5), flags=WANTED)
    peer.silence()
    sent = 0
    for asked in (1, 3, 4, 10, 11):
        peer.demand(job, asked)
        expect_parts(peer, job, range(sent, asked), 5)
        sent = asked
        if asked < 11:
            peer.silence(0.03)
    peer.expect(job, payload=b"")


@CHAPTER.rule(42, "demand that was written for an earlier job of the slot is none for this one")
def demand_of_an_earlier_job(bench: Bench) -> None:
    peer = bench.start(slots=2)
    for lap in range(5):
        job = peer.submit(language.EMIT, parts(1, 5), flags=WANTED)
        if lap >= 2:  # 1000 of the job two before are in its word
            peer.silence(0.04)
        peer.demand(job, 1000)
        expect_parts(peer, job, range(1), 5)
        peer.expect(job, payload=b"")


@CHAPTER.rule(43, "parts of every size come whole, raw and as terms")
def parts_of_every_size(bench: Bench) -> None:
    peer = bench.start(result_bytes=4 << 20)
    for size in (0, 1, 59, 64, 65, 4096, 100_000, layout.PART_BYTES_MAX - 5):
        for as_term in (False, True):
            payload = parts(2, size, as_term=as_term)
            job = peer.submit(language.EMIT, payload, flags=WANTED, demand=9)
            expect_parts(peer, job, range(2), size, as_term=as_term)
            peer.expect(job, payload=b"")


@CHAPTER.rule(44, "more parts than ring and region hold come whole and in order")
def more_than_fit(bench: Bench) -> None:
    peer = bench.start(slots=4, result_bytes=64 << 10)
    for count, size in ((300, 10), (60, 20_000)):
        job = peer.submit(language.EMIT, parts(count, size), flags=WANTED, demand=count)
        expect_parts(peer, job, range(count), size)
        peer.expect(job, payload=b"")


@CHAPTER.rule(45, "a part that is too large, or that nobody wants, is refused to the handler")
def refused_parts(bench: Bench) -> None:
    peer = bench.start(result_bytes=4 << 20)
    over = parts(1, layout.PART_BYTES_MAX + 1)
    job = peer.submit(language.EMIT, over, flags=WANTED, demand=1)
    peer.expect(job, FAILED, code=CODE_REFUSED)
    peer.expect(peer.submit(language.EMIT, parts(1, 5)), FAILED, code=CODE_REFUSED)
    small = bench.start(result_bytes=16_384)
    job = small.submit(language.EMIT, parts(1, 20_000), flags=WANTED, demand=1)
    small.expect(job, FAILED, code=CODE_REFUSED)
    small.expect(small.submit(language.ECHO, b"on"), payload=b"on")


@CHAPTER.rule(46, "a cancel ends the wait for demand")
def cancel_ends_the_wait(bench: Bench) -> None:
    peer = bench.start()
    job = peer.submit(language.EMIT, parts(10, 5), flags=WANTED, demand=2)
    expect_parts(peer, job, range(2), 5)
    peer.silence(0.03)
    peer.cancel(job)
    peer.expect(job, CANCELLED)


@CHAPTER.rule(47, "so does the deadline, which nobody rings for")
def deadline_ends_the_wait(bench: Bench) -> None:
    peer = bench.start()
    deadline = now_ns() + 60_000_000
    job = peer.submit(language.EMIT, parts(10, 5), flags=WANTED, deadline_ns=deadline)
    peer.expect(job, CANCELLED)
    if now_ns() < deadline:
        raise Broke("the job is cancelled before its deadline")


@CHAPTER.rule(48, "so does a stop")
def stop_ends_the_wait(bench: Bench) -> None:
    peer = bench.start()
    peer.submit(language.EMIT, parts(10, 5), flags=WANTED)
    peer.await_started(1)
    peer.silence(0.03)
    peer.control(layout.CONTROL_STOP)
    peer.expect_exit(0)


@CHAPTER.rule(49, "progress is told where it is wanted, raw and as terms, up to 4096 bytes")
def progress_is_told(bench: Bench) -> None:
    peer = bench.start()
    for size, as_term in ((0, False), (50, False), (50, True), (4096, False), (4091, True)):
        job = peer.submit(language.REPORT, parts(3, size, as_term=as_term), flags=TOLD)
        expect_parts(peer, job, range(3), size, as_term=as_term, status=PROGRESS)
        peer.expect(job, payload=(3).to_bytes(4, "little"))
    job = peer.submit(language.REPORT, parts(1, 4097), flags=TOLD)
    peer.expect(job, FAILED, code=CODE_REFUSED)


@CHAPTER.rule(50, "progress that nobody wants is not told, and no error")
def progress_that_nobody_wants(bench: Bench) -> None:
    peer = bench.start()
    job = peer.submit(language.REPORT, parts(3, 50))
    peer.expect(job, payload=(3).to_bytes(4, "little"))
