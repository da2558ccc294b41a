"""What a worker says over the channel, and what it is told: the test is the bridge's end."""

from __future__ import annotations

import os
import socket
import struct

import pytest

from bridge.etf import Atom, Pid, decode_bare, encode_bare
from bridge.fabric import layout
from workers.conformance.jobs import CANCELLED, OK
from workers.conformance.link import pack, unpack
from workers.conformance.peer import Peer

from .conftest import Start

CALLING = """
import errno
from ringbridge_worker import ChannelError
def handle(job):
    to, request = job.term()
    if job.opcode == 1:
        job.send(to, request)
        return b""
    try:
        return Term(job.call(to, request, timeout_s=job.opcode))
    except ChannelError as error:
        return Term((errno.errorcode[error.errno], error.reason))
serve(handle)
"""


def hear(peer: Peer) -> tuple[dict[str, int], bytes]:
    """The worker's next packet: its head, and its body, out of a memfd too."""
    peer.link.channel.settimeout(peer.patience_s)
    data, fds, _, _ = socket.recv_fds(peer.link.channel, layout.PACKET_BYTES_MAX, 4)
    head = {k: int(v) for k, v in unpack(layout.PACKET, data[: layout.PACKET.size]).items()}
    body = data[layout.PACKET.size :]
    if head["flags"] & layout.PACKET_FLAG_MEMFD:
        (fd,) = fds
        body = os.pread(fd, head["bytes"], 0)
        os.close(fd)
    assert len(body) == head["bytes"]
    return head, body


def say(peer: Peer, kind: int, number: int, body: bytes = b"", flags: int = 0) -> None:
    head = {"kind": kind, "flags": flags, "id": number, "bytes": len(body)}
    peer.link.channel.send(pack(layout.PACKET, head) + body)


def submit_term(peer: Peer, opcode: int, term: object) -> int:
    return peer.submit(opcode, encode_bare(term), flags=layout.FLAG_TERM)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("to", "dest"),
    [
        ("Elixir.MyApp.Tracker", Atom("Elixir.MyApp.Tracker")),
        (("alarms", "app@host"), (Atom("alarms"), Atom("app@host"))),
        (Atom("logger"), Atom("logger")),
        (Pid(Atom("app@host"), 1, 2, 3), Pid(Atom("app@host"), 1, 2, 3)),
    ],
)
def test_a_message_goes_where_it_is_sent(start: Start, to: object, dest: object) -> None:
    # Names come as binaries in a payload; the worker's own code has them as str.
    source = CALLING.replace("job.term()", "plain(job.term())").replace(
        "def handle",
        """
def plain(value):
    if isinstance(value, bytes):
        return value.decode()
    return tuple(map(plain, value)) if isinstance(value, tuple) else value
def handle""",
    )
    peer = start(source)
    job = submit_term(peer, 1, (to, 42))
    head, body = hear(peer)
    assert (head["kind"], head["id"], head["job"]) == (layout.PACKET_SEND, 0, job)
    assert decode_bare(body)[0] == (dest, 42)
    peer.expect(job, OK, b"")


def test_a_call_is_answered_with_a_term_or_raises_what_went_wrong(start: Start) -> None:
    peer = start(CALLING)
    job = submit_term(peer, 5, (Atom("tracker"), [1, 2]))
    head, body = hear(peer)
    assert (head["kind"], head["job"]) == (layout.PACKET_CALL, job)
    assert decode_bare(body)[0] == (Atom("tracker"), [1, 2], 5000)
    say(peer, layout.PACKET_REPLY, head["id"], encode_bare({b"a": 2.5}))
    peer.expect(job, OK, encode_bare({b"a": 2.5}), term=True)

    job = submit_term(peer, 5, (Atom("tracker"), 1))
    head, _ = hear(peer)
    reason = struct.pack("<Q", layout.CHANNEL_ERROR_REFUSED)
    reason += encode_bare((Atom("refused"), b"not listed"))
    say(peer, layout.PACKET_REPLY, head["id"], reason, layout.PACKET_FLAG_ERROR)
    told = encode_bare((b"EACCES", (Atom("refused"), b"not listed")))
    peer.expect(job, OK, told, term=True)


def test_a_cancel_ends_a_call_as_an_exception(start: Start) -> None:
    peer = start(CALLING)
    job = submit_term(peer, 60, (Atom("tracker"), 1))
    hear(peer)
    peer.cancel(job)
    peer.expect(job, CANCELLED, b"")


def test_a_line_is_logged_with_its_job_and_any_thread_may_log(start: Start) -> None:
    peer = start(
        """
def handle(job):
    job.log("info", "begins €")
    thread = threading.Thread(target=job.log, args=("error", "from a thread"))
    thread.start()
    thread.join()
    return b""
serve(handle)
"""
    )
    job = peer.submit(0)
    for level, text in (("info", "begins €"), ("error", "from a thread")):
        head, body = hear(peer)
        assert (head["kind"], head["job"]) == (layout.PACKET_LOG, job)
        assert decode_bare(body)[0] == (Atom(level), text.encode())
    peer.expect(job, OK, b"")


COUNTER = """
from ringbridge_worker import State
count, saved = 0, 0
def save(increment):
    global saved
    if count == 13:
        return None
    if count == 14:
        raise RuntimeError("cannot")
    data = b"%d" % (count - saved if increment else count)
    saved = count
    return State(data, increment)
def restore(state):
    global count
    count = int(state.data) + (count if state.is_increment else 0)
def handle(job):
    global count
    count += 1
    return b"%d" % count
serve(handle, save=save, restore=restore)
"""
SAVE, NOW = layout.PACKET_CHECKPOINT_SAVE, layout.PACKET_CHECKPOINT_NOW
ASKED = layout.PACKET_ID_BRIDGE | 1


def part(kind: int, data: bytes) -> bytes:
    return struct.pack("<QQ", kind, len(data)) + data


def start_counter(start: Start, state: bytes) -> Peer:
    def load(peer: Peer) -> None:
        head, _ = hear(peer)
        assert head["kind"] == layout.PACKET_CHECKPOINT_LOAD
        say(peer, layout.PACKET_REPLY, head["id"], state)

    return start(COUNTER, before_hello=load)


def test_a_worker_begins_with_its_state_and_saves_what_is_new(start: Start) -> None:
    peer = start_counter(start, part(0, b"7") + part(1, b"3"))
    peer.expect(peer.submit(0), OK, b"11")
    for kind, data in ((0, b"11"), (1, b"0")):
        say(peer, NOW, ASKED, struct.pack("<QQ", kind, layout.SAVE_NOW))
        peer.gate.ring()
        head, body = hear(peer)
        assert (head["kind"], head["id"]) == (SAVE, ASKED)
        assert body == struct.pack("<Q", kind) + data
    peer.expect(peer.submit(0), OK, b"12")
    say(peer, NOW, ASKED, struct.pack("<QQ", 1, layout.SAVE_LEAVING))
    peer.control(layout.CONTROL_DRAIN)
    _, body = hear(peer)
    assert body == struct.pack("<Q", 1) + b"1"
    peer.expect_exit(0)


def test_no_state_and_a_failed_save_are_told_as_such(start: Start) -> None:
    peer = start_counter(start, part(0, b"12"))
    for count in (b"13", b"14"):
        peer.expect(peer.submit(0), OK, count)
        say(peer, NOW, ASKED, struct.pack("<QQ", 0, layout.SAVE_NOW))
        head, body = hear(peer)
        assert (head["kind"], head["flags"]) == (layout.PACKET_REPLY, layout.PACKET_FLAG_ERROR)
        assert body[:8] == struct.pack("<Q", layout.CHANNEL_ERROR_UNAVAILABLE)
    assert "RuntimeError: cannot" in peer.process.stderr
    peer.expect(peer.submit(0), OK, b"15")


def test_a_state_that_it_cannot_take_ends_a_worker_that_begins(start: Start) -> None:
    def load(peer: Peer) -> None:
        head, _ = hear(peer)
        say(peer, layout.PACKET_REPLY, head["id"], part(0, b"no number"))
        peer.expect_exit(65)

    peer = start(COUNTER, before_hello=load, greets=False)
    assert "ValueError" in peer.process.stderr


def test_a_handler_saves_and_loads_by_itself(start: Start) -> None:
    peer = start(
        """
def handle(job):
    if job.opcode == 0:
        job.checkpoint(bytes(job.payload), is_increment=True)
        return b"saved"
    return repr(job.load_state()).encode()
serve(handle)
"""
    )
    for size in (10, 100_000):
        job = peer.submit(0, b"s" * size)
        head, body = hear(peer)
        assert (head["kind"], head["job"]) == (SAVE, job)
        assert body == struct.pack("<Q", 1) + b"s" * size
        assert peer.poll(0.01) is None  # the bridge has it first
        say(peer, layout.PACKET_REPLY, head["id"])
        peer.expect(job, OK, b"saved")
    job = peer.submit(1)
    head, _ = hear(peer)
    say(peer, layout.PACKET_REPLY, head["id"], part(0, b"all") + part(1, b"more"))
    told = "[State(data=b'all', is_increment=False), State(data=b'more', is_increment=True)]"
    peer.expect(job, OK, told.encode())
