"""State that outlives the process: loaded before the hello, saved and restored when told."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from bridge.fabric import layout
from workers.conformance import language
from workers.conformance.bench import Bench, Chapter
from workers.conformance.channel import Channel, Packet
from workers.conformance.jobs import CANCELLED, Broke, NotOffered
from workers.conformance.language import milliseconds, noise
from workers.conformance.peer import Peer

CHAPTER = Chapter("State that outlives the process")
ROLE = "conformance-state"
NOT_TAKEN = b"\xff"
REPLACE, ADD, TELL, AWAIT = range(4)
FULL, INCREMENT = layout.CHECKPOINT_FULL, layout.CHECKPOINT_INCREMENTAL
NOW, LEAVING = layout.SAVE_NOW, layout.SAVE_LEAVING
UNAVAILABLE = layout.CHANNEL_ERROR_UNAVAILABLE
PROTOCOL, NO_STATE = 76, 65


def state_of(*parts: bytes, first: int = FULL) -> bytes:
    """A row of parts as the bridge sends it, the first in full unless told otherwise."""
    kinds = (first, *[INCREMENT] * len(parts))
    return b"".join(
        struct.pack("<QQ", kind, len(part)) + part for kind, part in zip(kinds, parts, strict=False)
    )


def asked_for_its_state(bench: Bench) -> tuple[Peer, Channel, Packet]:
    """A worker that has asked, and waits with its hello. Raises NotOffered."""
    peer = bench.start(greet=False, role=ROLE)
    channel = Channel(peer)
    hello = peer.link.worker.word(layout.WORKER_HEADER.at("hello"), 32)
    while (packet := channel.poll(0.02)) is None:
        if hello.load() == layout.HELLO_READY:
            raise NotOffered(f"in the role {ROLE} it says hello without asking for its state")
        if peer.process.has_ended():
            peer.greet()
    if packet.kind != layout.PACKET_CHECKPOINT_LOAD or packet.body or not packet.id:
        raise Broke(f"before its hello comes {packet}, not a request for its state")
    if hello.load():
        raise Broke("it says hello before it has its state")
    return peer, channel, packet


def start(bench: Bench, *parts: bytes) -> tuple[Peer, Channel]:
    """A worker that has been given this state."""
    peer, channel, asked = asked_for_its_state(bench)
    channel.reply(asked, state_of(*parts))
    peer.greet()
    return peer, channel


def expect_state(peer: Peer, state: bytes) -> None:
    peer.expect(peer.submit(language.STATE, bytes([TELL])), payload=state)


def change(peer: Peer, what: int, data: bytes) -> None:
    peer.expect(peer.submit(language.STATE, bytes([what]) + data), payload=b"")


def ask(channel: Channel, number: int, kind: int, when: int = NOW) -> int:
    """Say `checkpoint_now`; returns its id."""
    id_ = layout.PACKET_ID_BRIDGE | number
    channel.say(layout.PACKET_CHECKPOINT_NOW, struct.pack("<QQ", kind, when), id_=id_)
    return id_


def expect_save(channel: Channel, id_: int, kind: int, data: bytes) -> None:
    packet = channel.receive(layout.PACKET_CHECKPOINT_SAVE)
    if packet.id != id_ or packet.body != struct.pack("<Q", kind) + data:
        raise Broke(
            f"saved was {packet.body[:40]!r} ({len(packet.body)} bytes) with id {packet.id:#x}, "
            f"not kind {kind} and {data[:32]!r} ({len(data)} bytes) with {id_:#x}"
        )


def expect_refusal(channel: Channel, id_: int) -> None:
    packet = channel.receive(layout.PACKET_REPLY)
    code = int.from_bytes(packet.body[:8], "little")
    if packet.id != id_ or not packet.is_error or code != UNAVAILABLE:
        raise Broke(f"the answer is {packet}, not error `unavailable` to {id_:#x}")


@CHAPTER.rule(141, "its state is asked for before the hello, and its first job finds it restored")
def restored_before_the_hello(bench: Bench) -> None:
    for parts in ((), (b"whole",), (noise(70_000), b"one", b"", b"three")):
        peer, _ = start(bench, *parts)
        expect_state(peer, b"".join(parts))
        bench.close()


@CHAPTER.rule(142, "the next process goes on with what the last one has saved")
def the_next_life(bench: Bench) -> None:
    peer, channel = start(bench)
    change(peer, REPLACE, b"high water 4 m")
    expect_save(channel, ask(channel, 1, FULL), FULL, b"high water 4 m")
    change(peer, ADD, b", falling")
    expect_save(channel, ask(channel, 2, INCREMENT), INCREMENT, b", falling")
    bench.close()
    peer, channel = start(bench, b"high water 4 m", b", falling")
    expect_state(peer, b"high water 4 m, falling")
    change(peer, ADD, b" still")
    expect_save(channel, ask(channel, 1, INCREMENT), INCREMENT, b" still")


@CHAPTER.rule(143, "where there is no state to be had it begins without one")
def begins_without(bench: Bench) -> None:
    peer, channel, asked = asked_for_its_state(bench)
    channel.reply(asked, b"", error=UNAVAILABLE)
    peer.greet()
    expect_state(peer, b"")
    bench.close()
    peer, channel, _ = asked_for_its_state(bench)
    channel.hang_up()
    peer.greet()
    expect_state(peer, b"")
    bench.close()
    peer = bench.start(role=ROLE, channel=False)
    expect_state(peer, b"")


@CHAPTER.rule(144, "a state that it does not take before its hello ends it with 65")
def refused_before_the_hello(bench: Bench) -> None:
    peer, channel, asked = asked_for_its_state(bench)
    channel.reply(asked, state_of(b"whole", NOT_TAKEN))
    peer.expect_exit(NO_STATE)
    if peer.hello()["hello"] == layout.HELLO_READY:
        raise Broke("it said READY before it left")


@CHAPTER.rule(145, "told to save it does so between two jobs, whole or what is new")
def saves(bench: Bench) -> None:
    peer, channel = start(bench)
    expect_refusal(channel, ask(channel, 1, FULL))  # there is nothing
    whole, more = noise(150_000), noise(80_000, 2)
    for at in range(0, len(whole), 50_000):
        change(peer, ADD, whole[at : at + 50_000])
    expect_save(channel, ask(channel, 2, INCREMENT), FULL, whole)  # the first, so in full
    change(peer, ADD, more)
    expect_save(channel, ask(channel, 3, INCREMENT), INCREMENT, more)
    expect_save(channel, ask(channel, 4, INCREMENT), INCREMENT, b"")
    expect_save(channel, ask(channel, 5, FULL), FULL, whole + more)
    change(peer, REPLACE, b"low water")
    expect_save(channel, ask(channel, 6, INCREMENT), FULL, b"low water")
    expect_saved_between_jobs(peer, channel)


def expect_saved_between_jobs(peer: Peer, channel: Channel) -> None:
    """Never in the middle of one, and before the next one of a worker that always has jobs."""
    first, second = (peer.put(language.SLEEP, milliseconds(60_000)) for _ in range(2))
    peer.publish()
    peer.await_started(peer.put_count - 1)
    id_ = ask(channel, 7, FULL)
    channel.silence(0.02)
    peer.cancel(first)
    expect_save(channel, id_, FULL, b"low water")
    peer.cancel(second)
    for job in (first, second):
        peer.expect(job, CANCELLED)


@CHAPTER.rule(146, "told to save when leaving it does so behind its last job, before it ends")
def saves_when_leaving(bench: Bench) -> None:
    for word in (layout.CONTROL_DRAIN, layout.CONTROL_STOP):
        peer, channel = start(bench, b"ebb")
        id_ = ask(channel, 1, FULL, LEAVING)
        change(peer, ADD, b" and")
        channel.silence(0.02)
        job = peer.submit(language.STATE, bytes([ADD]) + b" flow")
        peer.expect(job)
        peer.control(word)
        expect_save(channel, id_, FULL, b"ebb and flow")
        peer.expect_exit(0)
        bench.close()


def restore(channel: Channel, word: int, number: int = 0, state: bytes = b"") -> int:
    """Say `restore`; returns its id, 0 where no answer is wanted."""
    id_ = layout.PACKET_ID_BRIDGE | number if number else 0
    channel.say(layout.PACKET_RESTORE, struct.pack("<Q", word) + state, id_=id_)
    return id_


def expect_taken(channel: Channel, id_: int) -> None:
    packet = channel.receive(layout.PACKET_REPLY)
    if packet.id != id_ or packet.is_error or packet.body:
        raise Broke(f"the answer to a state is {packet}, not that {id_:#x} is taken")


@CHAPTER.rule(147, "a state that it is given it has before its next job, and says so")
def given_states(bench: Bench) -> None:
    peer, channel = start(bench, b"old")
    given: Sequence[tuple[tuple[bytes, ...], int, bytes]] = (
        ((b"new",), FULL, b"new"),
        ((b" and more", b" and most"), INCREMENT, b"new and more and most"),
        ((noise(90_000), b"end"), FULL, noise(90_000) + b"end"),
    )
    for number, (parts, first, whole) in enumerate(given, 1):
        id_ = restore(channel, layout.RESTORE_STATE, number, state_of(*parts, first=first))
        expect_state(peer, whole)
        expect_taken(channel, id_)
    id_ = restore(channel, layout.RESTORE_STATE, 9, state_of(NOT_TAKEN))
    expect_refusal(channel, id_)
    peer.expect(peer.submit(language.ECHO, b"on"), payload=b"on")


@CHAPTER.rule(148, "told that a state comes it begins no job before that, or before none comes")
def held(bench: Bench) -> None:
    for how in ("state", "abandoned", "closed", "stop"):
        peer, channel = start(bench, b"old")
        restore(channel, layout.RESTORE_HOLD)
        job = peer.submit(language.STATE, bytes([TELL]))
        peer.silence(0.04)
        if peer.started.load():
            raise Broke("a job is begun while a state is coming")
        if how == "stop":
            peer.control(layout.CONTROL_STOP)
            peer.expect_exit(0)
        elif how == "closed":
            channel.hang_up()
            peer.expect(job, payload=b"old")
        elif how == "abandoned":
            restore(channel, layout.RESTORE_ABANDONED)
            peer.expect(job, payload=b"old")
        else:
            id_ = restore(channel, layout.RESTORE_STATE, 1, state_of(b"new"))
            peer.expect(job, payload=b"new")
            expect_taken(channel, id_)
        bench.close()


@CHAPTER.rule(149, "a job that needs a promised state waits for it, others go on; a cancel ends it")
def promised(bench: Bench) -> None:
    peer, channel = start(bench, b"old")
    peer.expect(peer.submit(language.STATE, bytes([AWAIT])), payload=b"old")  # none is promised
    restore(channel, layout.RESTORE_COMING)
    expect_state(peer, b"old")
    job = peer.submit(language.STATE, bytes([AWAIT]))
    peer.await_started(peer.put_count)
    peer.silence(0.03)
    id_ = restore(channel, layout.RESTORE_STATE, 1, state_of(b"new"))
    peer.expect(job, payload=b"new")
    expect_taken(channel, id_)
    restore(channel, layout.RESTORE_COMING)
    job = peer.submit(language.STATE, bytes([AWAIT]))
    peer.await_started(peer.put_count)
    peer.cancel(job)
    peer.expect(job, CANCELLED)


@CHAPTER.rule(150, "a state or a request to save that breaks a rule ends it with 76")
def broken_states(bench: Bench) -> None:
    whole = struct.pack("<Q", layout.RESTORE_STATE)
    for what, kind, body in (
        ("a part's head that is cut", layout.PACKET_RESTORE, whole + b"short"),
        ("a part of no kind", layout.PACKET_RESTORE, whole + state_of(b"x", first=2)),
        ("a part past the end", layout.PACKET_RESTORE, whole + struct.pack("<QQ", FULL, 9) + b"x"),
        ("a restore without its word", layout.PACKET_RESTORE, b"word"),
        ("a request to save of 8 bytes", layout.PACKET_CHECKPOINT_NOW, bytes(8)),
    ):
        peer, channel = start(bench)
        channel.say(kind, body, id_=layout.PACKET_ID_BRIDGE | 1)
        try:
            peer.expect_exit(PROTOCOL)
        except Broke as error:
            raise Broke(f"{what}: {error}") from None
        bench.close()
