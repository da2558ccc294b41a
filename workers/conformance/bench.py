"""What a rule works with: a bench that starts workers, and the chapter that it stands in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from workers.conformance.link import LinkPlan
from workers.conformance.peer import Peer


class Closable(Protocol):
    def close(self) -> None: ...


@dataclass
class Bench:
    """The executable under test. `close` ends every worker that a rule has started."""

    argv: Sequence[str]
    patience_s: float = 10.0
    peers: list[Peer] = field(default_factory=list)
    closing: list[Closable] = field(default_factory=list)  # what else ends with them

    def start(self, *, greet: bool = True, without_futex: bool = False, **plan: Any) -> Peer:
        """A worker on a new link; the keywords are LinkPlan's."""
        peer = Peer(self.argv, LinkPlan(**plan), self.patience_s, without_futex=without_futex)
        self.peers.append(peer)
        if greet:
            peer.greet()
        return peer

    def close(self) -> None:
        while self.peers:
            self.peers.pop().close()
        while self.closing:
            self.closing.pop().close()


@dataclass(frozen=True)
class Rule:
    """One rule: a number that never changes, what it says, and how it is tried."""

    number: int
    title: str
    chapter: str
    attempt: Callable[[Bench], None]


class Chapter:
    """Rules that belong together; each module of `rules` has one."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.rules: list[Rule] = []

    def rule(
        self, number: int, title: str
    ) -> Callable[[Callable[[Bench], None]], Callable[[Bench], None]]:
        """Makes a function the attempt of a rule."""

        def register(attempt: Callable[[Bench], None]) -> Callable[[Bench], None]:
            self.rules.append(Rule(number, title, self.title, attempt))
            return attempt

        return register
