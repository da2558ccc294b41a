"""Whom the bridge lets in, and who may change things: [node] allow and admin_nodes as a policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from bridge.config import Config
from bridge.dist.names import matcher
from bridge.links import link_manager
from bridge.node import Asked, Policy
from bridge.node.signals.gen import Call
from bridge.workers import registry


def door(current: Callable[[], Config]) -> Policy:
    """Whom the bridge lets in: all that have the cookie, or those that [node] allow names. What
    changes or stops things is for [node] admin_nodes. `current` gives the settings of now.
    """

    def allow(name: str, address: str) -> bool:
        names = current().node.allow
        return not names or _matcher(names)(name)

    policy = Policy(
        allow=allow,
        admin=lambda name: _matcher(current().node.admin_nodes)(name),
        admin_mend=f"add it to [node] admin_nodes in {current().file.name}",
    )

    def authorise(asked: Asked) -> bool | str:
        match asked.request:
            case Call(_, request) if not asked.names.isdisjoint(registry.NAMES):
                what = registry.operation(request)
                if what is not None and not policy.may(asked.node, what):
                    return policy.why_not(asked.node, what)
            case Call(_, request) if not asked.names.isdisjoint(link_manager.NAMES):
                what = link_manager.operation(request)
                if what is not None and not policy.may(asked.node, what):
                    return policy.why_not(asked.node, what)
        return True

    return replace(policy, authorise=authorise)


@lru_cache(maxsize=8)
def _matcher(names: tuple[str, ...]) -> Callable[[str], bool]:
    return matcher(names)
