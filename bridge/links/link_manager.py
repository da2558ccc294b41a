"""LinkManager: the name under which links between workers are granted and listed.

No worker-to-worker link can be granted yet, and the service says so: it answers under its name, so
that a caller gets the rule in words and no DOWN noproc.
"""

from __future__ import annotations

from bridge.etf import brief
from bridge.ops.answers import Answering, BadRequest, Term

NAMES = ("Elixir.Ringbridge.LinkManager", "link_manager")


class LinkManager(Answering):
    """Refuses every request by name."""

    module = "Ringbridge.LinkManager"

    def answer(self, request: Term) -> Term:
        raise BadRequest(
            f"links between workers cannot be granted in this version, so the LinkManager has none "
            f"to look up or list; it was asked {brief(request)}"
        )
