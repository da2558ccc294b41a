"""The job language of a worker under test (docs/workers-conformance.md): words and payloads."""

from __future__ import annotations

import random
import struct

ECHO, FAIL, SLEEP, EMIT, REPORT, LARGE, END, HOLD, TERM = range(9)
CHECKPOINT, CALL, SEND, LOG, PULSE, READY, ABOUT = range(9, 16)
STATE, PEER_OPEN, PEER_CALL, PEER_CLOSE = range(16, 20)
NAMES = (
    *("echo", "fail", "sleep", "emit", "progress", "large", "end", "hold", "term"),
    *("checkpoint", "call", "send", "log", "pulse", "ready", "about"),
    *("state", "peer_open", "peer_call", "peer_close"),
)
PATTERN = 251
EXIT, SIGNAL, NO_ANSWER, COLLAPSE = range(4)  # of END


def noise(size: int, seed: int = 1) -> bytes:
    """Bytes that repeat nowhere near, the same ones for the same seed."""
    return random.Random(seed).randbytes(size)


def fail(code: int, message: bytes = b"") -> bytes:
    return struct.pack("<H", code) + message


def milliseconds(ms: int) -> bytes:
    return struct.pack("<I", ms)


def parts(count: int, size: int, *, as_term: bool = False) -> bytes:
    return struct.pack("<IIB", count, size, as_term)


def part(number: int, size: int, *, as_term: bool = False) -> bytes:
    """Part or report `number` as it has to come."""
    head = b"m" + struct.pack(">I", size) if as_term else b""
    return head + bytes([number % PATTERN]) * size


def large(size: int, seed: int = 0) -> bytes:
    return struct.pack("<QB", size, seed)


def large_answer(size: int, seed: int = 0) -> bytes:
    row = bytes((k + seed) % PATTERN for k in range(PATTERN))
    return (row * (size // PATTERN + 1))[:size]


def end(how: int, value: int = 0) -> bytes:
    return bytes([how, value])
