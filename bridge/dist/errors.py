"""What can go wrong between two nodes, in the project's one vocabulary of failure."""

from __future__ import annotations


class RemoteProtocolError(Exception):
    """The peer broke a rule. `rule` is that rule in words; callers and logs show it, tests match on
    it.

    `peer` is the node name the peer gave, as far as it got to say one.
    """

    def __init__(self, rule: str, *, peer: str | None = None) -> None:
        super().__init__(rule)
        self.rule = rule
        self.peer = peer


class LocalProtocolError(Exception):
    """We called something in a state that does not allow it: a bug of the caller."""


class EpmdError(Exception):
    """epmd is not there, or refused us; the message says how to mend it."""


class NameTaken(EpmdError):
    """Another live node holds our name at epmd."""


class CookieError(Exception):
    """No usable cookie; the message names the rule, the place, what is there and the mend."""
