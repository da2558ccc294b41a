"""LinkManager: the service that shows links between workers, and ends them.

It keeps nothing of its own: the links outlive it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge.etf import Atom, brief
from bridge.links.links import Event, Link, Links
from bridge.ops.answers import OK, Answering, BadRequest, Term, atom_keys

NAMES = ("Elixir.Ringbridge.LinkManager", "link_manager")
# What ends something, by name and arity (0: an atom), as callers write it: for [node] admin_nodes.
OPERATIONS = {("revoke", 2): "{:revoke, link}"}


def operation(request: Term) -> str | None:
    """The words for a request that changes or stops things, or None."""
    match request:
        case (Atom(name), *_):
            return OPERATIONS.get((name, len(request)))
    return None


class LinkManager(Answering):
    """The answers."""

    module = "Ringbridge.LinkManager"

    def __init__(self, links: Links) -> None:
        self._links = links

    def answer(self, request: Term) -> Term:
        match request:
            case Atom("list"):
                return (OK, [describe(link) for link in self._links])
            case Atom("audit"):
                return (OK, [describe_event(event) for event in self._links.audit])
            case Atom("stats"):
                return (OK, atom_keys(self.statistics()))
            case (Atom("revoke"), number):
                link = self._links.find(number) if type(number) is int else None
                if link is None:
                    raise BadRequest(f"there is no link {brief(number)}")
                self._links.end(link, "revoked")
                return OK
        raise BadRequest(
            f"the LinkManager knows :list, :audit, :stats, {{:revoke, link}}; not {brief(request)}"
        )

    def statistics(self) -> Mapping[str, Any]:
        return {"links": len(self._links), **self._links.counts}


def describe(link: Link) -> dict[Term, Term]:
    """One link as a map with atom keys."""
    return atom_keys(
        {
            "id": link.id,
            "from": link.asker.worker,
            "from_role": Atom(link.asker.role),
            "to": link.server.worker,
            "to_role": Atom(link.server.role),
            "since_ms": int(link.since_s * 1000),
        }
    )


def describe_event(event: Event) -> dict[Term, Term]:
    """One event of the audit, oldest first in the list; what does not apply is nil."""
    return atom_keys(
        {
            "at_ms": int(event.at_s * 1000),
            "event": Atom(event.what),
            "from": event.asker,
            "to_role": event.role,
            "to": event.server,
            "link": event.link,
            "why": event.why,
        }
    )
