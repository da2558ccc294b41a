"""Links to other workers: the test is the bridge that grants them, and the worker at the other end.

What every kit has to keep is in the battery (workers/conformance); here is what is Python's own.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from bridge.etf import Atom, encode_bare
from bridge.fabric import layout
from workers.conformance.channel import Channel
from workers.conformance.jobs import CANCELLED, FAILED, OK
from workers.conformance.other_worker import OtherWorker
from workers.conformance.peer import Peer

from .conftest import Start

ASKING = """
from ringbridge_worker import ChannelError, PeerFailed
peers = []
kept = []
def handle(job):
    if job.opcode == 9:
        return b"on"
    if not peers:
        peers.append(job.open_peer("worldgen"))
    return more(job)
"""
SERVING = "serve(handle, serves_peers=True)"
ASK, REPLY = layout.PACKET_CALL, layout.PACKET_REPLY
Joined = Callable[[Peer], OtherWorker]


@pytest.fixture
def other_end() -> Iterator[Joined]:
    """other_end(peer): the other end of a link that is about to be given to this worker."""
    made: list[OtherWorker] = []

    def make(peer: Peer) -> OtherWorker:
        made.append(OtherWorker(peer))
        return made[-1]

    yield make
    for other in made:
        other.close()


def grant(peer: Peer, other: OtherWorker) -> Channel:
    """The worker's next packet asks for a link: it gets this one."""
    channel = Channel(peer)
    asked = channel.receive(layout.PACKET_PEER_OPEN)
    assert asked.body == b"worldgen"
    channel.reply(asked, struct.pack("<Q", 17), fd=other.take_end())
    return channel


def serves(peer: Peer) -> None:
    """What the bridge does before the hello of a worker that serves others."""
    channel = Channel(peer)
    channel.reply(channel.receive(layout.PACKET_PEER_OPEN))


def offer(peer: Peer, other: OtherWorker) -> None:
    body = struct.pack("<Q", 17) + b"pathfinding"
    Channel(peer).say(layout.PACKET_PEER_OFFER, body, fd=other.take_end())


def test_an_answer_is_a_view_that_outlives_its_job(start: Start, other_end: Joined) -> None:
    """It is the memory that it was received into: no copy, and nobody else's."""
    peer = start(
        ASKING
        + """
def more(job):
    kept.append(job.ask(peers[0], job.payload, opcode=3, timeout_s=60)[1:])
    return repr([(type(view).__name__, view.readonly, bytes(view[:3])) for view in kept]).encode()
serve(handle)
"""
    )
    other = other_end(peer)
    told = []
    for number, size in enumerate((5, 100_000, 300_000)):
        job = peer.submit(0, b"tile" * size)
        if number == 0:
            grant(peer, other)
        asked = other.receive(ASK)
        assert asked.payload == b"tile" * size
        assert asked.envelope["opcode"] == 3
        other.reply(asked, bytes([65 + number]) * size)
        told.append(("memoryview", True, bytes([65 + number]) * 3))
        peer.expect(job, OK, repr(told).encode())


def test_terms_go_and_come_and_an_answer_can_be_passed_on_as_it_is(
    start: Start, other_end: Joined
) -> None:
    peer = start(
        ASKING
        + """
def more(job):
    answer = job.ask(peers[0], Term({"x": 12}))
    assert isinstance(answer, Term) and answer.value[0] == "ok"
    return answer
serve(handle)
""".replace('== "ok"', "== __import__('bridge.etf').etf.Atom('ok')")
    )
    other = other_end(peer)
    job = peer.submit(0, b"")
    grant(peer, other)
    asked = other.receive(ASK)
    assert asked.payload == encode_bare({b"x": 12})
    assert asked.envelope["flags"] == layout.FLAG_TERM
    answer = encode_bare((Atom("ok"), 7))
    other.reply(asked, answer, flags=layout.FLAG_TERM)
    peer.expect(job, OK, answer, term=True)


def test_what_goes_wrong_is_an_exception_of_the_kit_s(start: Start, other_end: Joined) -> None:
    peer = start(
        ASKING
        + """
import errno
def more(job):
    if job.opcode == 1:
        job.close_peer(peers[0])
    try:
        return job.ask(peers[0], b"", timeout_s=0.03 if job.opcode == 2 else 60)
    except PeerFailed as error:
        return f"{error.code} {error.message}|{error}".encode()
    except ChannelError as error:
        return f"{errno.errorcode[error.errno]} {error.reason}".encode()
    except (ValueError, TypeError) as error:
        return str(error).encode()
serve(handle)
"""
    )
    other = other_end(peer)
    job = peer.submit(0, b"")
    channel = grant(peer, other)
    other.reply(other.receive(ASK), "früh".encode(), status=FAILED, code=7)
    text = "7 früh|the peer failed it with code 7: früh"
    peer.expect(job, OK, text.encode())
    job = peer.submit(0, b"")
    other.reply(other.receive(ASK), status=CANCELLED)
    peer.expect(job, OK, b"ECONNABORTED None")
    peer.expect(peer.submit(2, b""), OK, b"ETIMEDOUT None")
    other.shut_down()
    peer.expect(peer.submit(0, b""), OK, b"EPIPE None")
    job = peer.submit(1, b"")
    asked = channel.receive(layout.PACKET_PEER_CLOSE)
    assert asked.body == struct.pack("<Q", 17)
    channel.reply(asked)
    peer.expect(job, OK, b"the link was given back")


def test_a_failure_that_a_handler_lets_through_has_failed_its_job(
    start: Start, other_end: Joined
) -> None:
    peer = start(ASKING + "\ndef more(job):\n    return job.ask(peers[0], b'')\nserve(handle)\n")
    other = other_end(peer)
    job = peer.submit(0, b"")
    grant(peer, other)
    other.reply(other.receive(ASK), b"no such map", status=FAILED, code=7)
    text = b"PeerFailed: the peer failed it with code 7: no such map"
    peer.expect(job, FAILED, text, code=65282)


def test_a_link_that_is_dropped_goes_back_to_the_bridge(start: Start, other_end: Joined) -> None:
    """By another thread, too: it is given back by the handlers' own, and waits for no reply."""
    peer = start(
        ASKING
        + """
def more(job):
    if job.opcode == 1:
        dropping = threading.Thread(target=peers.clear)
        dropping.start()
        dropping.join()
    return b"done"
serve(handle)
"""
    )
    other = other_end(peer)
    job = peer.submit(0, b"")
    channel = grant(peer, other)
    peer.expect(job, OK, b"done")
    peer.expect(peer.submit(1, b""), OK, b"done")
    packet = channel.receive(layout.PACKET_PEER_CLOSE)
    assert packet.body == struct.pack("<Q", 17)
    other.expect_over()
    channel.reply(packet)
    peer.expect(peer.submit(9, b""), OK, b"on")


def test_a_peer_s_request_is_a_job_for_the_handler(start: Start, other_end: Joined) -> None:
    """A generator is one list, what is raised fails it, and the worker's own jobs are as ever."""
    peer = start(
        """
async def sleeping(job):
    import asyncio
    await asyncio.sleep(60)
def handle(job):
    if job.opcode == 1:
        raise JobFailed(7, "not today")
    if job.opcode == 2:
        raise KeyError("tile")
    if job.opcode == 3:
        job.sleep(60)
    if job.opcode == 4:
        job.reserve((64 << 20) + 1)
    if job.opcode == 5:
        room = job.reserve(10)
        room[:5] = b"front"
        return room[:5]
    if job.opcode == 6:
        return Term([job.wants_parts, job.wants_progress, job.demand, job.is_term])
    return job.payload
"""
        + SERVING,
        before_hello=serves,
    )
    other = other_end(peer)
    offer(peer, other)
    for payload in (b"", b"x" * 10, b"x" * 64, b"x" * 65, b"x" * 300_000):
        other.expect(other.call(0, payload), OK, payload)
    other.expect(other.call(1), FAILED, b"not today", code=7)
    other.expect(other.call(2), FAILED, b"KeyError: 'tile'", code=65282)
    other.expect(other.call(3, deadline_ns=1), CANCELLED)
    other.expect(other.call(4), FAILED, code=65280)
    other.expect(other.call(5), OK, b"front")
    other.expect(other.call(6), OK, encode_bare([False, False, 0, False]))
    peer.expect(peer.submit(0, b"mine"), OK, b"mine")


def test_what_a_handler_keeps_of_a_peer_s_request_is_its_own(
    start: Start, other_end: Joined
) -> None:
    peer = start(
        """
kept = []
def handle(job):
    if job.opcode == 0:
        room = job.reserve(len(job.payload))
        room[:] = bytes(job.payload)
        kept.append((job.payload[1:], room[1:], job.payload))
        return room
    told = [bytes(view[:4]) + bytes(room[:4]) for view, room, _ in kept]
    for _, room, _ in kept:
        room[:] = b"!" * len(room)
    released = 0
    for _, _, payload in kept:
        try:
            bytes(payload)
        except ValueError:
            released += 1
    return b"".join(told) + bytes([released])
"""
        + SERVING,
        before_hello=serves,
    )
    other = other_end(peer)
    offer(peer, other)
    payloads = [bytes([65 + i]) * size for i, size in enumerate((10, 64, 5000, 200_000))]
    for payload in payloads:
        other.expect(other.call(0, payload), OK, payload)
    expected = b"".join(payload[:4] * 2 for payload in payloads)
    other.expect(other.call(1), OK, expected + bytes([len(payloads)]))


def test_an_exit_inside_of_a_peer_s_request_is_the_end_of_the_link(
    start: Start, other_end: Joined
) -> None:
    source = "def handle(job):\n    sys.exit(3)\n"
    peer = start(source + SERVING, before_hello=serves)
    other = other_end(peer)
    offer(peer, other)
    other.call(0)
    other.expect_over()  # and no answer before it
    peer.expect_exit(3)


def test_a_child_of_a_worker_has_no_end_of_its_links(start: Start, other_end: Joined) -> None:
    peer = start(
        """
kept = []
def handle(job):
    if job.opcode == 1:
        kept.append(job.open_peer("worldgen"))
        return b""
    reading, writing = os.pipe()
    if os.fork() == 0:
        found = []
        for number in range(100):
            try:
                found.append(os.readlink(f"/proc/self/fd/{number}"))
            except FileNotFoundError:
                pass
        told = [name for name in found if "socket" in name or "poll" in name]
        os.write(writing, repr(told).encode())
        os._exit(0)
    os.wait()
    return os.read(reading, 4096)
"""
        + SERVING,
        before_hello=serves,
    )
    job = peer.submit(1, b"")
    grant(peer, other_end(peer))
    peer.expect(job, OK, b"")
    served = other_end(peer)
    offer(peer, served)
    served.expect(served.call(0), OK, b"[]")
    peer.expect(peer.submit(0, b""), OK, b"[]")


def test_two_workers_on_one_link(start: Start) -> None:
    """Nothing of the test is between them: one asks, the other answers, one dies."""
    asker = start(
        ASKING
        + """
def more(job):
    try:
        return job.ask(peers[0], job.payload, opcode=job.opcode, timeout_s=60)
    except ChannelError as error:
        return str(error.errno).encode()
serve(handle)
"""
    )
    server = start(
        """
def handle(job):
    if job.opcode == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return bytes(job.payload).upper()
"""
        + SERVING,
        before_hello=serves,
    )
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    Channel(server).say(layout.PACKET_PEER_OFFER, struct.pack("<Q", 1) + b"a", fd=theirs.detach())
    job = asker.submit(0, b"tile")
    channel = Channel(asker)
    asked = channel.receive(layout.PACKET_PEER_OPEN)
    channel.reply(asked, struct.pack("<Q", 1), fd=ours.detach())
    asker.expect(job, OK, b"TILE")
    for size in (1000, 1_000_000):
        asker.expect(asker.submit(0, b"a" * size), OK, b"A" * size)
    asker.expect(asker.submit(1, b""), OK, b"32")  # EPIPE
    server.expect_exit(-9)
