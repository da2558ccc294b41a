"""Who may connect, and who may do more than ask: the rules of one node, as data and predicates.

Node names are claimed by the peer, and whoever has the cookie can claim any name that is free.
These rules keep mistakes and strangers apart from operators; against somebody who holds the cookie
only TLS with client certificates ties a name to its owner (docs/security.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from bridge.dist.handshake import HANDSHAKE_TIMEOUT_S
from bridge.etf import Atom
from bridge.node.signals.gen import Request, SystemRequest

UNAUTHENTICATED_MAX = 64  # concurrent handshakes that have not proved the cookie
UNAUTHENTICATED_PER_ADDRESS_MAX = 32  # of them, from one address: nobody fills the door alone
# What of the `sys` protocol changes or stops a process; the rest of it only looks.
_SYSTEM_CHANGES = frozenset({"suspend", "resume", "terminate", "replace_state", "change_code"})
# A trace is a log line for each message, a log keeps up to 10,000 of them: nobody else begins that.
_DEBUG_LOOKS = [(Atom(what), Atom("get")) for what in ("log", "statistics")]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of a connected node to a process of ours.

    `node` is the node whose connection it came over, whatever From the request claims. `names` are
    the names of the process that is asked, `request` is the Call, Cast, SystemRequest or Info.
    """

    node: str
    names: frozenset[str]
    request: Request


@dataclass(frozen=True)
class Policy:
    """Who may connect and what a connected node may do. Every callable is plain and must not block.

    `allow(name, address)` is asked with the claimed node name and the peer's IP address, before the
    cookie. `admin(node)` says who may do what changes or stops things. `authorise(asked)` is asked
    for each request to a Python process: True lets it pass; False, or a text that says why, is
    answered `{error, {unauthorized, Why}}` if it is a call, and dropped if it is not.
    `give_names`: name peers that ask for a name; `allow` is asked with the one that they get.
    """

    allow: Callable[[str, str], bool] = lambda name, address: True
    admin: Callable[[str], bool] = lambda node: True
    authorise: Callable[[Asked], bool | str] | None = None
    admin_mend: str = "let Policy(admin=...) accept it"
    unauthenticated_max: int = UNAUTHENTICATED_MAX
    unauthenticated_per_address_max: int = UNAUTHENTICATED_PER_ADDRESS_MAX
    handshake_timeout_s: float = field(default=HANDSHAKE_TIMEOUT_S)
    give_names: bool = True

    def may(self, node: str, what: str) -> bool:
        """Whether `node` may do `what` (in words), which changes or stops things here."""
        return self.admin(node)

    def why_not(self, node: str, what: str) -> str:
        """The refusal of `what` in words, with its mend."""
        return f"{what} is for admin nodes, and {node} is none: {self.admin_mend}"


def system_change(request: Request) -> str | None:
    """The words for a `sys` request that changes or stops its process, or None."""
    if isinstance(request, SystemRequest):
        match request.request:
            case Atom(name) | (Atom(name), *_) if name in _SYSTEM_CHANGES:
                return f"sys:{name}"
            case (Atom("debug"), what) if what not in _DEBUG_LOOKS:
                return "sys:debug"
    return None
