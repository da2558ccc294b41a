"""Who is connected, who is dialling whom: one entry per peer name, and the rules of duplicates. No
sockets.

Rules (dist-protocol.md, 2.5), decided for each peer name in one place and without a wait in
between:
* Both dial at once: the connection opened by the node with the greater name survives. The greater
  one answers `nok`, the other answers `ok_simultaneous` and gives its own attempt up. A BEAM gives
  it up at once; here only the proven cookie ends it, or the greater one's `nok`.
* A name that is already connected is answered `alive`; only a proven cookie takes the old
  connection down.
* Claims that are not proven yet do not block each other. A BEAM drops the second of two; here the
  newest that proves the cookie wins. So nobody without the cookie keeps the true peer out, or us
  from reaching it, by claiming its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import trio

from bridge.dist.handshake_events import Status


@dataclass(frozen=True, slots=True)
class Connection:
    """An established connection. `id` is the carrier's; `flags` are the negotiated ones."""

    id: int
    peer: str
    flags: int
    creation: int


@dataclass(eq=False, slots=True)
class Attempt:
    """One dial of ours. `done` is set when it has ended, with `error` when it failed."""

    give_up: Callable[[], None]
    done: trio.Event = field(default_factory=trio.Event)
    error: Exception | None = None


@dataclass(eq=False, slots=True)
class _Entry:
    connection: Connection | None = None
    attempt: Attempt | None = None
    claims: int = 0  # handshakes of that name that we accept at this moment
    changed: trio.Event = field(default_factory=trio.Event)

    @property
    def idle(self) -> bool:
        return self.connection is None and self.attempt is None and self.claims == 0


class Peers:
    """The registry of one node, whose own full name is `own_name`."""

    def __init__(self, own_name: str) -> None:
        self._own_name = own_name
        self._entries: dict[str, _Entry] = {}
        self._by_id: dict[int, Connection] = {}

    def __iter__(self) -> Iterator[Connection]:
        return iter(tuple(self._by_id.values()))

    def connection_of(self, peer: str) -> Connection | None:
        entry = self._entries.get(peer)
        return entry.connection if entry else None

    def by_id(self, conn: int) -> Connection | None:
        return self._by_id.get(conn)

    def attempt_of(self, peer: str) -> Attempt | None:
        entry = self._entries.get(peer)
        return entry.attempt if entry else None

    def claims_of(self, peer: str) -> int:
        entry = self._entries.get(peer)
        return entry.claims if entry else 0

    def changed(self, peer: str) -> trio.Event:
        """Set at the next change of that peer's entry."""
        return self._entry(peer).changed

    # -- accepting ---------------------------------------------------------------------------------

    def claim(self, peer: str) -> Status:
        """A peer of that name dials us; the status to answer. Each claim but `nok` ends with
        `end_claim`.
        """
        entry = self._entry(peer)
        if entry.attempt is not None:
            if self._own_name > peer:
                return Status.NOK
            entry.claims += 1
            return Status.OK_SIMULTANEOUS
        entry.claims += 1
        return Status.ALIVE if entry.connection is not None else Status.OK

    def end_claim(self, peer: str) -> None:
        """The accepted handshake has ended, well or not."""
        entry = self._entry(peer)
        entry.claims -= 1
        self._change(peer, entry)

    # -- dialling ----------------------------------------------------------------------------------

    def begin_attempt(self, peer: str, give_up: Callable[[], None]) -> Attempt:
        """We dial `peer`; `give_up` cancels that. One at a time per peer."""
        entry = self._entry(peer)
        assert entry.attempt is None, "one attempt per peer"
        entry.attempt = Attempt(give_up)
        return entry.attempt

    def end_attempt(self, peer: str, attempt: Attempt, error: Exception | None) -> None:
        entry = self._entry(peer)
        if entry.attempt is attempt:
            entry.attempt = None
        attempt.error = error
        attempt.done.set()
        self._change(peer, entry)

    # -- established -------------------------------------------------------------------------------

    def up(self, connection: Connection) -> None:
        """An established connection; there is no other of that peer any more."""
        entry = self._entry(connection.peer)
        assert entry.connection is None, "the old connection goes first"
        entry.connection = connection
        self._by_id[connection.id] = connection
        self._change(connection.peer, entry)

    def down(self, conn: int) -> Connection | None:
        """Forget a connection; None if it was forgotten before."""
        connection = self._by_id.pop(conn, None)
        if connection is not None:
            entry = self._entry(connection.peer)
            entry.connection = None
            self._change(connection.peer, entry)
        return connection

    def _entry(self, peer: str) -> _Entry:
        return self._entries.setdefault(peer, _Entry())

    def _change(self, peer: str, entry: _Entry) -> None:
        entry.changed.set()
        entry.changed = trio.Event()
        if entry.idle:
            self._entries.pop(peer, None)
