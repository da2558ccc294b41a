"""Links of workers that a BEAM of this host is given: the worker's end of one slot's link.

A link is promised to the node whose loop has registered, over that registration's own connection;
it is fetched at the socket of lanes (desk.py), under the same rules: the user, the process that was
told, a token that is good once and for a few seconds. What it gives is that slot's alone.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass

import structlog
import trio

GRANT_S = 5.0
TOKEN_BYTES = 32
GRANTED = b"\0"
_log = structlog.get_logger("ringbridge.lanes")


@dataclass(frozen=True, slots=True)
class LinkGrant:
    """A link that is promised to who shows the token. `give`: its descriptors, once."""

    node: str
    os_pid: int
    token: bytes
    socket: bytes
    until_s: float
    give: Callable[[], tuple[int, ...]]


class LinkGrants:
    """All that are promised. `check` raises for a node that may have none; `address`: of the
    socket, empty while there is none.
    """

    def __init__(self, check: Callable[[str], None], address: Callable[[], bytes]) -> None:
        self._check = check
        self._address = address
        self._grants: dict[bytes, LinkGrant] = {}

    def __len__(self) -> int:
        return len(self._grants)

    def allows(self, node: str) -> bool:
        try:
            self._check(node)
        except Exception:  # its words are for who asks for a lane
            return False
        return bool(self._address())

    def grant(self, node: str, os_pid: int, give: Callable[[], tuple[int, ...]]) -> LinkGrant:
        """Promise a link for GRANT_S."""
        now_s = trio.current_time()
        for old in [each for each in self._grants.values() if each.until_s <= now_s]:
            del self._grants[old.token]
        token = secrets.token_bytes(TOKEN_BYTES)
        grant = LinkGrant(node, os_pid, token, self._address(), now_s + GRANT_S, give)
        self._grants[token] = grant
        return grant

    def withdraw(self, grant: LinkGrant) -> None:
        """May be repeated. From now on nobody gets it."""
        self._grants.pop(grant.token, None)

    def redeem(self, shown: bytes, pid: int) -> tuple[bytes, tuple[int, ...]] | None:
        """What who shows a token is told and gets; the descriptors are the caller's to close. None:
        it is the token of no link.
        """
        grant = next(
            (each for each in self._grants.values() if hmac.compare_digest(each.token, shown)), None
        )
        if grant is None:
            return None
        del self._grants[grant.token]  # whatever follows
        if grant.until_s <= trio.current_time() or not self.allows(grant.node):
            return b"the link is not to be had any more", ()
        if pid != grant.os_pid:
            why = f"process {grant.os_pid} asked for the link, and process {pid} has come"
            _log.warning("refused a link", node=grant.node, os_pid=pid, why=why)
            return why.encode(), ()
        return GRANTED, grant.give()
