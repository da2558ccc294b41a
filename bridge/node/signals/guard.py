"""The policy, asked for what other nodes do to processes of ours; each refusal leaves a line.

A node may always end what it has spawned here itself, and this node everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bridge.log import Log
from bridge.node.log_limit import LogLimit
from bridge.node.signals import gen
from bridge.node.signals.policy import Asked, Policy, system_change
from bridge.node.signals.table import Process

log = Log("ringbridge.node")
Term = Any

EXIT2 = "exit/2"


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that does not reach its process, and why, in words for its sender."""

    request: gen.Request
    why: str


class Guard:
    """Asks `policy` for the node called `own_name`."""

    def __init__(self, policy: Policy, own_name: str) -> None:
        self._policy = policy
        self._own_name = own_name
        self._lines = LogLimit()

    def may(self, node: str, what: str) -> bool:
        """Whether `node` may do `what`, which changes or stops things; this node always may."""
        return node == self._own_name or self._policy.may(node, what)

    def lets(self, origin: str, process: Process, what: str) -> bool:
        """Whether the node `origin` may do `what` to `process`."""
        if origin == process.spawned_by or self.may(origin, what):
            return True
        self._log(origin, process, self._policy.why_not(origin, what))
        return False

    def refusal(self, origin: str, process: Process, message: Term) -> Refused | None:
        """Why `process` does not get a message of the node `origin`; None: it does."""
        authorise = self._policy.authorise
        system = type(message) is tuple and len(message) == 3 and message[0] == gen.SYSTEM
        # A true EXIT of a link is a signal, and no message yet.
        forged = gen.is_exit(message) and origin != process.spawned_by
        if authorise is None and not system and not forged and process.changes is None:
            return None
        request = gen.classify(message)
        what = system_change(request) or (process.changes and process.changes(request))
        if forged:
            what = "an EXIT that is sent as a message"
        if what is not None and not self._policy.may(origin, what):
            verdict: bool | str = self._policy.why_not(origin, what)
        elif authorise is not None:
            names = frozenset(name.name for name in process.names)
            verdict = authorise(Asked(origin, names, request))
        else:
            return None
        if verdict is True:
            return None
        why = verdict or f"this node does not let {origin} ask that"
        self._log(origin, process, why)
        return Refused(request, why)

    def _log(self, origin: str, process: Process, why: str) -> None:
        if (held_back := self._lines.due((origin, why))) is not None:
            names = sorted(name.name for name in process.names)
            log.warning(
                "request refused",
                peer=origin,
                process=names or str(process.pid),
                why=why,
                held_back=held_back,
            )
