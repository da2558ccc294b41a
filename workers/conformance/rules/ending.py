"""How jobs are stopped and how the worker ends: cancel, deadline, drain, stop, exits, signals."""

from __future__ import annotations

import signal
import time

from bridge.fabric import layout
from workers.conformance import language
from workers.conformance.bench import Bench, Chapter
from workers.conformance.jobs import CANCELLED, Broke
from workers.conformance.language import end, large, large_answer, milliseconds
from workers.conformance.peer import now_ns

CHAPTER = Chapter("Cancel, deadline, drain, stop, death")
LONG = milliseconds(60_000)


@CHAPTER.rule(51, "a running job notices its cancel, also when nobody rings")
def cancel_while_running(bench: Bench) -> None:
    peer = bench.start()
    for count, ring in ((1, True), (2, False)):
        job = peer.submit(language.SLEEP, LONG)
        peer.await_started(count)
        if not ring:
            time.sleep(0.05)  # it has looked for the first time
        peer.cancel(job, ring=ring)
        peer.expect(job, CANCELLED)


@CHAPTER.rule(52, "a cancel word that names an earlier job of the slot does nothing")
def cancel_of_an_earlier_job(bench: Bench) -> None:
    peer = bench.start(slots=2)
    first = peer.submit(language.ECHO, b"first")
    peer.expect(first)
    peer.cancel_slot(0, first)  # answered long ago: the word stays
    peer.expect(peer.submit(language.ECHO, b"second"))
    third = peer.submit(language.SLEEP, milliseconds(20))
    peer.expect(third)


@CHAPTER.rule(53, "a job that is cancelled before its turn never runs, and counts as started")
def cancel_before_its_turn(bench: Bench) -> None:
    peer = bench.start()
    first = peer.put(language.SLEEP, LONG)
    second = peer.put(language.END, end(language.EXIT, 42))
    third = peer.put(language.ECHO, b"third")
    peer.publish()
    peer.await_started(1)
    peer.cancel(second)
    peer.cancel(first)
    peer.expect(first, CANCELLED)
    peer.expect(second, CANCELLED)
    peer.expect(third, payload=b"third")
    if (started := peer.started.load()) != 3:
        raise Broke(f"`started` is {started} after three answers")


@CHAPTER.rule(54, "a job whose deadline has passed never runs")
def deadline_before_its_turn(bench: Bench) -> None:
    peer = bench.start()
    job = peer.submit(language.END, end(language.EXIT, 42), deadline_ns=now_ns() - 1)
    peer.expect(job, CANCELLED)
    peer.expect(peer.submit(language.ECHO, b"on"), payload=b"on")


@CHAPTER.rule(55, "a deadline ends a job that looks")
def deadline_while_running(bench: Bench) -> None:
    peer = bench.start()
    deadline = now_ns() + 60_000_000
    job = peer.submit(language.SLEEP, LONG, deadline_ns=deadline)
    peer.expect(job, CANCELLED)
    if now_ns() < deadline:
        raise Broke("the job is cancelled before its deadline")


@CHAPTER.rule(56, "a job with a deadline that is far off is not cancelled by it")
def deadline_far_off(bench: Bench) -> None:
    peer = bench.start()
    job = peer.submit(language.SLEEP, milliseconds(20), deadline_ns=now_ns() + 10**12)
    peer.expect(job)


@CHAPTER.rule(57, "drain finishes what is in the ring, then leaves with 0")
def drain_with_work(bench: Bench) -> None:
    peer = bench.start()
    first = peer.submit(language.SLEEP, LONG)
    peer.await_started(1)
    jobs = [peer.put(language.SLEEP, milliseconds(10)) for _ in range(4)]
    jobs.append(peer.put(language.LARGE, large(100_000)))
    peer.publish()
    peer.control(layout.CONTROL_DRAIN)
    peer.cancel(first)
    peer.expect(first, CANCELLED)
    for job in jobs:
        peer.expect(job, keep=True)
    peer.expect_exit(0)


@CHAPTER.rule(58, "an idle worker that is parked drains at once")
def drain_when_idle(bench: Bench) -> None:
    peer = bench.start()
    peer.until(lambda: peer.gate.parked_way() != 0, "it never parks")
    peer.control(layout.CONTROL_DRAIN)
    peer.expect_exit(0)


@CHAPTER.rule(59, "stop ends the job that looks, starts no other, leaves with 0")
def stop_with_work(bench: Bench) -> None:
    peer = bench.start()
    for _ in range(3):
        peer.put(language.SLEEP, LONG)
    peer.publish()
    peer.await_started(1)
    peer.control(layout.CONTROL_STOP)
    peer.expect_exit(0)
    if (started := peer.started.load()) != 1:
        raise Broke(f"`started` is {started}: jobs were begun after the stop")


@CHAPTER.rule(60, "stop reaches a worker that waits for room")
def stop_without_room(bench: Bench) -> None:
    peer = bench.start(result_bytes=64 << 10)
    held = peer.expect(peer.submit(language.LARGE, large(64 << 10)), keep=True)
    if held.payload != large_answer(64 << 10):
        raise Broke("the region's answer is not whole")
    peer.submit(language.LARGE, large(100))
    peer.await_started(2)
    peer.control(layout.CONTROL_STOP)
    peer.expect_exit(0)


@CHAPTER.rule(61, "an exit or a signal inside a job is seen as it was; answers before it stand")
def deaths(bench: Bench) -> None:
    for how, value, status in (
        (language.EXIT, 0, 0),
        (language.EXIT, 42, 42),
        (language.SIGNAL, signal.SIGABRT, -6),
        (language.SIGNAL, signal.SIGSEGV, -11),
        (language.SIGNAL, signal.SIGKILL, -9),
    ):
        peer = bench.start()
        quick = [peer.put(language.ECHO, bytes([i])) for i in range(5)]
        peer.put(language.END, end(how, value))
        peer.put(language.ECHO, b"for another worker")
        peer.publish()
        peer.expect_exit(status)
        for i, job in enumerate(quick):
            peer.expect(job, payload=bytes([i]))
        if (left := peer.completion_tail.load()) != 5:
            raise Broke(f"{left} completions are published, 5 jobs were answered")


@CHAPTER.rule(62, "SIGTERM ends it, idle or inside a handler that does not look")
def sigterm(bench: Bench) -> None:
    idle, busy = bench.start(), bench.start()
    busy.submit(language.HOLD, milliseconds(30_000))
    busy.await_started(1)
    time.sleep(0.02)
    for peer in (idle, busy):
        peer.process.signal(signal.SIGTERM)
        if peer.process.wait(peer.patience_s) is None:
            raise Broke("it outlives SIGTERM")
