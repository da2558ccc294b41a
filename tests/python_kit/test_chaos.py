"""The hooks of the C kit (docs/chaos.md) in a Python worker: each does there what it does in C, and
what a handler returns or raises in a job with a hook is told as ever.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from bridge.fabric import layout
from workers.conformance.channel import Channel
from workers.conformance.jobs import FAILED, OK, Broke
from workers.conformance.peer import Peer

from .conftest import Start

WORKER = """
def handle(job):
    if job.opcode == 1:
        raise KeyError("tile")
    if job.opcode == 2:
        sys.exit(3)
    if job.opcode == 3:
        job.sleep(60)
    if job.opcode == 4:
        with open("/dev/null"):
            return b"opened"
    return bytes(job.payload).upper()
serve(handle)
"""
NUMBERS = iter(range(1, 1000))


def hook(peer: Peer, text: str) -> None:
    """Switches it on, as the bridge does."""
    channel, id_ = Channel(peer), layout.PACKET_ID_BRIDGE | next(NUMBERS)
    channel.say(layout.PACKET_CHAOS, text.encode(), id_=id_)
    reply = channel.receive(layout.PACKET_REPLY)
    assert reply.id == id_
    assert not reply.is_error


@pytest.fixture
def troubled(start: Start) -> Callable[[], Peer]:
    return lambda: start(WORKER, env={"RINGBRIDGE_CHAOS": "1"})


def expect_on(peer: Peer) -> None:
    peer.expect(peer.submit(0, b"on"), OK, b"ON")


def test_a_job_that_stalls_begins_later_and_is_answered(troubled: Callable[[], Peer]) -> None:
    peer = troubled()
    hook(peer, "stall 60 1")
    assert peer.expect(peer.submit(0, b"late"), OK, b"LATE").run_ns >= 60_000_000
    expect_on(peer)
    hook(peer, "stall 1 2")
    peer.expect(peer.submit(1), FAILED, b"KeyError: 'tile'", code=65282)
    job = peer.submit(3)
    peer.await_started(4)
    peer.cancel(job)
    peer.expect_any(job)
    expect_on(peer)


def test_a_crash_or_an_exit_in_a_job_with_a_hook_is_that_job_s(
    troubled: Callable[[], Peer],
) -> None:
    for text, opcode, status in (("crash 9 1", 0, -9), ("stall 1 1", 2, 3)):
        peer = troubled()
        expect_on(peer)
        hook(peer, text)
        peer.submit(opcode, b"lost")
        peer.expect_exit(status)
        assert peer.started.load() == 2
        assert peer.completion_tail.load() == 1


def test_an_oversized_answer_has_failed_its_job(troubled: Callable[[], Peer]) -> None:
    peer = troubled()
    hook(peer, "oversize 1 1")
    peer.expect(peer.submit(0, b"much"), FAILED, code=65280)
    expect_on(peer)


@pytest.mark.parametrize(("text", "rule"), [("corrupt 1 1", "CRC"), ("overrun 9 1", "of a region")])
def test_a_lie_is_one_that_the_relay_can_see(
    troubled: Callable[[], Peer], text: str, rule: str
) -> None:
    peer = troubled()
    hook(peer, text)
    job = peer.submit(0, b"lie")
    with pytest.raises(Broke, match=rule):
        peer.expect(job, OK, b"LIE")


def test_a_lost_wake_is_found_by_who_looks(troubled: Callable[[], Peer]) -> None:
    peer = troubled()
    hook(peer, "lost_wake 0 1")
    peer.gate.rings()  # of the hello
    job = peer.submit(0, b"quiet")
    peer.until(lambda: peer.completion_tail.load() == 1, "it is not answered")
    assert peer.gate.rings() == 0
    peer.expect(job, OK, b"QUIET")
    expect_on(peer)


def test_a_handler_without_files_gets_what_python_makes_of_it(
    troubled: Callable[[], Peer],
) -> None:
    peer = troubled()
    peer.expect(peer.submit(4), OK, b"opened")
    hook(peer, "no_files 0 1")
    answer = peer.expect(peer.submit(4), FAILED, code=65282)
    assert b"Too many open files" in answer.payload
    peer.expect(peer.submit(4), OK, b"opened")


def test_a_worker_that_holds_takes_nothing_until_it_is_to_leave(
    troubled: Callable[[], Peer],
) -> None:
    peer = troubled()
    hook(peer, "hold 60000 0")
    peer.submit(0, b"held")
    peer.silence(0.05)
    assert peer.started.load() == 0
    peer.control(layout.CONTROL_STOP)
    peer.expect_exit(0)


def test_a_silent_worker_goes_on_with_its_jobs(troubled: Callable[[], Peer]) -> None:
    peer = troubled()
    hook(peer, "silence 60000 0")
    before = peer.telemetry()
    peer.expect(peer.submit(0, b"on"), OK, b"ON")
    peer.silence(0.6)  # a beat was due
    assert peer.telemetry() == before
    peer.control(layout.CONTROL_DRAIN)
    peer.expect_exit(0)


def test_a_worker_that_is_not_allowed_to_have_hooks_has_none(start: Start) -> None:
    assert "RINGBRIDGE_CHAOS" not in os.environ
    peer = start(WORKER)
    Channel(peer).say(layout.PACKET_CHAOS, b"crash 9 1", id_=layout.PACKET_ID_BRIDGE | 1)
    expect_on(peer)
