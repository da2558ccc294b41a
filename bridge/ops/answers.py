"""What the bridge's own services have in common: a request in, an answer out, and never an end.

A service of OTP ends at a request it does not know. Ours are shared by everybody in the cluster, so
what one caller sends by mistake is answered with the rule in words and disturbs nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

import structlog
import trio

from bridge.etf import Atom, brief
from bridge.node import GenServer, Sender
from bridge.node.log_limit import LogLimit

Term = Any
OK = Atom("ok")
ERROR = Atom("error")


class BadRequest(Exception):
    """The request breaks the rule that the message says: {:error, {:bad_request, why}}."""


def bad_request(why: str) -> Term:
    """`{:error, {:bad_request, why}}`, why as a binary."""
    return (ERROR, (Atom("bad_request"), why.encode()))


def atom_keys(items: Mapping[str, Any]) -> dict[Term, Term]:
    """A map with atom keys; texts become binaries, here and in what it holds."""
    return {Atom(key): to_term(value) for key, value in items.items()}


def to_term(value: Any) -> Term:
    """`value` as other nodes should see it: texts as binaries, mappings with atom keys, a member
    of an Enum as the atom of its name in small letters.
    """
    match value:
        case str():
            return value.encode()
        case Mapping():
            return {
                Atom(key) if type(key) is str else key: to_term(item) for key, item in value.items()
            }
        case Enum():
            return Atom(value.name.lower())
        case list():
            return [to_term(item) for item in value]
        case _:
            return value


class Answering(GenServer):
    """A service that answers every call at once, from `answer`, and keeps no state of its own.

    `ended` is set when the process has ended, whatever ended it.
    """

    ended: trio.Event
    _cast_lines = LogLimit()  # of all services: anybody may send casts, and as many as he likes

    async def init(self) -> None:
        self.ended = trio.Event()

    async def terminate(self, reason: Term) -> None:
        self.ended.set()

    def answer(self, request: Term) -> Term:
        """The reply to `request`. Never blocks; raises BadRequest for one that breaks a rule."""
        raise NotImplementedError

    def statistics(self) -> Mapping[str, Any]:
        """The figures that `:sys.get_state` shows, as a map with atom keys."""
        return {}

    def answer_any(self, request: Term) -> Term:
        """The reply to whatever a caller sent, a request that breaks a rule included."""
        try:
            return self.answer(request)
        except BadRequest as error:
            return bad_request(str(error))

    async def handle_call(self, request: Term, sender: Sender) -> Term:
        return self.answer_any(request)

    async def handle_cast(self, request: Term) -> None:
        if (held_back := self._cast_lines.due(self.module)) is not None:
            structlog.get_logger("ringbridge").info(
                "unexpected cast dropped",
                service=self.module,
                request=brief(request),
                held_back=held_back,
            )

    def get_state(self) -> Term:
        return atom_keys(self.statistics())
