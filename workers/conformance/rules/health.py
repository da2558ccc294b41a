"""Health: the heartbeat from a thread of the kit's own, figures, pulse, readiness."""

from __future__ import annotations

import struct
import time

from bridge.fabric import layout
from workers.conformance import language
from workers.conformance.bench import Bench, Chapter
from workers.conformance.jobs import CANCELLED, FAILED, Broke
from workers.conformance.language import fail, milliseconds, parts
from workers.conformance.peer import Peer, now_ns

CHAPTER = Chapter("Health")
BEAT_NS = layout.HEARTBEAT_MS * 1_000_000
LATE_NS = 2_000_000_000  # from here on the bridge calls a worker hung (docs/health.md)


@CHAPTER.rule(71, "the first beat comes before the hello")
def first_beat(bench: Bench) -> None:
    beat = bench.start().telemetry()
    if beat["heartbeats"] < 1 or not 0 < beat["heartbeat_ns"] <= now_ns():
        raise Broke(f"at the hello there are {beat['heartbeats']} beats, at {beat['heartbeat_ns']}")


def watch_beats(peer: Peer, seconds: float) -> None:
    """Beats have to come every 500 ms or so, none of them 2 s late, and be whole.

    On a busy machine some may be late; of those in 3 s, one has to be in time.
    """
    first = last = peer.telemetry()
    begin, in_time = time.monotonic(), False
    while (passed := time.monotonic() - begin) < seconds or (not in_time and passed < 3):
        time.sleep(0.02)
        beat = peer.telemetry()
        between = beat["heartbeat_ns"] - last["heartbeat_ns"]
        if beat["heartbeats"] < last["heartbeats"] or between < 0:
            raise Broke(f"beats run backwards: {last} and then {beat}")
        if max(between, now_ns() - beat["heartbeat_ns"]) > LATE_NS:
            raise Broke(f"no beat for {max(between, now_ns() - beat['heartbeat_ns'])} ns")
        if beat["heartbeats"] == last["heartbeats"] + 1:
            in_time |= between <= BEAT_NS * 3 // 2
        last = beat
    beats = last["heartbeats"] - first["heartbeats"]
    due = (last["heartbeat_ns"] - first["heartbeat_ns"]) // BEAT_NS
    if not in_time or beats > due + 1:
        raise Broke(f"{beats} beats came and {due} were due, one every {BEAT_NS} ns")


@CHAPTER.rule(72, "the heart beats every 500 ms while it is idle")
def beats_when_idle(bench: Bench) -> None:
    watch_beats(bench.start(), 1.1)


@CHAPTER.rule(73, "and while a handler holds the CPU and calls nothing")
def beats_while_held(bench: Bench) -> None:
    peer = bench.start()
    peer.submit(language.HOLD, milliseconds(20_000))
    peer.await_started(1)
    watch_beats(peer, 1.1)
    if peer.completion_tail.load():
        raise Broke("`hold` of 20 s was answered within 3 s")


@CHAPTER.rule(74, "a beat has the jobs, the failed ones, the last code and run time, the queue")
def figures(bench: Bench) -> None:
    peer = bench.start()
    peer.expect(peer.submit(language.SLEEP, milliseconds(20)))
    peer.expect(peer.submit(language.FAIL, fail(77, b"why")), FAILED)
    long = peer.submit(language.SLEEP, milliseconds(60_000))
    waiting = [peer.put(language.ECHO, b"") for _ in range(3)]
    peer.publish()
    peer.await_started(3)
    expect_beat(peer, {"jobs": 2, "failed": 1, "last_code": 77, "queued": 3})
    peer.cancel(long)
    peer.expect(long, CANCELLED)
    for job in waiting:
        peer.expect(job)
    job = peer.submit(language.SLEEP, milliseconds(30))
    peer.expect(job)
    peer.until(
        lambda: 30_000_000 <= peer.telemetry()["run_ns"] < 30_000_000_000,
        "no beat says how long the last job ran",
        timeout_s=4 * layout.HEARTBEAT_MS / 1000 + 2,
    )


@CHAPTER.rule(75, "the last beat, before it leaves, counts every job")
def last_beat(bench: Bench) -> None:
    for count in (0, 7):
        peer = bench.start()
        for _ in range(count):
            peer.expect(peer.submit(language.ECHO, b"x"))
        peer.control(layout.CONTROL_DRAIN)
        peer.expect_exit(0)
        if (jobs := peer.telemetry()["jobs"]) != count:
            raise Broke(f"the last beat counts {jobs} jobs of {count}")


@CHAPTER.rule(76, "the pulse moves when the handler says so, by each part and report, and not else")
def pulse(bench: Bench) -> None:
    peer = bench.start()
    peer.expect(peer.submit(language.PULSE, struct.pack("<I", 5)))
    if (beats := peer.pulse.load()) < 5:
        raise Broke(f"pulse is {beats} after five of the handler's")
    for opcode, flag in (
        (language.EMIT, layout.FLAG_PARTS),
        (language.REPORT, layout.FLAG_PROGRESS),
    ):
        before = peer.pulse.load()
        job = peer.submit(opcode, parts(3, 10), flags=flag, demand=3)
        for _ in range(3):
            peer.take()
        peer.expect(job)
        if peer.pulse.load() < before + 3:
            raise Broke(f"pulse went from {before} to {peer.pulse.load()} by opcode {opcode}")
    before = peer.pulse.load()
    peer.submit(language.HOLD, milliseconds(600))
    peer.take()
    if peer.pulse.load() > before + 1:
        raise Broke("the pulse of a handler that only holds the CPU moves")


@CHAPTER.rule(77, "a worker that is not ready says so in its next beat, and goes on serving")
def readiness(bench: Bench) -> None:
    peer = bench.start()
    for ready in (0, 1):
        peer.expect(peer.submit(language.READY, bytes([ready])))
        wanted = {"unready": 1 - ready}
        expect_beat(peer, wanted)
        peer.expect(peer.submit(language.ECHO, b"all the same"), payload=b"all the same")


def expect_beat(peer: Peer, wanted: dict[str, int]) -> None:
    """One of the next beats has these figures."""
    peer.until(
        lambda: wanted.items() <= peer.telemetry().items(),
        f"no beat says {wanted}",
        timeout_s=4 * layout.HEARTBEAT_MS / 1000 + 2,
    )
