"""The debug options of one process that `sys` turns on and off: trace, log, statistics (sys.erl).

Off, they cost nothing: a process hands its events over only while `on`. Functions of a BEAM cannot
be installed, nor files be written on another node's request.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from bridge.etf import Atom, brief
from bridge.log import Log
from bridge.node.signals.gen import ERROR, OK, sendable

Term = Any
log = Log("ringbridge.node")

IN, OUT, NOREPLY = Atom("in"), Atom("out"), Atom("noreply")
LOG_DEFAULT = 10  # events, as in sys.erl
LOG_MAX = 10_000  # a caller names the length; the events are kept in our memory


class Debug:
    """`changed` is called when `on` has changed."""

    def __init__(self, *, module: str, changed: Callable[[], None] = lambda: None) -> None:
        self._module = module
        self._changed = changed
        self._trace = False
        self._log: deque[Term] | None = None
        self._since: Term = None
        self._in = self._out = 0

    @property
    def on(self) -> bool:
        return self._trace or self._log is not None or self._since is not None

    def event(self, event: tuple[Term, ...]) -> None:
        """`{in, Message}`, `{out, Reply, From, State}` or `{noreply, State}`, as gen_server's."""
        if event[0] is IN or event[0] == IN:
            self._in += 1
        elif event[0] == OUT:
            self._out += 1
        if self._trace:
            log.info("sys trace", process=self._module, event_term=brief(event))
        if self._log is not None:
            self._log.append(event)

    def events(self) -> list[Term]:
        """The logged events, oldest first, each as a term that can be sent."""
        return [tuple(map(sendable, event)) for event in self._log or ()]

    def options(self) -> list[Term]:
        """The debug structure that `sys:get_status` shows."""
        shown: list[Term] = []
        if self._since is not None:
            reductions = (Atom("reductions"), 0)
            shown.append((Atom("statistics"), (self._since, reductions, self._in, self._out)))
        if self._log is not None:
            shown.append((Atom("log"), self.events()))
        if self._trace:
            shown.append((Atom("trace"), True))
        return shown

    def command(self, what: Term) -> Term:
        """The reply to `{debug, What}`."""
        was_on = self.on
        reply = self._command(what)
        if self.on is not was_on:
            self._changed()
        return reply

    def _command(self, what: Term) -> Term:
        match what:
            case (Atom("trace"), bool(on)):
                self._trace = on
            case (Atom("log"), True):
                self._keep(LOG_DEFAULT)
            case (Atom("log"), (True, int(length))) if type(length) is int and length >= 1:
                self._keep(min(length, LOG_MAX))
            case (Atom("log"), False):
                self._log = None
            case (Atom("log"), Atom("get")):
                return (OK, self.events())
            case (Atom("log"), Atom("print")):
                for event in self.events():
                    log.info("sys log", process=self._module, event_term=brief(event))
            case (Atom("statistics"), True):
                if self._since is None:
                    self._since, self._in, self._out = _local_time(), 0, 0
            case (Atom("statistics"), False):
                self._since = None
            case (Atom("statistics"), Atom("get")):
                return (OK, self._statistics())
            case Atom("no_debug"):
                self._trace, self._log, self._since = False, None, None
            case (Atom("log_to_file"), False) | (Atom("remove"), _):
                pass  # there is none to take away
            case (Atom("log_to_file"), _):
                return (ERROR, Atom("open_file"))
            case _:  # install among them: a fun of a BEAM does not run here
                return Atom("unknown_debug")
        return OK

    def _keep(self, length: int) -> None:
        self._log = deque(self._log or (), maxlen=length)

    def _statistics(self) -> Term:
        if self._since is None:
            return Atom("no_statistics")
        return [
            (Atom("start_time"), self._since),
            (Atom("current_time"), _local_time()),
            (Atom("reductions"), 0),  # Python counts none
            (Atom("messages_in"), self._in),
            (Atom("messages_out"), self._out),
        ]


def _local_time() -> Term:
    now = time.localtime()
    return (now[:3], now[3:6])
