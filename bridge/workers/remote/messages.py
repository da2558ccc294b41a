"""The messages of remote workers, read and written: a pure core (docs/remote-workers.md).

What a worker says is read strictly: what the page does not describe is `BrokenRule`, and nothing of
it is done. Keys that the page does not name are not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from bridge.etf import Atom, Pid, Reference, brief
from bridge.fabric import layout
from bridge.fabric.events import Operation
from bridge.fabric.proxy import Request

Term = Any

VERSION = 1
SLOTS_MAX = 64
CREDIT_MAX = 256
KIT_BYTES_MAX = 31  # a link's header holds it in 32, NUL-terminated
OPERATION_BYTES_MAX = 27  # of its name, which is NUL-terminated in 28
CODE_MAX = 65_535
RUN_US_MAX = 2**53
WHY_MAX = 400  # characters of a text that is logged; two layouts with their digests fit

TAG = Atom("ringbridge_worker")
RAW, TERM = Atom("raw"), Atom("term")
_TAKES = {Atom(word): word for word in ("raw", "term", "parts")}
_STATUS = {
    Atom("ok"): layout.STATUS_OK,
    Atom("failed"): layout.STATUS_FAILED,
    Atom("cancelled"): layout.STATUS_CANCELLED,
}
_EXTERNAL, _COMPRESSED = 131, 80


class BrokenRule(Exception):
    """The worker broke `rule`; the text says what it sent."""

    def __init__(self, rule: str, why: str) -> None:
        super().__init__(f"{rule}: {why}")
        self.rule = rule


class Refusal(Exception):
    """A hello that is not let in. `again`: the same one may be, later."""

    def __init__(self, reason: str, why: str, *, again: bool = False) -> None:
        super().__init__(why)
        self.reason = reason
        self.again = again


# ---- what a worker says


@dataclass(frozen=True, slots=True)
class Memory:
    """A VM that can have a link itself: its process, and the layout that it knows."""

    os_pid: int
    version: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Hello:
    """A process that asks for jobs. `memory` None: by messages only."""

    ref: Reference
    pid: Pid
    role: str
    slots: int
    credit: int
    kit: str
    kit_version: tuple[int, int]
    operations: tuple[Operation, ...]
    memory: Memory | None = None


@dataclass(frozen=True, slots=True)
class Bytes:
    """A payload; a term's without the leading 131, as it lies in a ring."""

    data: bytes
    is_term: bool = False


@dataclass(frozen=True, slots=True)
class Credit:
    credit: int


@dataclass(frozen=True, slots=True)
class Began:
    job: int


@dataclass(frozen=True, slots=True)
class Pulse:
    job: int


@dataclass(frozen=True, slots=True)
class Said:
    """A part or a report of progress of a job, by `status`."""

    job: int
    status: int
    payload: Bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a job, by `status`. `run_ns` 0: not said."""

    job: int
    status: int
    payload: Bytes
    code: int = 0
    run_ns: int = 0


@dataclass(frozen=True, slots=True)
class Heartbeat:
    ready: bool


@dataclass(frozen=True, slots=True)
class Leave:
    pass


@dataclass(frozen=True, slots=True)
class NoLink:
    """It does not take the link that it was offered for a slot, or has lost it."""

    slot: int
    worker: int
    why: str


@dataclass(frozen=True, slots=True)
class Drained:
    """It has answered all that was in the link of a slot, and will look there no more."""

    slot: int
    worker: int


@dataclass(frozen=True, slots=True)
class Links:
    """It may be offered links again."""


Message: TypeAlias = (
    Credit | Began | Pulse | Said | Ended | Heartbeat | Leave | NoLink | Drained | Links
)
_NOTHING = Bytes(b"")


def is_ours(message: Term) -> bool:
    return type(message) is tuple and len(message) >= 2 and message[0] == TAG


def answerable(message: Term) -> tuple[Pid, Reference] | None:
    """To whom, and with which reference, a hello can be answered, however wrong the rest is."""
    match message:
        case (_, Atom("hello"), Mapping() as said):
            pid, ref = said.get(Atom("pid")), said.get(Atom("ref"))
            if isinstance(pid, Pid) and isinstance(ref, Reference):
                return pid, ref
    return None


def role_of(message: Term) -> str:
    """The role that a hello asks for; nothing else of it is read. Raises Refusal."""
    said = _said_in(message)
    try:
        return _name(said, "role")
    except (KeyError, BrokenRule) as error:
        raise Refusal("bad_hello", "a hello has a role, an atom or a binary") from error


def read_hello(message: Term) -> Hello:
    """Raises Refusal."""
    said = _said_in(message)
    try:
        pid, ref = said[Atom("pid")], said[Atom("ref")]
        if not isinstance(pid, Pid) or not isinstance(ref, Reference):
            raise BrokenRule("", "pid is a pid, and ref a reference")
        return Hello(
            ref,
            pid,
            _name(said, "role"),
            _number(said, "slots", 1, SLOTS_MAX),
            _number(said, "credit", 1, CREDIT_MAX),
            _kit(said),
            _version(said.get(Atom("kit_version"))),
            _operations(said.get(Atom("ops"), [])),
            _memory(said.get(Atom("memory"))),
        )
    except KeyError as error:
        raise Refusal("bad_hello", f"a hello has {error.args[0].name}") from error
    except BrokenRule as error:
        raise Refusal("bad_hello", str(error).removeprefix(": ")) from error


def _said_in(message: Term) -> Mapping[Term, Term]:
    """The map of a hello in a version that is spoken here. Raises Refusal."""
    match message:
        case (_, Atom("hello"), Mapping() as said):
            version = said.get(Atom("version"))
            if type(version) is int and version == VERSION:
                return said
            why = f"this bridge speaks version {VERSION}, not {brief(version)}"
            raise Refusal("version", why)
    raise Refusal("bad_hello", f"no hello: {brief(message)}")


def read(message: Term) -> Message:
    """What a worker says to its desk. Raises BrokenRule."""
    try:
        match message:
            case (_, Atom(kind), Mapping() as said):
                return _read(kind, said, None)
            case (_, Atom(kind), Mapping() as said, payload):
                return _read(kind, said, _payload(payload))
    except KeyError as error:
        key = error.args[0].name
        raise BrokenRule("remote_bad_message", f"{brief(message)} has no {key}") from error
    raise BrokenRule("remote_bad_message", f"no message of a worker: {brief(message)}")


def _read(kind: str, said: Mapping[Term, Term], payload: Bytes | None) -> Message:
    match kind:
        case "started" if payload is None:
            return Began(_job(said))
        case "complete":
            return _ended(said, payload)
        case "heartbeat" if payload is None:
            ready = said[Atom("ready")]
            if type(ready) is bool:
                return Heartbeat(ready)
        case "credit" if payload is None:
            credit = said[Atom("credit")]
            if type(credit) is not int or not 0 <= credit <= CREDIT_MAX:
                raise BrokenRule("remote_credit", f"a credit of {brief(credit)}")
            return Credit(credit)
        case "part" if payload is not None:
            return Said(_job(said), layout.STATUS_PART, payload)
        case "progress" if payload is not None:
            return Said(_job(said), layout.STATUS_PROGRESS, payload)
        case "pulse" if payload is None:
            return Pulse(_job(said))
        case "leave" if payload is None:
            return Leave()
        case "no_link" if payload is None:
            why = said[Atom("why")]
            if isinstance(why, bytes):
                return NoLink(*_place(said), why.decode(errors="replace")[:WHY_MAX])
        case "drained" if payload is None:
            return Drained(*_place(said))
        case "links" if payload is None:
            return Links()
    raise BrokenRule("remote_bad_message", f"no message of a worker: {kind[:40]} {brief(said)}")


def _place(said: Mapping[Term, Term]) -> tuple[int, int]:
    """Slot and worker of a link."""
    return _number(said, "slot", 0, SLOTS_MAX - 1), _number(said, "worker", 0, 2**63)


def _ended(said: Mapping[Term, Term], payload: Bytes | None) -> Ended:
    given = said[Atom("status")]
    status = _STATUS.get(given) if isinstance(given, Atom) else None
    run_ns = 1_000 * _number(said, "run_us", 0, RUN_US_MAX) if Atom("run_us") in said else 0
    if status == layout.STATUS_CANCELLED and payload is None:
        return Ended(_job(said), status, _NOTHING, run_ns=run_ns)
    if status == layout.STATUS_OK and payload is not None:
        return Ended(_job(said), status, payload, run_ns=run_ns)
    if status == layout.STATUS_FAILED and payload is not None and not payload.is_term:
        code = _number(said, "code", 0, CODE_MAX)
        return Ended(_job(said), status, payload, code, run_ns)
    raise BrokenRule("remote_bad_message", f"no end of a job: {brief(said)}")


def _payload(given: Term) -> Bytes:
    match given:
        case (Atom("raw"), bytes() as data):
            return Bytes(data)
        case (Atom("term"), bytes() as data):
            if len(data) > 1 and data[0] == _EXTERNAL and data[1] != _COMPRESSED:
                return Bytes(data[1:], is_term=True)
    raise BrokenRule("remote_bad_message", f"no payload: {brief(given)}")


def _job(said: Mapping[Term, Term]) -> int:
    job = said[Atom("job")]
    if type(job) is not int:
        raise BrokenRule("remote_bad_message", f"a job is an integer, not {brief(job)}")
    return job


def _number(said: Mapping[Term, Term], key: str, least: int, most: int) -> int:
    value = said[Atom(key)]
    if type(value) is not int or not least <= value <= most:
        raise BrokenRule(
            "remote_bad_message", f"{key} is an integer from {least} to {most}, not {brief(value)}"
        )
    return value


def _name(said: Mapping[Term, Term], key: str) -> str:
    match said[Atom(key)]:
        case Atom(name):
            return name
        case bytes() as name:
            return name.decode("utf-8", "replace")
        case value:
            raise BrokenRule("", f"{key} is an atom or a binary, not {brief(value)}")


def _kit(said: Mapping[Term, Term]) -> str:
    kit = said[Atom("kit")]
    if isinstance(kit, bytes) and 1 <= len(kit) <= KIT_BYTES_MAX and 0 not in kit:
        try:
            return kit.decode()
        except UnicodeDecodeError:
            pass
    raise BrokenRule("", f"kit is a binary of 1 to {KIT_BYTES_MAX} bytes of UTF-8")


def _memory(given: Term) -> Memory | None:
    match given:
        case None:
            return None
        case Mapping():
            digest = given[Atom("digest")]
            os_pid = _number(given, "os_pid", 1, 2**31 - 1)
            version = _number(given, "version", 0, 2**32 - 1)
            if isinstance(digest, bytes) and len(digest) == len(layout.LAYOUT_DIGEST):
                return Memory(os_pid, version, digest)
    raise BrokenRule("", f"memory is a map with os_pid, version and digest, not {brief(given)}")


def _version(given: Term) -> tuple[int, int]:
    match given:
        case (int() as major, int() as minor) if 0 <= major < 2**16 and 0 <= minor < 2**16:
            return major, minor
    raise BrokenRule("", f"kit_version is {{major, minor}}, not {brief(given)}")


def _operations(given: Term) -> tuple[Operation, ...]:
    if not isinstance(given, list) or len(given) > layout.OPS_MAX:
        raise BrokenRule("", f"ops is a list of at most {layout.OPS_MAX}")
    operations = tuple(_operation(each) for each in given)
    # As rb_ops_rule() (csrc/core/ops.c) has it, which would refuse the link of every slot.
    for key in ("opcode", "name"):
        seen = set[object]()
        for operation in operations:
            if (value := getattr(operation, key)) in seen:
                raise BrokenRule("", f"ops has the {key} {value} twice")
            seen.add(value)
    return operations


def _operation(given: Term) -> Operation:
    match given:
        case Mapping():
            name, takes = given[Atom("name")], given.get(Atom("takes"), [])
            opcode = _number(given, "opcode", 0, CODE_MAX)
            return Operation(opcode, _operation_name(name), _takes(takes))
    raise BrokenRule("", f"an operation is a map with opcode, name and takes, not {brief(given)}")


def _operation_name(given: Term) -> str:
    if isinstance(given, bytes) and 1 <= len(given) <= OPERATION_BYTES_MAX and given.isascii():
        name = given.decode()
        if name.isprintable():
            return name
    why = f"an operation's name is 1 to {OPERATION_BYTES_MAX} printable bytes of ASCII"
    raise BrokenRule("", f"{why}, not {brief(given)}")


def _takes(given: Term) -> tuple[str, ...]:
    # Only an atom is looked up: a list, say, has no hash.
    if isinstance(given, list) and len(given) <= len(_TAKES):
        words = [_TAKES.get(each) for each in given if isinstance(each, Atom)]
        if None not in words and len(set(words)) == len(given):
            return tuple(word for word in words if word is not None)
    why = "an operation's takes is a list of :raw, :term and :parts, none of them twice"
    raise BrokenRule("", f"{why}, not {brief(given)}")


# ---- what a worker is told


def message(kind: str, **said: Term) -> Term:
    """`{:ringbridge_worker, kind, map}`."""
    return (TAG, Atom(kind), {Atom(key): value for key, value in said.items()})


_JOB = Atom("job")
_KEYS = {
    word: Atom(word)
    for word in ("job", "slot", "opcode", "deadline_ms", "priority", "trace", "parts", "progress")
}


def job(slot: int, request: Request, *, now_ns: int, parts: int | None) -> Term:
    """A job for a slot. `parts`: how many may be sent so far; None: it is answered whole."""
    keys = _KEYS
    # Rounded up: a loop that begins nothing that is too late must not find it so before the relay
    # does, whose answer would be :cancelled then, of a job that nobody has cancelled.
    left_ms = -(min(0, now_ns - request.deadline_ns) // 1_000_000) if request.deadline_ns else None
    said = {
        keys["job"]: request.job,
        keys["slot"]: slot,
        keys["opcode"]: request.opcode,
        keys["deadline_ms"]: left_ms,
        keys["priority"]: request.priority,
        keys["trace"]: _traceparent(request),
        keys["parts"]: parts,
        keys["progress"]: bool(request.flags & layout.FLAG_PROGRESS),
    }
    if request.flags & layout.FLAG_TERM:
        return (TAG, _JOB, said, (TERM, b"\x83" + request.payload))
    return (TAG, _JOB, said, (RAW, request.payload))


def _traceparent(request: Request) -> bytes | None:
    """As W3C Trace Context writes it, version 00; None: the caller gave none."""
    if not any(request.trace_id):
        return None
    text = f"00-{request.trace_id.hex()}-{request.span_id.hex()}-{request.trace_flags:02x}"
    return text.encode()


def welcome(hello: Hello, *, desk: Pid, workers: Sequence[int], **bounds: int) -> Term:
    return message(
        "welcome",
        version=VERSION,
        ref=hello.ref,
        desk=desk,
        workers=list(workers),
        heartbeat_ms=layout.HEARTBEAT_MS,
        part_bytes_max=layout.PART_BYTES_MAX,
        progress_bytes_max=layout.PROGRESS_BYTES_MAX,
        features=[],
        **bounds,
    )


def refused(ref: Reference, refusal: Refusal) -> Term:
    more: dict[str, Term] = {"versions": [VERSION]} if refusal.reason == "version" else {}
    return message(
        "refused",
        ref=ref,
        reason=Atom(refusal.reason),
        why=str(refusal).encode(),
        again=refusal.again,
        **more,
    )


def ended(reason: str, why: str, *, again: bool) -> Term:
    return message("ended", reason=Atom(reason), why=why.encode(), again=again)
