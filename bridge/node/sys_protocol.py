"""The `sys` protocol: what every OTP process answers about itself (sys.erl, dist-protocol.md, 4.2).

Pure: a request and a view of the process go in, a reply and perhaps an action come out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from bridge.etf import Atom, Pid, charlist, encode_bare
from bridge.node.gen import ERROR, OK, Sender, alias_of, sendable

Term = Any


class SystemView(Protocol):
    """What `sys` may know of a process."""

    @property
    def pid(self) -> Pid:
        """The process itself."""

    @property
    def suspended(self) -> bool:
        """Between a suspend and its resume."""

    @property
    def module(self) -> str:
        """What stands for the callback module."""

    def get_state(self) -> Term:
        """The state as a term."""


@dataclass(frozen=True, slots=True)
class Suspend:
    """Take system messages only, until `Resume`."""


@dataclass(frozen=True, slots=True)
class Resume:
    pass


@dataclass(frozen=True, slots=True)
class Terminate:
    reason: Term


Action = Suspend | Resume | Terminate


def answer(view: SystemView, sender: Sender, request: Term) -> tuple[Term, Action | None]:
    """The reply to a system request, and what it asks to be done after it is sent."""
    match request:
        case Atom("get_state"):
            return _state_reply(view, sender), None
        case Atom("get_status"):
            return _status(view), None
        case Atom("suspend"):
            return OK, Suspend()
        case Atom("resume"):
            return OK, Resume()
        case (Atom("terminate"), reason):
            return OK, Terminate(reason)
        case (Atom("replace_state"), _):
            why = b"the state of a Python process is not replaced from outside"
            return (ERROR, (Atom("unauthorized"), why)), None
        case _:
            return (ERROR, (Atom("unknown_system_msg"), sendable(request))), None


def _state_reply(view: SystemView, sender: Sender) -> Term:
    """`{ok, State}` or `{error, _}`; the bare state for a caller of OTP 25.

    sys.erl took anything but `{error, _}` for the state until 26.1, and demands `{ok, _}` since.
    The flags do not tell the releases apart, but the request does: an alias has three words in
    OTP 25 and five since 26 (dist-protocol.md, 4.2).
    """
    reply = _state(view)
    alias = alias_of(sender.tag)
    old = alias is not None and len(alias.words) == 3 and alias.node != view.pid.node
    return reply[1] if old and reply[0] == OK else reply


def _state(view: SystemView) -> tuple[Term, Term]:
    try:
        state = view.get_state()
        encode_bare(state)
    except Exception as error:  # no term, or a bug: told to the asker, kills nobody
        module = (Atom(view.module), Atom("system_get_state"))
        return (ERROR, (Atom("callback_failed"), module, _exception(error)))
    return (OK, state)


def _exception(error: Exception) -> Term:
    return (ERROR, (type(error).__name__.encode(), str(error).encode("utf-8", "replace")[:1024]))


def _status(view: SystemView) -> Term:
    running = Atom("suspended") if view.suspended else Atom("running")
    module = Atom(view.module)
    header = (Atom("header"), charlist(f"Status for Python process {view.module}"))
    data = [
        (charlist("Status"), running),
        (charlist("Parent"), view.pid),
        (charlist("Logged events"), []),
    ]
    misc = [header, (Atom("data"), data), (Atom("data"), [(charlist("State"), _state(view)[1])])]
    # No process dictionary; a Python process has no parent, so it is its own; no debug options.
    status = [[], running, view.pid, [], misc]
    return (Atom("status"), view.pid, (Atom("module"), module), status)
