"""Links, the asking end: what a worker has another one do for it (docs/links.md)."""

from __future__ import annotations

import os
import signal
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from bridge.fabric import layout
from workers.conformance import language
from workers.conformance.bench import Bench, Chapter
from workers.conformance.channel import ALL_SEALS, BODY_BYTES_MAX, Channel
from workers.conformance.jobs import (
    CANCELLED,
    CODE_REFUSED,
    CODE_UNKNOWN_OPCODE,
    FAILED,
    PART,
    Broke,
    NotOffered,
)
from workers.conformance.language import noise
from workers.conformance.link import pack
from workers.conformance.memory import memfd, seal
from workers.conformance.other_worker import FORGET, REPLY, Message, OtherWorker, completion
from workers.conformance.peer import Peer, now_ns

CHAPTER = Chapter("Links to other workers: asking")
ANSWERED, PEER_FAILED, GIVEN_UP, OVER, BROKEN, TOO_LATE = range(6)
PROTOCOL = 76
FOREVER_MS = 60_000


def request(
    link: int, opcode: int, payload: bytes, *, timeout_ms: int = FOREVER_MS, term: bool = False
) -> bytes:
    return struct.pack("<IIHB", link, timeout_ms, opcode, term) + payload


def told(how: int, payload: bytes = b"", *, term: bool = False, code: int = 0) -> bytes:
    """The answer of `peer_call`."""
    return struct.pack("<BBH", how, term, code) + payload


def start(bench: Bench, **plan: Any) -> tuple[Peer, Channel]:
    """A worker that asks for links. Raises NotOffered."""
    peer = bench.start(**plan)
    answer = peer.expect_any(peer.submit(language.PEER_CLOSE, struct.pack("<I", 99)))
    if answer.status == FAILED and answer.code == CODE_UNKNOWN_OPCODE:
        raise NotOffered(answer.payload.decode(errors="replace"))
    return peer, Channel(peer)


class Asker:
    """A worker under test with one link, whose other end is ours."""

    def __init__(self, bench: Bench, **plan: Any) -> None:
        self.peer, self.channel = start(bench, **plan)
        self.other, self.link = grant(self.peer, self.channel, 0, bench)

    def ask(self, opcode: int, payload: bytes = b"", **how: Any) -> tuple[int, Message]:
        """Has it ask for something: its job, and the request as it came."""
        sizes = {name: how.pop(name) for name in ("timeout_ms", "term") if name in how}
        body = request(self.link, opcode, payload, **sizes)
        job = self.peer.submit(language.PEER_CALL, body, **how)
        message = self.other.receive(layout.PACKET_CALL)
        if message.payload != payload:
            raise Broke(f"asked was {message.payload[:40]!r}, not {payload[:40]!r}")
        return job, message

    def expect_works(self) -> None:
        """The link is good for a request."""
        expect_answered(self)

    def expect_over(self) -> None:
        """The link is not, and the worker goes on."""
        job = self.peer.submit(language.PEER_CALL, request(self.link, 3, b"more"))
        self.peer.expect(job, payload=told(OVER))
        self.peer.expect(self.peer.submit(language.ECHO, b"on"), payload=b"on")


def grant(peer: Peer, channel: Channel, number: int, bench: Bench) -> tuple[OtherWorker, int]:
    """Has it open a link: our end of it, and which one it is to the worker."""
    job = peer.submit(language.PEER_OPEN, b"tide-tables")
    packet = channel.receive(layout.PACKET_PEER_OPEN)
    if packet.body != b"tide-tables" or not packet.id or packet.job != job:
        raise Broke(f"a link is asked for by {packet}, for job {job}")
    peer.silence(0.01)
    other = OtherWorker(peer)
    bench.closing.append(other)
    channel.reply(packet, struct.pack("<Q", 4000 + number), fd=other.take_end())
    peer.expect(job, payload=struct.pack("<I", number))
    return other, number


@CHAPTER.rule(151, "a link is asked for by a role's name, and given back by its number")
def opened_and_closed(bench: Bench) -> None:
    peer, channel = start(bench)
    ends = [grant(peer, channel, number, bench) for number in range(3)]
    for other, link in (ends[1], ends[0], ends[2]):
        job = peer.submit(language.PEER_CLOSE, struct.pack("<I", link))
        packet = channel.receive(layout.PACKET_PEER_CLOSE)
        if packet.body != struct.pack("<Q", 4000 + link) or not packet.id or packet.job != job:
            raise Broke(f"link {4000 + link} is given back by {packet}, in job {job}")
        other.expect_over()
        channel.reply(packet)
        peer.expect(job, payload=b"")


@CHAPTER.rule(152, "a link that the bridge refuses has failed the job, and no other")
def refused(bench: Bench) -> None:
    peer, channel = start(bench)
    for code in (
        layout.CHANNEL_ERROR_REFUSED,
        layout.CHANNEL_ERROR_NO_PROCESS,
        layout.CHANNEL_ERROR_BUSY,
        4711,
    ):
        job = peer.submit(language.PEER_OPEN, b"tide-tables")
        channel.reply(channel.receive(layout.PACKET_PEER_OPEN), b"w\4busy", error=code)
        peer.expect(job, FAILED, code=CODE_REFUSED)
    other, link = grant(peer, channel, 0, bench)
    job = peer.submit(language.PEER_CALL, request(link, 3, b"height"))
    other.reply(other.receive(layout.PACKET_CALL), b"4 m")
    peer.expect(job, payload=told(ANSWERED, b"4 m"))
    for without in (bench.start(channel=False), bench.start()):
        Channel(without).hang_up()
        job = without.submit(language.PEER_OPEN, b"tide-tables")
        without.expect(job, FAILED, code=CODE_REFUSED)


@CHAPTER.rule(153, "a request goes out with its job, deadline, priority and trace")
def a_request(bench: Bench) -> None:
    asker = Asker(bench)
    trace = (bytes(range(16)), bytes(range(8, 16)), 1)
    last = 0
    for timeout_ms, deadline_ms in ((60_000, 0), (60_000, 20_000), (10_000, 90_000)):
        begin = now_ns()
        deadline = begin + deadline_ms * 1_000_000 if deadline_ms else 0
        job, asked = asker.ask(
            41, b"height", timeout_ms=timeout_ms, deadline_ns=deadline, trace=trace
        )
        until = int(asked.envelope["deadline_ns"])
        earliest, latest = begin + timeout_ms * 1_000_000, now_ns() + timeout_ms * 1_000_000
        if deadline and deadline < earliest:
            earliest = latest = deadline
        if not earliest <= until <= latest:
            raise Broke(f"a request's deadline is {until}, not from {earliest} to {latest}")
        if asked.id <= last:
            raise Broke(f"the number of a request is {asked.id}, after {last}")
        last = asked.id
        asked.has(
            job=job,
            opcode=41,
            deadline_ns=until,
            payload_bytes=6,
            priority=2,
            trace_id=trace[0],
            span_id=trace[1],
            trace_flags=trace[2],
        )
        asker.other.reply(asked)
        asker.peer.expect(job, payload=told(ANSWERED))


@CHAPTER.rule(154, "an answer comes as it was given: raw, as a term, failed, given up")
def answers(bench: Bench) -> None:
    asker = Asker(bench)
    term = b"m\0\0\0\4tide"
    for payload, flags, is_term in ((b"4 m", 0, False), (term, layout.FLAG_TERM, True)):
        job, asked = asker.ask(3, payload, term=is_term)
        if asked.envelope["flags"] != flags:
            raise Broke(f"the flags of a request are {asked.envelope['flags']!r}, not {flags}")
        asker.other.reply(asked, payload, flags=flags)
        asker.peer.expect(job, payload=told(ANSWERED, payload, term=is_term))
    job, asked = asker.ask(3)
    asker.other.reply(asked, b"no such port", status=FAILED, code=40_001)
    asker.peer.expect(job, payload=told(PEER_FAILED, b"no such port", code=40_001))
    job, asked = asker.ask(3)
    asker.other.reply(asked, status=CANCELLED)
    asker.peer.expect(job, payload=told(GIVEN_UP))
    # What it says to be a term it has to know to be one.
    job = asker.peer.submit(language.PEER_CALL, request(asker.link, 3, b"m\0", term=True))
    asker.peer.expect(job, FAILED, code=CODE_REFUSED)
    asker.other.silence(0.01)


@CHAPTER.rule(155, "a request or an answer that does not fit goes and comes in a sealed memfd")
def large_bodies(bench: Bench) -> None:
    asker = Asker(bench)
    edge = BODY_BYTES_MAX - layout.REQUEST.size
    for size in (edge, edge + 1, 300_000):
        job, asked = asker.ask(3, noise(size))
        if asked.by_memfd != (size > edge):
            raise Broke(f"a request of {size} bytes came in a memfd: {asked.by_memfd}")
        asker.other.reply(asked, noise(size, 2))
        asker.peer.expect(job, payload=told(ANSWERED, noise(size, 2)))
    expect_no_body_open(asker.peer)


def expect_no_body_open(peer: Peer) -> None:
    if left := [name for name in peer.process.open_files().values() if "body" in name]:
        raise Broke(f"descriptors of bodies are left open: {left}")


@CHAPTER.rule(156, "a request waits for its time, is forgotten then; a late answer is dropped")
def too_late(bench: Bench) -> None:
    asker = Asker(bench)
    late = []
    for _ in range(3):
        job, asked = asker.ask(3, timeout_ms=30)
        asker.peer.expect(job, payload=told(TOO_LATE))
        expect_forgotten(asker, asked)
        late.append(asked)
    for asked in late:
        asker.other.reply(asked, b"late")
    asker.expect_works()


def expect_forgotten(asker: Asker, asked: Message) -> None:
    if (forgotten := asker.other.receive(FORGET)).id != asked.id:
        raise Broke(f"request {forgotten.id} is forgotten, not {asked.id}")


@CHAPTER.rule(157, "a cancel, the job's deadline and a stop end the wait for a peer")
def cancelled(bench: Bench) -> None:
    asker = Asker(bench)
    job, asked = asker.ask(3)
    asker.peer.cancel(job)
    asker.peer.expect(job, CANCELLED)
    expect_forgotten(asker, asked)
    job, asked = asker.ask(3, deadline_ns=now_ns() + 300_000_000)
    asker.peer.expect(job, CANCELLED)
    expect_forgotten(asker, asked)
    asker.expect_works()
    job, asked = asker.ask(3)
    asker.peer.control(layout.CONTROL_STOP)
    asker.peer.expect(job, CANCELLED)
    asker.peer.expect_exit(0)


@CHAPTER.rule(158, "the end of a link ends the wait, and each later request at once")
def ended(bench: Bench) -> None:
    for end in (OtherWorker.close, OtherWorker.shut_down):
        asker = Asker(bench)
        job, _ = asker.ask(3)
        end(asker.other)
        asker.peer.expect(job, payload=told(OVER))
        asker.expect_over()
        bench.close()
        asker = Asker(bench)
        end(asker.other)  # between two requests
        asker.expect_over()
        asker.expect_over()
        other, link = grant(asker.peer, asker.channel, 1, bench)  # another one is as good
        asker.other, asker.link = other, link
        asker.expect_works()
        bench.close()


def head(kind: int, id_: int, size: int, flags: int = 0, reserved: int = 0) -> bytes:
    return layout.PACKET.format.pack(kind, flags, reserved, id_, 0, size)


def spoiled(asked: Message, **fields: int | bytes) -> bytes:
    """An answer of four bytes with other fields in its envelope."""
    right: dict[str, int | bytes] = {"job": asked.envelope["job"], "payload_bytes": 4}
    return pack(layout.COMPLETION, right | fields) + b"4 m "


WRONG_ANSWERS: tuple[tuple[str, Callable[[Message], bytes]], ...] = (
    ("shorter than its head", lambda _: b"short"),
    ("no envelope", lambda a: head(REPLY, a.id, 4) + b"4 m "),
    ("another size than told", lambda a: head(REPLY, a.id, 200) + completion(a, b"")),
    ("a flag that none has", lambda a: head(REPLY, a.id, 128, flags=4) + completion(a, b"")),
    ("reserved", lambda a: head(REPLY, a.id, 128, reserved=1) + completion(a, b"")),
    ("a kind of its own", lambda a: head(29, a.id, 128) + completion(a, b"")),
    ("a number that was not asked", lambda a: head(REPLY, a.id + 1, 128) + completion(a, b"")),
    ("a request", lambda a: head(layout.PACKET_CALL, a.id, 128) + completion(a, b"")),
    ("a payload as told elsewhere", lambda a: head(REPLY, a.id, 132) + spoiled(a, payload_bytes=5)),
    ("a status that none has", lambda a: head(REPLY, a.id, 132) + spoiled(a, status=PART)),
    ("flags that none has", lambda a: head(REPLY, a.id, 132) + spoiled(a, flags=1)),
    (
        "a term that is none",
        lambda a: head(REPLY, a.id, 132) + spoiled(a, flags=layout.FLAG_TERM),
    ),
    ("a memfd that is not there", lambda a: head(REPLY, a.id, 128, layout.PACKET_FLAG_MEMFD)),
)


@CHAPTER.rule(159, "a peer that breaks a rule loses its link, and nothing else happens")
def broken_answers(bench: Bench) -> None:
    for what, wrong in WRONG_ANSWERS:
        asker = Asker(bench)
        job, asked = asker.ask(3)
        asker.other.say_raw(wrong(asked))
        try:
            asker.peer.expect(job, payload=told(BROKEN))
            asker.expect_over()
        except Broke as error:
            raise Broke(f"{what}: {error}") from None
        bench.close()


MEMFD = layout.PACKET_FLAG_MEMFD
# What is said of a memfd of 200 bytes, its seals, and its size.
WRONG_BODIES = (
    ("not sealed", MEMFD, 0, 200),
    ("sealed in part", MEMFD, ALL_SEALS & ~8, 200),
    ("longer than told", MEMFD, ALL_SEALS, 4096),
    ("beside a body", 0, ALL_SEALS, 200),
)


@CHAPTER.rule(160, "so does one whose descriptors do not belong, and they are closed")
def broken_descriptors(bench: Bench) -> None:
    for what, flags, seals, size in WRONG_BODIES:
        asker = Asker(bench)
        job, asked = asker.ask(3)
        body = completion(asked, bytes(72)) + bytes(72)
        fd = memfd("body", size)
        os.pwrite(fd, body, 0)
        seal(fd, seals)
        tail = b"" if flags else body
        with suppress(BrokenPipeError):
            asker.other.say_raw(head(REPLY, asked.id, 200, flags) + tail, [fd])
        os.close(fd)
        expect_thrown_out(asker, job, what)
        bench.close()
    asker = Asker(bench)
    job, asked = asker.ask(3)
    reading, writing = os.pipe()
    asker.other.say_raw(head(REPLY, asked.id, 200, MEMFD), [writing])
    os.close(writing)
    try:
        expect_thrown_out(asker, job, "no memfd")
    finally:
        os.close(reading)


def expect_thrown_out(asker: Asker, job: int, what: str) -> None:
    try:
        asker.peer.expect(job, payload=told(BROKEN))
        asker.expect_over()
        asker.peer.until(
            lambda: (
                not any(
                    "body" in name or "pipe" in name
                    for name in asker.peer.process.open_files().values()
                )
            ),
            "a descriptor that came over a link stays open",
        )
    except Broke as error:
        raise Broke(f"{what}: {error}") from None


@CHAPTER.rule(161, "a link that the bridge grants without its socket or number ends it with 76")
def broken_grants(bench: Bench) -> None:
    for body, with_socket in ((struct.pack("<Q", 1), False), (b"", True), (b"short", True)):
        peer, channel = start(bench)
        peer.submit(language.PEER_OPEN, b"tide-tables")
        packet = channel.receive(layout.PACKET_PEER_OPEN)
        other = OtherWorker(peer)
        bench.closing.append(other)
        channel.reply(packet, body, fd=other.take_end() if with_socket else -1)
        peer.expect_exit(PROTOCOL)
        bench.close()


@CHAPTER.rule(175, "a link granted to a job that waits no more is given back, as nobody has it")
def granted_too_late(bench: Bench) -> None:
    peer, channel = start(bench)
    job = peer.submit(language.PEER_OPEN, b"tide-tables")
    asked = channel.receive(layout.PACKET_PEER_OPEN)
    peer.cancel(job)
    peer.expect(job, CANCELLED)
    late = OtherWorker(peer)
    bench.closing.append(late)
    channel.reply(asked, struct.pack("<Q", 3999), fd=late.take_end())
    # Whoever is asked for next finds it, while he waits for his own.
    job = peer.submit(language.PEER_OPEN, b"tide-tables")
    packets = [channel.receive_any() for _ in range(2)]
    packets.sort(key=lambda packet: packet.kind)
    if [p.kind for p in packets] != [layout.PACKET_PEER_OPEN, layout.PACKET_PEER_CLOSE]:
        raise Broke(f"after a late grant come packets of kinds {[p.kind for p in packets]}")
    if packets[1].body != struct.pack("<Q", 3999) or not packets[1].id:
        raise Broke(f"link 3999, granted too late, is given back by {packets[1]}")
    late.expect_over()
    channel.reply(packets[1])
    other = OtherWorker(peer)
    bench.closing.append(other)
    channel.reply(packets[0], struct.pack("<Q", 4000), fd=other.take_end())
    link = peer.expect(job).payload
    job = peer.submit(language.PEER_CALL, request(int.from_bytes(link, "little"), 3, b"on"))
    other.reply(other.receive(layout.PACKET_CALL), b"and on")
    peer.expect(job, payload=told(ANSWERED, b"and on"))


@CHAPTER.rule(176, "what a peer gives up at its deadline is too late, and not given up")
def given_up_in_time(bench: Bench) -> None:
    asker = Asker(bench)
    for _ in range(10):
        job, asked = asker.ask(3, timeout_ms=20)
        wait_until(int(asked.envelope["deadline_ns"]))
        asker.other.reply(
            asked, status=CANCELLED
        )  # it may still be waiting, for a few microseconds
        asker.peer.expect(job, payload=told(TOO_LATE))
        asker.other.poll(0.0)  # it may have forgotten it before
    # One that stands still meanwhile finds both when it goes on, however busy the machine is.
    job, asked = asker.ask(3, timeout_ms=100)
    time.sleep(0.02)  # until it waits
    asker.peer.process.signal(signal.SIGSTOP)
    wait_until(int(asked.envelope["deadline_ns"]))
    asker.other.reply(asked, status=CANCELLED)
    asker.peer.process.signal(signal.SIGCONT)
    asker.peer.expect(job, payload=told(TOO_LATE))
    asker.other.poll(0.0)
    job, asked = asker.ask(3, deadline_ns=now_ns() + 300_000_000)
    wait_until(int(asked.envelope["deadline_ns"]))
    asker.other.reply(asked, status=CANCELLED)
    asker.peer.expect(job, CANCELLED)


def wait_until(moment_ns: int) -> None:
    """To the microsecond: it turns for the last of it."""
    time.sleep(max(0, moment_ns - now_ns() - 2_000_000) / 1e9)
    while now_ns() < moment_ns:
        pass


@CHAPTER.rule(177, "a peer that answers a request twice, or an older one later, loses its link")
def answered_again(bench: Bench) -> None:
    """Else it could answer for ever what nobody waits for, and hold up who waits."""
    asker = Asker(bench)
    _, asked = expect_answered(asker)
    expect_broken_by(asker, [asked])
    bench.close()
    for order in ((0, 0), (1, 0), (0, 1, 1)):
        asker, late = Asker(bench), []
        for _ in range(2):
            job, asked = asker.ask(3, timeout_ms=30)
            asker.peer.expect(job, payload=told(TOO_LATE))
            expect_forgotten(asker, asked)
            late.append(asked)
        expect_broken_by(asker, [late[i] for i in order])
        bench.close()


def expect_answered(asker: Asker) -> tuple[int, Message]:
    job, asked = asker.ask(3, b"on")
    asker.other.reply(asked, b"and on")
    asker.peer.expect(job, payload=told(ANSWERED, b"and on"))
    return job, asked


def expect_broken_by(asker: Asker, again: Sequence[Message]) -> None:
    """While it waits for another answer, these come."""
    job, _ = asker.ask(3)
    for asked in again:
        with suppress(BrokenPipeError):
            asker.other.reply(asked, b"again")
    asker.peer.expect(job, payload=told(BROKEN))
    asker.expect_over()
