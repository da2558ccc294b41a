"""The links of one process, seen from its side: absent, active, or inactive until an unlink is
acknowledged.

Rules (dist-protocol.md, 5.3): an unlink must not lose a link that the other side makes at the same
moment, so it carries an id and the link stays `inactive` until the acknowledgement of that very id.
An exit signal that arrives while inactive is not delivered: we had already unlinked.

They are kept by node, and `LinkIndex` knows the processes with any to a node: what a lost
connection costs is what hung on it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from bridge.etf import Pid

LINKS_MAX = 100_000  # per process

_ACTIVE = 0  # else the id of the unlink that is not acknowledged yet, 1..2**64-1


class LinkIndex:
    """For each node, our processes that have links with processes there."""

    def __init__(self) -> None:
        self._owners: dict[str, dict[Pid, None]] = {}

    def add(self, node: str, owner: Pid) -> None:
        self._owners.setdefault(node, {})[owner] = None

    def discard(self, node: str, owner: Pid) -> None:
        owners = self._owners.get(node, {})
        owners.pop(owner, None)
        if not owners:
            self._owners.pop(node, None)

    def owners(self, node: str) -> list[Pid]:
        return list(self._owners.get(node, ()))


class Links:
    def __init__(self, owner: Pid, index: LinkIndex) -> None:
        self._owner = owner
        self._index = index
        self._by_node: dict[str, dict[Pid, int]] = {}
        self._count = 0
        self._last_id = 0

    def __len__(self) -> int:
        return self._count

    def __sizeof__(self) -> int:
        """With its tables, without the pids: those may be shared."""
        tables = sum(map(sys.getsizeof, self._by_node.values()))
        return object.__sizeof__(self) + sys.getsizeof(self._by_node) + tables

    def link(self, other: Pid) -> bool:
        """We link. True: send LINK. An unlink still on its way is overtaken by the new link."""
        if self._state(other) == _ACTIVE:
            return False
        self._set(other, _ACTIVE)
        return True

    def unlink(self, other: Pid) -> int | None:
        """We unlink. The id to send UNLINK_ID with, or None: there is no link."""
        if self._state(other) != _ACTIVE:
            return None
        self._last_id += 1
        self._set(other, self._last_id)
        return self._last_id

    def receive_link(self, other: Pid) -> None:
        if self._state(other) is None:
            self._set(other, _ACTIVE)

    def receive_unlink(self, other: Pid) -> None:
        """The caller always acknowledges, whatever the state was."""
        if self._state(other) == _ACTIVE:
            self._remove(other)

    def receive_unlink_ack(self, other: Pid, id_: int) -> None:
        if self._state(other) == id_:
            self._remove(other)

    def receive_exit(self, other: Pid) -> bool:
        """The other end died. True: deliver the exit signal."""
        state = self._state(other)
        if state is not None:
            self._remove(other)
        return state == _ACTIVE

    def active(self) -> Iterator[Pid]:
        """The other ends, those of one node together."""
        return (
            other
            for states in self._by_node.values()
            for other, state in states.items()
            if state == _ACTIVE
        )

    def take_all(self) -> list[Pid]:
        """Forget everything; the active ones are returned."""
        return [other for node in tuple(self._by_node) for other in self.take_all_of(node)]

    def take_all_of(self, node: str) -> list[Pid]:
        """Forget everything about processes of `node`; the active ones are returned."""
        states = self._by_node.pop(node, {})
        self._count -= len(states)
        self._index.discard(node, self._owner)
        return [other for other, state in states.items() if state == _ACTIVE]

    # -- helpers -----------------------------------------------------------------------------------

    def _state(self, other: Pid) -> int | None:
        states = self._by_node.get(other.node.name)
        return None if states is None else states.get(other)

    def _set(self, other: Pid, state: int) -> None:
        node = other.node.name
        states = self._by_node.get(node)
        if states is None:
            states = self._by_node[node] = {}
            self._index.add(node, self._owner)
        self._count += other not in states
        states[other] = state

    def _remove(self, other: Pid) -> None:
        node = other.node.name
        states = self._by_node[node]
        del states[other]
        self._count -= 1
        if not states:
            del self._by_node[node]
            self._index.discard(node, self._owner)
