"""Links, the serving end: what a worker does for another one (docs/links.md)."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable

from bridge.fabric import layout
from workers.conformance import language
from workers.conformance.bench import Bench, Chapter
from workers.conformance.channel import ALL_SEALS, BODY_BYTES_MAX, Channel
from workers.conformance.jobs import CANCELLED, CODE_NO_ANSWER, FAILED, OK, Broke, NotOffered
from workers.conformance.language import milliseconds, noise
from workers.conformance.link import pack
from workers.conformance.memory import memfd, seal
from workers.conformance.other_worker import CALL, FORGET, REPLY, OtherWorker
from workers.conformance.peer import Peer, now_ns
from workers.conformance.rules.waking import (
    expect_asleep,
    expect_ring_before_the_sleep,
    expect_second_look,
)

CHAPTER = Chapter("Links to other workers: serving")
ROLE = "conformance-links"
PROTOCOL = 76
A_LONG_TIME = milliseconds(60_000)


def start_without_answer(bench: Bench) -> tuple[Peer, Channel, int]:
    """A worker that has said that it serves, and waits with its hello. Raises NotOffered."""
    peer = bench.start(greet=False, role=ROLE)
    channel = Channel(peer)
    hello = peer.link.worker.word(layout.WORKER_HEADER.at("hello"), 32)
    while (packet := channel.poll(0.02)) is None:
        if hello.load() == layout.HELLO_READY:
            raise NotOffered(f"in the role {ROLE} it says hello and not that it serves others")
        if peer.process.has_ended():
            peer.greet()
    if packet.kind != layout.PACKET_PEER_OPEN or packet.body or not packet.id:
        raise Broke(f"before its hello comes {packet}, not that it serves others")
    return peer, channel, packet.id


def start(bench: Bench) -> tuple[Peer, Channel]:
    peer, channel, id_ = start_without_answer(bench)
    channel.reply(id_)
    peer.greet()
    return peer, channel


def offer(bench: Bench, peer: Peer, channel: Channel, number: int = 1) -> OtherWorker:
    """A link to it: the end that asks."""
    other = OtherWorker(peer)
    bench.closing.append(other)
    body = struct.pack("<Q", number) + b"sea-routes"
    channel.say(layout.PACKET_PEER_OFFER, body, fd=other.take_end())
    return other


def start_with_link(bench: Bench) -> tuple[Peer, OtherWorker]:
    peer, channel = start(bench)
    return peer, offer(bench, peer, channel)


def expect_serves(other: OtherWorker) -> None:
    other.expect(other.call(language.ECHO, b"on"), OK, b"on")


def expect_serves_nobody(other: OtherWorker, peer: Peer) -> None:
    """The link is over, and the worker goes on."""
    other.expect_over()
    peer.expect(peer.submit(language.ECHO, b"on"), payload=b"on")


@CHAPTER.rule(162, "it says before its hello that it serves, and serves jobs where nobody hears it")
def says_so(bench: Bench) -> None:
    peer, _ = start_with_link(bench)
    expect_serves(offer(bench, peer, Channel(peer), 2))
    bench.close()
    peer, channel, id_ = start_without_answer(bench)
    channel.reply(id_, error=layout.CHANNEL_ERROR_UNAVAILABLE)
    peer.greet()
    peer.expect(peer.submit(language.ECHO, b"on"), payload=b"on")
    bench.close()
    peer, channel, _ = start_without_answer(bench)
    channel.hang_up()
    peer.greet()
    peer.expect(peer.submit(language.ECHO, b"on"), payload=b"on")
    bench.close()
    peer = bench.start(role=ROLE, channel=False)
    peer.expect(peer.submit(language.ECHO, b"on"), payload=b"on")


@CHAPTER.rule(163, "a request goes through the handler, and its answer back as it was given")
def requests(bench: Bench) -> None:
    _, other = start_with_link(bench)
    for payload in (b"", b"4 m", noise(5000)):
        answer = other.expect(other.call(language.ECHO, payload, job=77), OK, payload)
        answer.has(job=77, run_ns=answer.envelope["run_ns"], payload_bytes=len(payload))
    term = b"m\0\0\0\4tide"
    answer = other.expect(other.call(language.ECHO, term, flags=layout.FLAG_TERM), OK, term)
    if answer.envelope["flags"] != layout.FLAG_TERM:
        raise Broke("a term is answered to a peer as raw bytes")
    id_ = other.call(language.FAIL, language.fail(40_001, b"no such port"))
    other.expect(id_, FAILED, b"no such port", code=40_001)
    id_ = other.call(language.END, language.end(language.NO_ANSWER))
    other.expect(id_, FAILED, code=CODE_NO_ANSWER)
    answer = other.expect(other.call(language.SLEEP, milliseconds(20)), OK, b"")
    if not 20_000_000 <= int(answer.envelope["run_ns"]) < 20_000_000_000:
        raise Broke(f"a sleep of 20 ms ran {answer.envelope['run_ns']!r} ns")


@CHAPTER.rule(164, "its handler is told the asking job's number, deadline and trace, and no wishes")
def about_the_asker(bench: Bench) -> None:
    _, other = start_with_link(bench)
    trace = (bytes(range(16)), bytes(range(8, 16)), 1)
    deadline = now_ns() + 60_000_000_000
    id_ = other.call(language.ABOUT, job=1 << 45, deadline_ns=deadline, trace=trace)
    wanted = struct.pack("<QQIB", 1 << 45, deadline, 0, 0) + trace[0] + trace[1] + b"\1"
    other.expect(id_, OK, wanted)


@CHAPTER.rule(165, "a request is no job: nothing of it shows on the link to the bridge")
def no_job(bench: Bench) -> None:
    peer, other = start_with_link(bench)
    for _ in range(5):
        expect_serves(other)
    other.expect(other.call(language.FAIL, language.fail(9)), FAILED, code=9)
    if peer.started.load() or peer.completion_tail.load() or peer.request_head.load():
        raise Broke("requests of a peer have moved the positions of the link to the bridge")
    peer.expect(peer.submit(language.ECHO, b"on"), payload=b"on")
    peer.control(layout.CONTROL_DRAIN)
    peer.expect_exit(0)
    beat = peer.telemetry()
    if beat["jobs"] != 1 or beat["failed"]:
        raise Broke(f"its last beat counts {beat['jobs']} jobs, {beat['failed']} failed, of 1")
    other.expect_over()


@CHAPTER.rule(166, "a request or an answer that does not fit comes and goes in a sealed memfd")
def large_bodies(bench: Bench) -> None:
    peer, other = start_with_link(bench)
    edge = BODY_BYTES_MAX - layout.REQUEST.size
    more_than_the_region = peer.plan.result_bytes + 4096
    for size in (edge, edge + 1, 300_000, more_than_the_region):
        answer = other.expect(other.call(language.ECHO, noise(size)), OK, noise(size))
        if answer.by_memfd != (size > edge):
            raise Broke(f"an answer of {size} bytes came in a memfd: {answer.by_memfd}")
    if left := [name for name in peer.process.open_files().values() if "body" in name]:
        raise Broke(f"descriptors of bodies are left open: {left}")


@CHAPTER.rule(167, "requests are served between its jobs, of all links, however busy it is")
def between_jobs(bench: Bench) -> None:
    peer, channel = start(bench)
    others = [offer(bench, peer, channel, number) for number in range(1, 4)]
    jobs = [peer.put(language.SLEEP, A_LONG_TIME) for _ in range(4)]
    peer.publish()
    peer.await_started(1)
    asked = [(other, other.call(language.ECHO, b"on")) for other in others]
    others[0].silence(0.02)  # never in the middle of a job
    peer.cancel(jobs[0])
    for other, id_ in asked:
        other.expect(id_, OK, b"on")
    late = offer(bench, peer, channel, 4)
    id_ = late.call(language.ECHO, b"on")
    for count, job in enumerate(jobs[1:3], 2):  # it may take the offer first, and look again later
        peer.await_started(count)
        time.sleep(0.005)
        peer.cancel(job)
    late.expect(id_, OK, b"on")
    peer.cancel(jobs[3])
    for job in jobs:
        peer.expect(job, CANCELLED)


@CHAPTER.rule(168, "who forgets a request, says anything else or ends takes it back")
def taken_back(bench: Bench) -> None:
    peer, channel = start(bench)
    other = offer(bench, peer, channel, 1)
    expect_serves(other)
    id_ = other.call(language.SLEEP, A_LONG_TIME)
    await_begun(other)
    other.say(FORGET, b"", id_=id_)
    other.expect(id_, CANCELLED)
    expect_serves(other)  # the link is as good as before
    for end in (OtherWorker.close, OtherWorker.shut_down):
        ending = offer(bench, peer, channel, 2)
        expect_serves(ending)
        ending.call(language.SLEEP, A_LONG_TIME)
        await_begun(ending)
        end(ending)
        expect_serves(other)
    peer.expect(peer.submit(language.ECHO, b"on"), payload=b"on")
    id_ = other.call(language.SLEEP, A_LONG_TIME)
    await_begun(other)
    other.call(language.ECHO, b"the next one")  # takes back what it does not wait for
    other.expect(id_, CANCELLED)
    other.expect(id_ + 1, OK, b"the next one")


def await_begun(other: OtherWorker) -> None:
    """It has taken the request; a moment later its handler is in the midst of it."""
    other.until_read()
    time.sleep(0.01)


@CHAPTER.rule(169, "a request past its deadline is never run, a stop ends the one that runs")
def deadlines(bench: Bench) -> None:
    peer, other = start_with_link(bench)
    id_ = other.call(language.END, language.end(language.EXIT, 42), deadline_ns=now_ns() - 1)
    other.expect(id_, CANCELLED)
    id_ = other.call(language.SLEEP, A_LONG_TIME, deadline_ns=now_ns() + 50_000_000)
    other.expect(id_, CANCELLED)
    id_ = other.call(language.SLEEP, A_LONG_TIME)
    await_begun(other)
    peer.control(layout.CONTROL_STOP)
    other.expect(id_, CANCELLED)
    peer.expect_exit(0)
    other.expect_over()


def head(kind: int, id_: int, size: int, flags: int = 0, reserved: int = 0) -> bytes:
    return layout.PACKET.format.pack(kind, flags, reserved, id_, 0, size)


def asking(**fields: int | bytes) -> bytes:
    """A request with a payload of four bytes."""
    return pack(layout.REQUEST, {"payload_bytes": 4, **fields}) + b"4 m "


# Each as the second message of a link, whose first request had number 1.
WRONG_REQUESTS: tuple[tuple[str, Callable[[], bytes]], ...] = (
    ("shorter than its head", lambda: b"short"),
    ("no envelope", lambda: head(CALL, 2, 4) + b"4 m "),
    ("another size than told", lambda: head(CALL, 2, 200) + asking()),
    ("a flag that none has", lambda: head(CALL, 2, 132, flags=4) + asking()),
    ("reserved", lambda: head(CALL, 2, 132, reserved=1) + asking()),
    ("a kind of its own", lambda: head(29, 2, 132) + asking()),
    ("an answer", lambda: head(REPLY, 2, 132) + asking()),
    ("a number that was there", lambda: head(CALL, 1, 132) + asking()),
    ("a payload as told elsewhere", lambda: head(CALL, 2, 132) + asking(payload_bytes=5)),
    ("flags that none has", lambda: head(CALL, 2, 132) + asking(flags=layout.FLAG_PARTS)),
    ("a term that is none", lambda: head(CALL, 2, 132) + asking(flags=layout.FLAG_TERM)),
    ("a memfd that is not there", lambda: head(CALL, 2, 132, flags=layout.PACKET_FLAG_MEMFD)),
    ("a forget with a body", lambda: head(FORGET, 1, 4) + b"4 m "),
)


@CHAPTER.rule(170, "a request that breaks a rule loses its link, and nothing else happens")
def broken_requests(bench: Bench) -> None:
    peer, channel = start(bench)
    good = offer(bench, peer, channel, 1)
    for number, (what, wrong) in enumerate(WRONG_REQUESTS, 2):
        other = offer(bench, peer, channel, number)
        expect_serves(other)
        other.say_raw(wrong())
        try:
            expect_serves_nobody(other, peer)
        except Broke as error:
            raise Broke(f"{what}: {error}") from None
    expect_serves(good)


MEMFD = layout.PACKET_FLAG_MEMFD
# What is said of a memfd of 200 bytes, its seals, and its size.
WRONG_BODIES = (
    ("not sealed", MEMFD, 0, 200),
    ("sealed in part", MEMFD, ALL_SEALS & ~8, 200),
    ("longer than told", MEMFD, ALL_SEALS, 4096),
    ("beside a body", 0, ALL_SEALS, 200),
)


@CHAPTER.rule(171, "so does one whose descriptors do not belong, and they are closed")
def broken_descriptors(bench: Bench) -> None:
    peer, channel = start(bench)
    body = pack(layout.REQUEST, {"payload_bytes": 72}) + bytes(72)
    for number, (what, flags, seals, size) in enumerate(WRONG_BODIES, 1):
        other = offer(bench, peer, channel, number)
        fd = memfd("body", size)
        os.pwrite(fd, body, 0)
        seal(fd, seals)
        other.say_raw(head(CALL, 1, 200, flags) + (b"" if flags else body), [fd])
        os.close(fd)
        expect_thrown_out(other, peer, what)
    other = offer(bench, peer, channel, 9)
    reading, writing = os.pipe()
    other.say_raw(head(CALL, 1, 200, MEMFD), [writing])
    os.close(writing)
    try:
        expect_thrown_out(other, peer, "no memfd")
    finally:
        os.close(reading)


def expect_thrown_out(other: OtherWorker, peer: Peer, what: str) -> None:
    try:
        expect_serves_nobody(other, peer)
        peer.until(
            lambda: (
                not any(
                    "body" in name or "pipe" in name for name in peer.process.open_files().values()
                )
            ),
            "a descriptor that came over a link stays open",
        )
    except Broke as error:
        raise Broke(f"{what}: {error}") from None


@CHAPTER.rule(172, "what its peer does not read or let go of holds up nobody, and none is kept")
def nothing_kept(bench: Bench) -> None:
    peer, channel = start(bench)
    before = len(peer.process.open_files())
    for number in range(1, 300):
        other = offer(bench, peer, channel, number)
        if number % 50 == 0:
            expect_serves(other)
        bench.closing.remove(other)
        other.close()
        if number % 20 == 0:  # so that it has looked at its channel meanwhile
            peer.expect(peer.submit(language.ECHO, b"on"), payload=b"on")
    peer.until(
        lambda: len(peer.process.open_files()) <= before, "ends of links that are over stay open"
    )
    deaf = offer(bench, peer, channel, 301)
    deaf.call_without_reading(language.ECHO, noise(30_000), 2000)
    expect_serves(offer(bench, peer, channel, 302))
    peer.expect(peer.submit(language.ECHO, b"on"), payload=b"on")


@CHAPTER.rule(173, "an offer of the bridge without its socket or number ends it with 76")
def broken_offers(bench: Bench) -> None:
    for body, with_socket in ((struct.pack("<Q", 1) + b"sea", False), (b"short", True)):
        peer, channel = start(bench)
        other = OtherWorker(peer)
        bench.closing.append(other)
        fd = other.take_end() if with_socket else -1
        channel.say(layout.PACKET_PEER_OFFER, body, fd=fd)
        peer.expect_exit(PROTOCOL)
        bench.close()


@CHAPTER.rule(174, "waiting for its links as well, it sleeps and loses no wake-up of the bridge's")
def no_wake_up_lost_beside_the_links(bench: Bench) -> None:
    peer, other = start_with_link(bench)
    expect_serves(other)
    expect_second_look(peer)
    expect_ring_before_the_sleep(peer)
    expect_asleep(peer)
    expect_serves(other)
