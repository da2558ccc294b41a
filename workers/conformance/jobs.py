"""Jobs and their completions as the battery sees them, and the ways in which a rule can end."""

from __future__ import annotations

from dataclasses import dataclass

from bridge.fabric import layout
from workers.conformance.crc32c import crc32c

OK, FAILED, CANCELLED = layout.STATUS_OK, layout.STATUS_FAILED, layout.STATUS_CANCELLED
PART, PROGRESS = layout.STATUS_PART, layout.STATUS_PROGRESS
STATUS_NAMES = {
    OK: "OK",
    FAILED: "FAILED",
    CANCELLED: "CANCELLED",
    PART: "PART",
    PROGRESS: "PROGRESS",
}
FINAL = (OK, FAILED, CANCELLED)
CRC_AT, HEAD_BYTES = 8, 64
# The job language's failure codes, and the kit's.
CODE_BAD_PAYLOAD, CODE_REFUSED, CODE_UNKNOWN_OPCODE = 1, 2, 3
CODE_KIT = CODE_TOO_LARGE = 65280
CODE_NO_ANSWER = 65281
CODE_BAD_FRAME = 65283


class Broke(Exception):
    """The worker broke the rule that is being tried, or another one on the way."""


class NotOffered(Exception):
    """The worker does not serve what the rule needs (code 3 of the job language)."""


class NotHere(Exception):
    """The rule cannot be tried on this machine, or on this version of the layout."""


@dataclass(frozen=True)
class Answer:
    """A private copy of one completion. `extent`: its result blocks, to be given back."""

    job: int
    status: int
    flags: int
    code: int
    queue_ns: int
    run_ns: int
    payload: bytes
    extent: tuple[int, int] | None

    @property
    def is_term(self) -> bool:
        return bool(self.flags & layout.FLAG_TERM)

    def __str__(self) -> str:
        code = f" with code {self.code}" if self.status == FAILED else ""
        return f"{STATUS_NAMES[self.status]}{code} and {brief(self.payload)}"


@dataclass(frozen=True)
class Completion:
    """One completion's fields as they lay in the ring."""

    job: int
    crc: int
    status: int
    flags: int
    queue_ns: int
    run_ns: int
    payload_at: int
    payload_bytes: int
    code: int
    reserved: int
    reserved2: bytes
    body: bytes

    @classmethod
    def of(cls, raw: bytes) -> Completion:
        return cls(*layout.COMPLETION.format.unpack(raw))


@dataclass
class Job:
    """A job that is in the ring, or running."""

    id: int
    position: int
    flags: int
    pool_extent: tuple[int, int] | None
    deadline_ns: int
    parts_seen: int = 0
    parts_allowed: int = 0


def brief(payload: bytes) -> str:
    """For a message: short payloads whole, long ones by their size and beginning."""
    if len(payload) <= 24:
        return f"{len(payload)} bytes {payload!r}" if payload else "no bytes"
    return f"{len(payload)} bytes {payload[:16]!r}..."


def status_name(status: int) -> str:
    return f"exit status {status}" if status >= 0 else f"signal {-status}"


def envelope_crc(raw: bytes, payload: bytes, features: int) -> int:
    """Of a request or completion: its first 64 bytes with the CRC as zero, then the payload."""
    if not features:
        return 0
    crc = crc32c(0, raw[:CRC_AT] + b"\0\0\0\0" + raw[CRC_AT + 4 : HEAD_BYTES])
    return crc32c(crc, payload) if features & layout.FEATURE_CRC_PAYLOAD else crc
