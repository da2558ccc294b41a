"""The gen protocol: how a call is asked and where its answer goes (dist-protocol.md, 4.2;
gen.erl).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from bridge.etf import Atom, EncodeError, ImproperList, Pid, Reference, encode_bare

Term = Any

GEN_CALL, GEN_CAST, SYSTEM = Atom("$gen_call"), Atom("$gen_cast"), Atom("system")
ALIAS = Atom("alias")
DOWN, EXIT, PROCESS = Atom("DOWN"), Atom("EXIT"), Atom("process")
NORMAL, KILL, KILLED, SHUTDOWN = Atom("normal"), Atom("kill"), Atom("killed"), Atom("shutdown")
NOPROC, NOCONNECTION, NOTSUP = Atom("noproc"), Atom("noconnection"), Atom("notsup")
OK, ERROR = Atom("ok"), Atom("error")


class Sender(NamedTuple):
    """Who called, as its request said: the `From` of OTP. The tag is echoed, otherwise never relied
    on.
    """

    pid: Pid
    tag: Term

    @property
    def reply_to(self) -> Pid | Reference:
        """The alias if the tag holds one, else the pid."""
        return alias_of(self.tag) or self.pid

    def reply(self, value: Term) -> tuple[Term, Term]:
        """The message that answers this call."""
        return (self.tag, value)


def alias_tag(ref: Reference) -> ImproperList:
    """[alias | Ref]: answer to the alias Ref."""
    return ImproperList((ALIAS,), ref)


def alias_of(tag: Term) -> Reference | None:
    """The alias in [alias | Ref], or in [[alias | Ref] | _] as multi_call sends since OTP 27."""
    ref = _tail_of_alias(tag)
    if ref is not None:
        return ref
    match tag:
        case ImproperList((first,), _) | [first, *_]:
            return _tail_of_alias(first)
        case _:
            return None


def is_mark(tag: Term) -> bool:
    """Whether a tag is or holds a reference, so that no answer with it is a request of any kind."""
    return type(tag) is Reference or alias_of(tag) is not None


def _tail_of_alias(term: Term) -> Reference | None:
    if type(term) is ImproperList and term.elements == (ALIAS,) and type(term.tail) is Reference:
        return term.tail
    return None


@dataclass(frozen=True, slots=True)
class Call:
    sender: Sender
    request: Term


@dataclass(frozen=True, slots=True)
class Cast:
    request: Term


@dataclass(frozen=True, slots=True)
class SystemRequest:
    """A message of the `sys` protocol."""

    sender: Sender
    request: Term


@dataclass(frozen=True, slots=True)
class Info:
    """Anything else."""

    message: Term


Request = Call | Cast | SystemRequest | Info


def sender_of(source: Term) -> Sender | None:
    """The `From` of a call: `{Pid, Tag}`, else None."""
    if type(source) is tuple and len(source) == 2 and isinstance(source[0], Pid):
        return Sender(source[0], source[1])
    return None


def classify(message: Term) -> Request:
    """What a message to a gen_server-like process is. A list of the same elements is none of these:
    Python's patterns would take it for a tuple.
    """
    if type(message) is not tuple:
        return Info(message)
    match message:
        case (Atom("$gen_call"), source, request) if (sender := sender_of(source)) is not None:
            return Call(sender, request)
        case (Atom("$gen_cast"), request):
            return Cast(request)
        case (Atom("system"), source, request) if (sender := sender_of(source)) is not None:
            return SystemRequest(sender, request)
        case _:
            return Info(message)


def is_exit(message: Term) -> bool:
    """Whether a message is what the end of a link is to a process that traps exits."""
    return (
        type(message) is tuple
        and len(message) == 3
        and message[0] == EXIT
        and isinstance(message[1], Pid)
    )


def unauthorized(why: str) -> Term:
    """`{error, {unauthorized, Why}}`, why as a binary."""
    return (ERROR, (Atom("unauthorized"), why.encode()))


def call_message(caller: Pid, tag: Term, request: Term) -> tuple[Term, ...]:
    return (GEN_CALL, (caller, tag), request)


def cast_message(request: Term) -> tuple[Term, ...]:
    return (GEN_CAST, request)


def is_term(value: Term) -> bool:
    """Whether `value` can be sent to any node.

    A native record of OTP 29 decodes but is not sent on; something from Python may be no term at
    all.
    """
    try:
        encode_bare(value)
    except EncodeError:
        return False
    return True


def sendable(term: Term) -> Term:
    """`term` if it can be sent to any node, else an atom that says that it cannot."""
    return term if is_term(term) else Atom("not_sendable")


def answer_in(message: Term) -> tuple[Reference, Term] | None:
    """(alias, value) if `message` is the answer to a call with an alias tag, however it came."""
    match message:
        case (tag, value) if (ref := alias_of(tag)) is not None:
            return ref, value
        case _:
            return None
