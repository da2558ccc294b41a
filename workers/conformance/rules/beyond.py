"""Beyond its jobs: what a worker says over its channel (docs/channel.md)."""

from __future__ import annotations

import struct
from typing import Any

from bridge.fabric import layout
from workers.conformance import language
from workers.conformance.bench import Bench, Chapter
from workers.conformance.channel import BODY_BYTES_MAX, Channel
from workers.conformance.jobs import (
    CANCELLED,
    CODE_REFUSED,
    CODE_UNKNOWN_OPCODE,
    FAILED,
    OK,
    Broke,
    NotOffered,
)
from workers.conformance.language import noise
from workers.conformance.peer import Peer, now_ns
from workers.conformance.rules.waking import (
    expect_asleep,
    expect_ring_before_the_sleep,
    expect_second_look,
)

CHAPTER = Chapter("Beyond its jobs: the channel")
LEVELS = ("debug", "info", "warning", "error")
SAVE_FULL, SAVE_INCREMENT, LOAD = range(3)
NOBODY = b"w\x06nobody"  # the atom
PROTOCOL = 76


def atom(name: str) -> bytes:
    return b"w" + bytes([len(name)]) + name.encode()


def binary(data: bytes) -> bytes:
    return b"m" + struct.pack(">I", len(data)) + data


def call(request: bytes, timeout_ms: int = 60_000, dest: bytes = NOBODY) -> bytes:
    return struct.pack("<II", timeout_ms, len(dest)) + dest + request


def send(message: bytes, dest: bytes = NOBODY) -> bytes:
    return struct.pack("<I", len(dest)) + dest + message


def decoded(term: bytes) -> Any:
    from bridge.etf import decode_bare

    return decode_bare(term)[0]


def start(bench: Bench, opcode: int, payload: bytes) -> tuple[Peer, Channel]:
    """A worker that serves the opcode. Raises NotOffered."""
    peer = bench.start()
    channel = Channel(peer)
    channel.silence(0.01)
    job = peer.submit(opcode, payload)
    while not peer.completion_tail.load() and channel.poll(0.02) is None:
        peer.until(lambda: not peer.process.has_ended(), "it ended")
    if peer.completion_tail.load():
        answer = peer.take()
        if answer.job == job and answer.status == FAILED and answer.code == CODE_UNKNOWN_OPCODE:
            raise NotOffered(answer.payload.decode(errors="replace"))
    bench.close()
    peer = bench.start()
    return peer, Channel(peer)


@CHAPTER.rule(111, "a log line goes out with its level, its text and its job")
def log_lines(bench: Bench) -> None:
    peer, channel = start(bench, language.LOG, b"\1probe")
    for level, name in enumerate(LEVELS):
        text = f"tide {level} rises, 3 m".encode()
        job = peer.submit(language.LOG, bytes([level]) + text)
        packet = channel.receive(layout.PACKET_LOG)
        if packet.term() != (decoded(atom(name)), text) or packet.id or packet.job != job:
            raise Broke(f"{packet} was logged, not {(name, text)} of job {job}")
        peer.expect(job, payload=b"")


@CHAPTER.rule(112, "a log line that finds no room is dropped and counted; its job does not wait")
def log_never_waits(bench: Bench) -> None:
    peer, channel = start(bench, language.LOG, b"\1probe")
    lines = 700
    for _ in range(lines):  # nobody reads
        answer = peer.expect_any(peer.submit(language.LOG, b"\1" + b"x" * 500))
        if answer.status not in (OK, FAILED):
            raise Broke(f"a line that finds no room is answered {answer}")
    texts = []
    while (packet := channel.poll(0.05)) is not None:
        texts.append(packet.term())
    if len(texts) >= lines:
        raise Broke(f"{lines} lines of 500 bytes found room; the socket is too large for this rule")
    dropped = lines - len(texts)
    peer.expect_any(peer.submit(language.LOG, b"\1" + b"the next one"))
    told = channel.receive(layout.PACKET_LOG).term()
    if told[0] != decoded(atom("warning")) or str(dropped).encode() not in told[1]:
        raise Broke(f"{dropped} lines are missing, and what comes next is {told}")
    if channel.receive(layout.PACKET_LOG).term() != (decoded(atom("info")), b"the next one"):
        raise Broke("the line behind the warning is another one")


@CHAPTER.rule(113, "a message goes out to its destination, and no reply is waited for")
def messages(bench: Bench) -> None:
    peer, channel = start(bench, language.SEND, send(atom("probe")))
    for dest in (NOBODY, b"h\2" + atom("name") + atom("n@h"), b"X" + atom("n@h") + bytes(12)):
        message = b"h\2" + atom("tide") + b"a\7"
        job = peer.submit(language.SEND, send(message, dest))
        packet = channel.receive(layout.PACKET_SEND)
        if packet.body != b"h\2" + dest + message or packet.id or packet.job != job:
            raise Broke(f"sent was {packet}, not {{Dest, Message}} of job {job}")
        peer.expect(job, payload=b"")


@CHAPTER.rule(114, "a call goes out with its timeout, and is answered with the reply")
def calls(bench: Bench) -> None:
    peer, channel = start(bench, language.CALL, call(atom("probe"), 1))
    ids = set()
    for size in (0, 5, 50_000):
        job = peer.submit(language.CALL, call(atom("height"), 4000))
        packet = channel.receive(layout.PACKET_CALL)
        ids.add(packet.id)
        if packet.term() != (decoded(NOBODY), decoded(atom("height")), 4000):
            raise Broke(f"called was {packet.term()}")
        if not packet.id or packet.job != job:
            raise Broke(f"a call has id {packet.id} and job {packet.job} for {job}")
        peer.silence(0.01)
        channel.reply(packet, binary(noise(size)))
        peer.expect(job, payload=binary(noise(size)), term=True)
    if len(ids) != 3:
        raise Broke(f"ids of calls are used again at once: {ids}")


@CHAPTER.rule(115, "a call waits no longer than its job's deadline")
def call_until_the_deadline(bench: Bench) -> None:
    peer, channel = start(bench, language.CALL, call(atom("probe"), 1))
    deadline = now_ns() + 300_000_000
    job = peer.submit(language.CALL, call(atom("height")), deadline_ns=deadline)
    packet = channel.receive(layout.PACKET_CALL)
    if (timeout_ms := packet.term()[2]) > 301:
        raise Broke(f"a call of a job with 300 ms left may take {timeout_ms} ms")
    peer.expect(job, CANCELLED)
    if channel.receive(layout.PACKET_FORGET).id != packet.id:
        raise Broke("another call is forgotten than the one that waited")


@CHAPTER.rule(116, "each error of a call has failed the job, a code that nobody knows too")
def call_errors(bench: Bench) -> None:
    peer, channel = start(bench, language.CALL, call(atom("probe"), 1))
    for code in (*range(1, 12), 4711):
        job = peer.submit(language.CALL, call(atom("height")))
        channel.reply(channel.receive(layout.PACKET_CALL), atom("reason"), error=code)
        peer.expect(job, FAILED, code=CODE_REFUSED)


@CHAPTER.rule(
    117, "a cancel ends the wait for a reply: the call is forgotten, its late reply dropped"
)
def cancelled_call(bench: Bench) -> None:
    peer, channel = start(bench, language.CALL, call(atom("probe"), 1))
    job = peer.submit(language.CALL, call(atom("height")))
    packet = channel.receive(layout.PACKET_CALL)
    peer.cancel(job)
    peer.expect(job, CANCELLED)
    if channel.receive(layout.PACKET_FORGET).id != packet.id:
        raise Broke("another call is forgotten than the one that waited")
    channel.reply(packet, atom("late"))
    job = peer.submit(language.CALL, call(atom("height")))
    channel.reply(channel.receive(layout.PACKET_CALL), atom("now"))
    peer.expect(job, payload=atom("now"), term=True)


@CHAPTER.rule(118, "what does not fit into a packet goes and comes in a sealed memfd")
def large_bodies(bench: Bench) -> None:
    peer, channel = start(bench, language.CALL, call(atom("probe"), 1))
    for size in (BODY_BYTES_MAX - 100, BODY_BYTES_MAX, 200_000):
        request = binary(noise(size))
        job = peer.submit(language.CALL, call(request))
        packet = channel.receive(layout.PACKET_CALL)
        if request not in packet.body:
            raise Broke(f"a request of {size} bytes is not whole")
        channel.reply(packet, request)
        peer.expect(job, payload=request, term=True)
    if left := [name for name in peer.process.open_files().values() if "body" in name]:
        raise Broke(f"descriptors of bodies are left open: {left}")


@CHAPTER.rule(119, "a checkpoint is saved when the bridge says so, in full and in increments")
def checkpoints(bench: Bench) -> None:
    peer, channel = start(bench, language.CHECKPOINT, bytes([LOAD]))
    for what, kind in (
        (SAVE_FULL, layout.CHECKPOINT_FULL),
        (SAVE_INCREMENT, layout.CHECKPOINT_INCREMENTAL),
    ):
        for size in (10, 150_000):
            job = peer.submit(language.CHECKPOINT, bytes([what]) + noise(size))
            packet = channel.receive(layout.PACKET_CHECKPOINT_SAVE)
            if packet.body != struct.pack("<Q", kind) + noise(size) or not packet.id:
                raise Broke(f"saved was {len(packet.body)} bytes with id {packet.id}")
            peer.silence(0.01)
            channel.reply(packet)
            peer.expect(job, payload=b"")
    job = peer.submit(language.CHECKPOINT, bytes([SAVE_INCREMENT]) + b"more")
    packet = channel.receive(layout.PACKET_CHECKPOINT_SAVE)
    channel.reply(packet, atom("full_wanted"), error=layout.CHANNEL_ERROR_FULL_WANTED)
    peer.expect(job, FAILED, code=CODE_REFUSED)


@CHAPTER.rule(120, "a state is loaded with its increments behind it")
def loads(bench: Bench) -> None:
    peer, channel = start(bench, language.CHECKPOINT, bytes([LOAD]))
    for parts in ((), (b"full",), (noise(70_000), b"one", b"", b"three")):
        state = b"".join(
            struct.pack("<QQ", min(i, 1), len(part)) + part for i, part in enumerate(parts)
        )
        job = peer.submit(language.CHECKPOINT, bytes([LOAD]))
        packet = channel.receive(layout.PACKET_CHECKPOINT_LOAD)
        if packet.body or not packet.id:
            raise Broke(f"a load has {len(packet.body)} bytes and id {packet.id}")
        channel.reply(packet, state)
        peer.expect(job, payload=b"".join(parts))


@CHAPTER.rule(121, "without a channel, or when it is closed, its calls say so and jobs go on")
def no_channel(bench: Bench) -> None:
    start(bench, language.CALL, call(atom("probe"), 1))
    without = bench.start(channel=False)
    closed = bench.start()
    Channel(closed).hang_up()
    for peer in (without, closed):
        peer.expect(peer.submit(language.CALL, call(atom("height"))), FAILED, code=CODE_REFUSED)
        peer.expect_any(peer.submit(language.LOG, b"\1nobody hears"))
        peer.expect(peer.submit(language.ECHO, b"on"), payload=b"on")


@CHAPTER.rule(122, "a channel that closes while a reply is waited for ends the wait")
def closed_while_waiting(bench: Bench) -> None:
    peer, channel = start(bench, language.CALL, call(atom("probe"), 1))
    job = peer.submit(language.CALL, call(atom("height")))
    channel.receive(layout.PACKET_CALL)
    channel.hang_up()
    peer.expect(job, FAILED, code=CODE_REFUSED)
    peer.expect(peer.submit(language.ECHO, b"on"), payload=b"on")


@CHAPTER.rule(123, "a full socket makes a message wait, and a cancel ends that")
def full_socket(bench: Bench) -> None:
    peer, channel = start(bench, language.SEND, send(atom("probe")))
    waiting = send_until_full(peer)
    while channel.poll(0.02) is not None:
        pass
    peer.expect(waiting, payload=b"")
    waiting = send_until_full(peer)
    peer.cancel(waiting)
    peer.expect(waiting, CANCELLED)


def send_until_full(peer: Peer) -> int:
    """Nobody reads: one of the messages has to wait. Returns its job."""
    for count in range(2000):
        job = peer.submit(language.SEND, send(binary(noise(3000))))
        answer = peer.poll(0.1)
        if answer is None:
            return job
        if answer.status != OK:
            raise Broke(f"message {count} is answered {answer}")
    raise Broke("2000 messages of 3000 bytes found room")


@CHAPTER.rule(124, "a packet of the bridge that breaks a rule ends the worker with 76")
def broken_packets(bench: Bench) -> None:
    start(bench, language.CALL, call(atom("probe"), 1))
    head = layout.PACKET.format.pack
    reply = layout.PACKET_REPLY
    for what, data in (
        ("shorter than its head", b"short"),
        ("another size than told", head(reply, 0, 0, 1, 0, 5) + b"four"),
        ("a memfd that is not there", head(reply, layout.PACKET_FLAG_MEMFD, 0, 1, 0, 5)),
    ):
        peer = bench.start()
        channel = Channel(peer)
        peer.submit(language.CALL, call(atom("height")))
        channel.receive(layout.PACKET_CALL)
        channel.say_raw(data)
        try:
            peer.expect_exit(PROTOCOL)
        except Broke as error:
            raise Broke(f"{what}: {error}") from None
        bench.close()


UNKNOWN_KIND = 29


def start_listening(bench: Bench) -> tuple[Peer, Channel]:
    """A worker that has asked for its state listens on its channel from then on."""
    peer, channel = start(bench, language.CHECKPOINT, bytes([LOAD]))
    job = peer.submit(language.CHECKPOINT, bytes([LOAD]))
    channel.reply(channel.receive(layout.PACKET_CHECKPOINT_LOAD))
    peer.expect(job, payload=b"")
    return peer, channel


@CHAPTER.rule(125, "a packet of a kind that it does not know is refused where it has an id")
def unknown_kinds(bench: Bench) -> None:
    peer, channel = start_listening(bench)
    asked = layout.PACKET_ID_BRIDGE | 9
    channel.say(UNKNOWN_KIND, atom("stall"))
    channel.say(UNKNOWN_KIND, atom("stall"), id_=asked)
    refused = channel.receive(layout.PACKET_REPLY)
    code = int.from_bytes(refused.body[:8], "little")
    if refused.id != asked or not refused.is_error or code != layout.CHANNEL_ERROR_UNAVAILABLE:
        raise Broke(f"the answer to an unknown kind is {refused}, not error `unavailable`")
    peer.expect(peer.submit(language.ECHO, b"on"), payload=b"on")


@CHAPTER.rule(126, "listening on its channel, it loses no wake-up of the link")
def no_wake_up_lost_beside_the_channel(bench: Bench) -> None:
    peer, _ = start_listening(bench)
    expect_second_look(peer)
    expect_ring_before_the_sleep(peer)
    expect_asleep(peer)
