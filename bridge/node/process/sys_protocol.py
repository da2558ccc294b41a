"""The `sys` protocol: what every OTP process answers about itself (sys.erl, dist-protocol.md, 4.2).

A request and a view of the process go in, a reply and perhaps an action come out. Whether the
asking node may change or stop anything has been asked of the policy before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from bridge.etf import Atom, Export, charlist, encode_bare
from bridge.node.exports import Exports
from bridge.node.process.ends import exception_reason
from bridge.node.process.sys_debug import Debug
from bridge.node.signals.gen import ERROR, OK, SYSTEM, Sender, alias_of, sendable, sender_of
from bridge.node.signals.table import Process

Term = Any

FUN_OF_A_BEAM = (
    b"a fun of a BEAM does not run in Python; name a function that this node exports, "
    b"such as &MyApp.State.reset/1"
)
NO_CODE = b"the code of a Python process is not changed from outside"


class SystemView(Protocol):
    """What `sys` may know of a process, and do to it."""

    suspended: bool
    debug: Debug

    @property
    def process(self) -> Process:
        """The process itself."""

    @property
    def module(self) -> str:
        """What stands for the callback module."""

    @property
    def exports(self) -> Exports:
        """The functions of this node that others may name."""

    def get_state(self) -> Term:
        """The state as a term."""

    def replace_state(self, state: Term) -> None:
        """Take `state` for the state. Raises NotReplaceable if there is no taking it."""


class NotReplaceable(Exception):
    """The process publishes no way to replace its state."""


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


def is_system(message: Term) -> bool:
    """Whether a message is of this protocol."""
    return (
        type(message) is tuple
        and len(message) == 3
        and message[0] == SYSTEM
        and sender_of(message[1]) is not None
    )


def answer(view: SystemView, sender: Sender, request: Term) -> tuple[Term, Action | None]:
    """The reply to a system request, and what it asks to be done after it is sent."""
    match request:
        case Atom("get_state"):
            return _for_release(view, sender, _state(view)), None
        case Atom("get_status"):
            return _status(view), None
        case Atom("suspend"):
            return OK, Suspend()
        case Atom("resume"):
            return OK, Resume()
        case (Atom("terminate"), reason):
            return OK, Terminate(reason)
        case (Atom("debug"), what):
            return view.debug.command(what), None
        case (Atom("replace_state"), function):
            return _for_release(view, sender, _replace(view, function)), None
        case (Atom("change_code"), _, _, _) if view.suspended:
            return (ERROR, (Atom("not_supported"), NO_CODE)), None
        case _:
            return (ERROR, (Atom("unknown_system_msg"), sendable(request))), None


def dictionary_of(process: Process) -> list[Term]:
    """The process dictionary as far as OTP's tools look into it: who started what."""
    shown: list[Term] = []
    if process.initial_call is not None:
        module, function, arity = process.initial_call
        shown.append((Atom("$initial_call"), (Atom(module), Atom(function), arity)))
    shown.append((Atom("$ancestors"), [process.parent] if process.parent else []))
    return shown


def _for_release(view: SystemView, sender: Sender, reply: Term) -> Term:
    """`{ok, State}` or `{error, _}`; the bare state for a caller of OTP 25.

    sys.erl took anything but `{error, _}` for the state until 26.1, and demands `{ok, _}` since.
    The flags do not tell the releases apart, but the request does: an alias has three words in
    OTP 25 and five since 26 (dist-protocol.md, 4.2).
    """
    alias = alias_of(sender.tag)
    old = alias is not None and len(alias.words) == 3 and alias.node != view.process.pid.node
    return reply[1] if old and reply[0] == OK else reply


def _state(view: SystemView) -> tuple[Term, Term]:
    try:
        state = view.get_state()
        encode_bare(state)
    except Exception as error:  # no term, or a bug: told to the asker, kills nobody
        return _failed(view, "system_get_state", exception_reason(error)[1:])
    return (OK, state)


def _replace(view: SystemView, function: Term) -> tuple[Term, Term]:
    """The state becomes what an exported function makes of it; nothing changes on an error."""
    if not isinstance(function, Export):
        return (ERROR, (Atom("not_supported"), FUN_OF_A_BEAM))
    found = view.exports.find(function.module, function.function, function.arity)
    if found is None or function.arity != 1 or found.kind != "function" or found.is_async:
        return _failed(view, "system_replace_state", Atom("undef"))
    try:
        state = found.run(view.get_state())
        encode_bare(state)
        view.replace_state(state)
    except NotReplaceable as error:
        return (ERROR, (Atom("not_supported"), str(error).encode()))
    except Exception as error:
        return _failed(view, "system_replace_state", exception_reason(error))
    return (OK, state)


def _failed(view: SystemView, callback: str, reason: Term) -> tuple[Term, Term]:
    where = (Atom(view.module), Atom(callback))
    return (ERROR, (Atom("callback_failed"), where, (ERROR, reason)))


def _status(view: SystemView) -> Term:
    process = view.process
    pid, parent = process.pid, process.parent or process.pid  # without a parent OTP's is its own
    running = Atom("suspended") if view.suspended else Atom("running")
    header = (Atom("header"), charlist(f"Status for Python process {_name_of(view)}"))
    data = [
        (charlist("Status"), running),
        (charlist("Parent"), parent),
        (charlist("Logged events"), view.debug.events()),
    ]
    misc = [header, (Atom("data"), data), (Atom("data"), [(charlist("State"), _state(view)[1])])]
    status = [dictionary_of(process), running, parent, view.debug.options(), misc]
    return (Atom("status"), pid, (Atom("module"), Atom(view.module)), status)


def _name_of(view: SystemView) -> str:
    names = sorted(name.name for name in view.process.names)
    return names[0] if names else view.module
