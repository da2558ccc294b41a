"""Serving: every job started in order, run once, answered once, its slot given back."""

from __future__ import annotations

import random
import struct
import time

from bridge.fabric import layout
from workers.conformance import language
from workers.conformance.bench import Bench, Chapter
from workers.conformance.jobs import (
    CANCELLED,
    CODE_BAD_PAYLOAD,
    CODE_KIT,
    CODE_NO_ANSWER,
    CODE_UNKNOWN_OPCODE,
    FAILED,
    Broke,
    NotOffered,
)
from workers.conformance.language import end, fail, milliseconds, noise
from workers.conformance.peer import Peer, now_ns

CHAPTER = Chapter("Serving")
TERM = layout.FLAG_TERM


@CHAPTER.rule(11, "payloads of every size come back, from the envelope and from the pool")
def every_size(bench: Bench) -> None:
    peer = bench.start()
    for size in (0, 1, 63, 64, 65, 127, 4095, 4096, 4097, 65536, 300_000, 3):
        payload = noise(size, size)
        peer.expect(peer.submit(language.ECHO, payload), payload=payload)


@CHAPTER.rule(12, "raw bytes come back as raw bytes and terms as terms")
def raw_and_term(bench: Bench) -> None:
    peer = bench.start()
    for size in (0, 10, 59, 60, 5000):
        term = b"m" + struct.pack(">I", size) + noise(size, size)
        peer.expect(peer.submit(language.ECHO, term, flags=TERM), payload=term, term=True)
        peer.expect(peer.submit(language.ECHO, term), payload=term)


@CHAPTER.rule(13, "each choice of checksums is followed, and a CRC is right")
def checksums(bench: Bench) -> None:
    envelope, payload = layout.FEATURE_CRC_ENVELOPE, layout.FEATURE_CRC_PAYLOAD
    for features in (0, envelope, payload, envelope | payload):
        peer = bench.start(features=features)
        if (taken := int(peer.hello()["features"])) != features:
            raise Broke(f"of the features {features} it takes {taken}")
        for size in (10, 10_000):
            peer.expect(peer.submit(language.ECHO, noise(size)), payload=noise(size))
        peer.submit(language.FAIL, fail(9, b"summed too"))
        peer.take()


@CHAPTER.rule(14, "a role without a pool serves payloads that fit into the envelope")
def without_a_pool(bench: Bench) -> None:
    peer = bench.start(pool_bytes=0)
    for size in (0, 64):
        peer.expect(peer.submit(language.ECHO, noise(size)), payload=noise(size))


@CHAPTER.rule(15, "`started` moves before each handler is entered, and not for the next job")
def started_mark(bench: Bench) -> None:
    peer = bench.start()
    if peer.started.load():
        raise Broke("`started` is not 0 before the first job")
    jobs = [peer.put(language.SLEEP, milliseconds(10)) for _ in range(6)]
    peer.publish()
    answered = 0
    while answered < len(jobs):
        started = peer.started.load()
        answered = peer.completion_tail.load()  # behind it: an answer comes before the next start
        if started > answered + 1:
            raise Broke(f"`started` is {started} and {answered} of the jobs are answered")
    for job in jobs:
        peer.expect(job)
    peer.silence(0.02)
    if (started := peer.started.load()) != len(jobs):
        raise Broke(f"`started` is {started} after {len(jobs)} jobs")


@CHAPTER.rule(16, "a crash leaves `started` at the job that it happened in")
def started_at_a_crash(bench: Bench) -> None:
    for before in (0, 3):
        peer = bench.start()
        for _ in range(before):
            peer.put(language.ECHO, b"fine")
        peer.put(language.END, end(language.EXIT, 5))
        peer.put(language.ECHO, b"for another worker")
        peer.publish()
        peer.expect_exit(5)
        if (started := peer.started.load()) != before + 1:
            raise Broke(f"`started` is {started}; job {before + 1} ended the worker")


@CHAPTER.rule(17, "batches are answered once each and in order, over many laps of the rings")
def batches(bench: Bench) -> None:
    peer = bench.start(slots=16)
    dice = random.Random(17)
    waiting: list[tuple[int, bytes]] = []
    put, total = 0, 16 * 40
    while put < total or waiting:
        for _ in range(min(dice.randrange(1, 17), 16 - len(waiting), total - put)):
            payload = noise(dice.choice((0, 8, 64, 65, 900)), put)
            waiting.append((peer.put(language.ECHO, payload), payload))
            put += 1
        peer.publish()
        for _ in range(dice.randrange(1, len(waiting) + 1)):
            job, payload = waiting.pop(0)
            peer.expect(job, payload=payload)
    peer.silence(0.02)
    if (started := peer.started.load()) != total:
        raise Broke(f"`started` is {started} after {total} jobs")


@CHAPTER.rule(18, "a ring of two slots works")
def two_slots(bench: Bench) -> None:
    peer = bench.start(slots=2)
    for i in range(50):
        pair = [peer.put(language.ECHO, bytes([i, k])) for k in range(2)]
        peer.publish()
        for k, job in enumerate(pair):
            peer.expect(job, payload=bytes([i, k]))


@CHAPTER.rule(19, "a slot is released when its job is answered, and not before")
def slots_are_released(bench: Bench) -> None:
    peer = bench.start()
    first = peer.put(language.SLEEP, milliseconds(60_000))
    peer.put(language.ECHO, b"behind")
    peer.publish()
    peer.await_started(1)
    time.sleep(0.02)
    if (head := peer.request_head.load()) != 0:
        raise Broke(f"request_head is {head} while the first job runs")
    peer.cancel(first)
    peer.expect(first, CANCELLED)
    peer.take()
    peer.until(lambda: peer.request_head.load() == 2, "request_head does not come to 2")


@CHAPTER.rule(20, "an answer that is ready does not wait behind the next handler")
def an_answer_leaves_at_once(bench: Bench) -> None:
    peer = bench.start()
    quick = peer.put(language.ECHO, b"quick")
    slow = peer.put(language.SLEEP, milliseconds(60_000))
    peer.publish()
    peer.expect(quick, payload=b"quick", timeout_s=min(5.0, peer.patience_s))
    peer.cancel(slow)
    peer.expect(slow, CANCELLED)


@CHAPTER.rule(21, "a failure carries its code and its message, up to 1024 bytes")
def failures(bench: Bench) -> None:
    peer = bench.start()
    for code, size in ((1234, 11), (0, 0), (65535, 64), (7, 65), (8, 1024)):
        message = bytes(97 + k % 26 for k in range(size))
        peer.expect(peer.submit(language.FAIL, fail(code, message)), FAILED, message, code=code)


@CHAPTER.rule(22, "what an operation does not take is answered with code 1, what is none with 3")
def bad_requests(bench: Bench) -> None:
    peer = bench.start()
    for opcode, payload in (
        (language.FAIL, b"\1"),
        (language.SLEEP, b"\1\0\0"),
        (language.EMIT, bytes(8)),
        (language.LARGE, bytes(8)),
        (language.END, b"\0"),
        (language.TERM, b"raw"),
    ):
        peer.expect(peer.submit(opcode, payload), FAILED, code=CODE_BAD_PAYLOAD)
    for opcode in (999, 65535):
        peer.expect(peer.submit(opcode, b""), FAILED, code=CODE_UNKNOWN_OPCODE)
    peer.expect(peer.submit(language.ECHO, b"on"), payload=b"on")


@CHAPTER.rule(23, "a handler that returns without an answer has failed its job with code 65281")
def no_answer(bench: Bench) -> None:
    peer = bench.start()
    peer.expect(peer.submit(language.END, end(language.NO_ANSWER)), FAILED, code=CODE_NO_ANSWER)
    peer.expect(peer.submit(language.ECHO, b"on"), payload=b"on")


@CHAPTER.rule(24, "a collapse of the handler ends the worker, or fails the job and nothing else")
def collapse(bench: Bench) -> None:
    peer = bench.start()
    job = peer.submit(language.END, end(language.COLLAPSE))
    answer = peer.poll(peer.patience_s)
    if answer is None:
        status = peer.process.wait(peer.patience_s)
        if status is None:
            raise Broke("it neither answers nor ends")
        if status == 0:
            raise Broke("a collapse ends it with exit status 0")
    elif answer.job != job or answer.status != FAILED or answer.code < CODE_KIT:
        raise Broke(f"a collapse is answered with {answer}")
    else:
        peer.give_back(answer)
        peer.expect(peer.submit(language.ECHO, b"on"), payload=b"on")


@CHAPTER.rule(25, "queue time and run time are measured, and never more than has passed")
def times(bench: Bench) -> None:
    peer = bench.start()
    before = now_ns()
    first = peer.put(language.SLEEP, milliseconds(40))
    second = peer.put(language.SLEEP, milliseconds(20))
    peer.publish()
    one = peer.expect(first)
    two = peer.expect(second)
    passed = now_ns() - before
    if not 40_000_000 <= one.run_ns <= passed or not 20_000_000 <= two.run_ns <= passed:
        raise Broke(f"sleeps of 40 and 20 ms ran {one.run_ns} and {two.run_ns} of {passed} ns")
    if not one.run_ns <= two.queue_ns + 10_000_000 or two.queue_ns > passed:
        raise Broke(f"the second job was queued {two.queue_ns} ns behind one of {one.run_ns}")


@CHAPTER.rule(26, "a term answers as a term")
def term_answers(bench: Bench) -> None:
    peer = bench.start()
    for size in (3, 20_000):
        binary = b"m" + struct.pack(">I", size) + noise(size)
        answer = b"h\2w\2ok" + binary
        peer.expect(peer.submit(language.TERM, binary, flags=TERM), payload=answer, term=True)


@CHAPTER.rule(27, "a handler is told its job's number, deadline and wishes")
def about_the_job(bench: Bench) -> None:
    peer = bench.start()
    wishes = layout.FLAG_PARTS | layout.FLAG_PROGRESS
    for flags, wants in ((0, 0), (layout.FLAG_PARTS, 1), (layout.FLAG_PROGRESS, 2), (wishes, 3)):
        deadline = now_ns() + 60_000_000_000
        demand = 5 if wants & 1 else 0
        job = peer.submit(language.ABOUT, flags=flags, deadline_ns=deadline, demand=demand)
        told = struct.unpack_from("<QQIB", about(peer, job))
        if told != (job, deadline, demand, wants):
            raise Broke(
                f"the handler is told {told}, the request says {job, deadline, demand, wants}"
            )


@CHAPTER.rule(28, "a handler is told the trace that its caller belongs to")
def trace_context(bench: Bench) -> None:
    peer = bench.start()
    for trace in ((noise(16), noise(8, 2), 1), (bytes(16), bytes(8), 0)):
        told = about(peer, peer.submit(language.ABOUT, trace=trace))[21:]
        if told != trace[0] + trace[1] + bytes([trace[2]]):
            raise Broke(f"the handler is told {told.hex()}, the request says {trace}")


def about(peer: Peer, job: int) -> bytes:
    answer = peer.expect(job)
    if len(answer.payload) != 46:
        raise NotOffered(f"`about` answers {len(answer.payload)} bytes, not 46")
    return answer.payload
