"""What a rule works with: it starts workers, and the words of the job language."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from workers.conformance.link import LinkPlan
from workers.conformance.peer import Peer

ECHO, FAIL, SLEEP, EMIT, REPORT, LARGE, END, HOLD, TERM = range(9)
CHECKPOINT, CALL, SEND, LOG, PULSE, READY, ABOUT = range(9, 16)
NAMES = (
    *("echo", "fail", "sleep", "emit", "progress", "large", "end", "hold", "term"),
    *("checkpoint", "call", "send", "log", "pulse", "ready", "about"),
)
PATTERN = 251
EXIT, SIGNAL, NO_ANSWER, COLLAPSE = range(4)  # of END


@dataclass
class Bench:
    """The executable under test. `close` ends every worker that a rule has started."""

    argv: Sequence[str]
    patience_s: float = 10.0
    peers: list[Peer] = field(default_factory=list)

    def start(self, *, greet: bool = True, without_futex: bool = False, **plan: Any) -> Peer:
        """A worker on a new link; the keywords are LinkPlan's."""
        peer = Peer(self.argv, LinkPlan(**plan), self.patience_s, without_futex=without_futex)
        self.peers.append(peer)
        if greet:
            peer.greet()
        return peer

    def close(self) -> None:
        while self.peers:
            self.peers.pop().close()


@dataclass(frozen=True)
class Rule:
    """One rule: a number that never changes, what it says, and how it is tried."""

    number: int
    title: str
    chapter: str
    attempt: Callable[[Bench], None]


class Chapter:
    """Rules that belong together; each module of `rules` has one."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.rules: list[Rule] = []

    def rule(
        self, number: int, title: str
    ) -> Callable[[Callable[[Bench], None]], Callable[[Bench], None]]:
        """Makes a function the attempt of a rule."""

        def register(attempt: Callable[[Bench], None]) -> Callable[[Bench], None]:
            self.rules.append(Rule(number, title, self.title, attempt))
            return attempt

        return register


# --- payloads of the job language (docs/workers-conformance.md) ----------------------------------


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
