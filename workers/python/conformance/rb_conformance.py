#!/usr/bin/env python3
"""The conformance job language in Python (docs/workers-conformance.md): one function an opcode."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# As it stands in a checkout, it serves the kit beside it.
sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[3])]

from ringbridge_worker import (  # noqa: E402 - see above
    Answer,
    ChannelError,
    Job,
    JobFailed,
    Op,
    Peer,
    PeerFailed,
    State,
    Term,
    serve,
    set_ready,
)

BAD_PAYLOAD, REFUSED, UNKNOWN_OPCODE = 1, 2, 3
PATTERN = 251
PART_BYTES_MAX = 4 << 20

# A call by PyDLL keeps the interpreter's lock.
_holding = ctypes.PyDLL(None)
_holding.usleep.argtypes = [ctypes.c_uint]


def take(job: Job, layout: str) -> tuple[tuple[int, ...], memoryview]:
    """The fields at the front of the payload, and what is behind them."""
    fields = struct.Struct("<" + layout)
    if len(job.payload) < fields.size:
        raise JobFailed(BAD_PAYLOAD, f"{len(job.payload)} bytes, not at least {fields.size}")
    return fields.unpack_from(job.payload), job.payload[fields.size :]


def echo(job: Job) -> Answer:
    return Term.of_bytes(bytes(job.payload)) if job.is_term else job.payload


def fail(job: Job) -> Answer:
    (code,), message = take(job, "H")
    raise JobFailed(code, bytes(message))


def sleep(job: Job) -> Answer:
    (ms,), _ = take(job, "I")
    job.sleep(ms / 1000)
    return b""


def say(job: Job, one: Callable[[bytes | Term], object]) -> int:
    """Says what `emit` and `progress` ask for; how often it was not dropped."""
    (count, size, as_term), _ = take(job, "IIB")
    if size > PART_BYTES_MAX:
        raise JobFailed(BAD_PAYLOAD, f"parts of {size} bytes are more than this worker makes")
    kept = 0
    for number in range(count):
        part = bytes([number % PATTERN]) * size
        job.check()
        try:
            kept += one(Term(part) if as_term else part) is not False
        except ValueError as error:
            raise JobFailed(REFUSED, f"number {number}: {error}") from error
    return kept


def emit(job: Job) -> Answer:
    say(job, job.emit)
    return b""


def progress(job: Job) -> Answer:
    return struct.pack("<I", say(job, job.progress))


def large(job: Job) -> Answer:
    (size, seed), _ = take(job, "QB")
    room = job.reserve(size)
    turn = bytes((k + seed) % PATTERN for k in range(PATTERN))
    whole = turn * 4096
    for at in range(0, size, len(whole)):
        room[at : at + len(whole)] = whole[: size - at]
    return room


def end(job: Job) -> Answer:
    (how, value), _ = take(job, "BB")
    if how == 0:
        sys.exit(value)
    if how == 1:
        if value not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(value, signal.SIG_DFL)
        os.kill(os.getpid(), value)
    if how == 2:
        return None
    raise RuntimeError("as told")


def hold(job: Job) -> Answer:
    (ms,), _ = take(job, "I")
    while ms > 0:
        slice_ms = min(ms, 500)
        _holding.usleep(slice_ms * 1000)
        ms -= slice_ms
    return b""


def term(job: Job) -> Answer:
    if not job.is_term:
        raise JobFailed(BAD_PAYLOAD, "raw bytes, not a term")
    from bridge.etf import Atom

    return Term((Atom("ok"), job.term()))


def refused(error: ChannelError) -> JobFailed:
    return JobFailed(REFUSED, str(error))


def checkpoint(job: Job) -> Answer:
    (what,), state = take(job, "B")
    if what not in (0, 1, 2):
        raise JobFailed(BAD_PAYLOAD, f"{what} is nothing to do with a checkpoint")
    try:
        if what == 2:
            return b"".join(part.data for part in job.load_state())
        job.checkpoint(bytes(state), is_increment=what == 1)
    except ChannelError as error:
        raise refused(error) from error
    return b""


def call(job: Job) -> Answer:
    (timeout_ms, size), terms = take(job, "II")
    dest, request = decode(terms[:size]), decode(terms[size:])
    try:
        return Term(job.call(dest, request, timeout_ms / 1000))
    except ChannelError as error:
        raise refused(error) from error


def send(job: Job) -> Answer:
    (size,), terms = take(job, "I")
    dest, message = decode(terms[:size]), decode(terms[size:])
    try:
        job.send(dest, message)
    except ChannelError as error:
        raise refused(error) from error
    return b""


def decode(encoded: memoryview) -> Any:
    from bridge.etf import DecodeError, decode_bare

    try:
        return decode_bare(encoded)[0]
    except DecodeError as error:
        raise JobFailed(BAD_PAYLOAD, str(error)) from error


def log(job: Job) -> Answer:
    (level,), text = take(job, "B")
    if level > 3:
        raise JobFailed(BAD_PAYLOAD, f"{level} is no level")
    job.log(("debug", "info", "warning", "error")[level], bytes(text).decode(errors="replace"))
    return b""


def pulse(job: Job) -> Answer:
    (count,), _ = take(job, "I")
    for _ in range(count):
        job.pulse()
    return b""


def ready(job: Job) -> Answer:
    (wanted,), _ = take(job, "B")
    set_ready(wanted != 0)
    return b""


def about(job: Job) -> Answer:
    trace = bytes.fromhex((job.traceparent or f"00-{0:032x}-{0:016x}-00").replace("-", ""))[1:]
    wants = job.wants_parts | job.wants_progress << 1
    demand = job.demand
    return struct.pack("<QQIB", job.id, job.deadline_ns or 0, demand, wants) + trace


class Kept:
    """The state of the role that keeps one."""

    data = b""
    saved = 0  # so many of them the bridge has, from the front on
    is_new = True  # never saved, or replaced since: no increment can tell it

    def save(self, increment: bool) -> State | None:
        increment = increment and not self.is_new
        if not self.data:
            return None
        told = State(self.data[self.saved if increment else 0 :], increment)
        self.is_at_the_bridge()
        return told

    def restore(self, state: State) -> None:
        if state.data[:1] == b"\xff":
            raise ValueError("a state that begins with 255")
        self.data = self.data + state.data if state.is_increment else state.data
        self.is_at_the_bridge()

    def is_at_the_bridge(self) -> None:
        self.saved, self.is_new = len(self.data), False


kept = Kept()


def state(job: Job) -> Answer:
    (what,), data = take(job, "B")
    if what > 3:
        raise JobFailed(BAD_PAYLOAD, f"{what} is nothing to do with a state")
    if what == 0:
        kept.data, kept.is_new = bytes(data), True
    if what == 1:
        kept.data += bytes(data)
    if what == 3:
        job.await_state()
    return kept.data if what > 1 else b""


links: list[Peer | None] = []
LINKS_MAX = 16
OUTCOMES = {errno.ECONNABORTED: 2, errno.EPIPE: 3, errno.EPROTO: 4, errno.ETIMEDOUT: 5}


def peer_open(job: Job) -> Answer:
    if not job.payload or len(links) == LINKS_MAX:
        raise JobFailed(BAD_PAYLOAD, f"no role, or more than {LINKS_MAX} links")
    try:
        links.append(job.open_peer(bytes(job.payload).decode()))
    except ChannelError as error:
        raise refused(error) from error
    return struct.pack("<I", len(links) - 1)


def link_of(number: int) -> Peer:
    peer = links[number] if number < len(links) else None
    if peer is None:
        raise JobFailed(BAD_PAYLOAD, f"no link {number} is open")
    return peer


def peer_call(job: Job) -> Answer:
    (link, timeout_ms, opcode, as_term), data = take(job, "IIHB")
    peer = link_of(link)
    request = Term.of_bytes(bytes(data)) if as_term else data
    how, is_term, code, told = 0, False, 0, b""
    try:
        answer = job.ask(peer, request, opcode, timeout_ms / 1000)
        is_term = isinstance(answer, Term)
        told = answer.encode() if isinstance(answer, Term) else bytes(answer)
    except PeerFailed as error:
        how, code, told = 1, error.code, error.message.encode()
    except ChannelError as error:
        if error.errno not in OUTCOMES:
            raise refused(error) from error
        how = OUTCOMES[error.errno]
    return struct.pack("<BBH", how, is_term, code) + told


def peer_close(job: Job) -> Answer:
    (link,), _ = take(job, "I")
    peer = link_of(link)
    links[link] = None
    try:
        job.close_peer(peer)
    except ChannelError as error:
        raise refused(error) from error
    return b""


OPERATIONS = {
    0: echo,
    1: fail,
    2: sleep,
    3: emit,
    4: progress,
    5: large,
    6: end,
    7: hold,
    8: term,
    9: checkpoint,
    10: call,
    11: send,
    12: log,
    13: pulse,
    14: ready,
    15: about,
    16: state,
    17: peer_open,
    18: peer_call,
    19: peer_close,
}


def handle(job: Job) -> Answer:
    operation = OPERATIONS.get(job.opcode)
    if operation is None:
        raise JobFailed(UNKNOWN_OPCODE, f"opcode {job.opcode} is not served here")
    return operation(job)


OPS = [
    Op(
        opcode,
        operation.__name__,
        takes_raw=operation not in (echo, term),
        takes_term=operation is term,
        parts=operation is emit,
    )
    for opcode, operation in OPERATIONS.items()
]

if __name__ == "__main__":
    role = os.environ.get("RINGBRIDGE_ROLE")
    keeps = role == "conformance-state"
    serve(
        handle,
        ops=OPS,
        save=kept.save if keeps else None,
        restore=kept.restore if keeps else None,
        serves_peers=(role or "").startswith("conformance-links"),
    )
