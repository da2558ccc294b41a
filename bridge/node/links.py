"""The links of one process, seen from its side: absent, active, or inactive until an unlink is
acknowledged.

Rules (dist-protocol.md, 5.3): an unlink must not lose a link that the other side makes at the same
moment, so it carries an id and the link stays `inactive` until the acknowledgement of that very id.
An exit signal that arrives while inactive is not delivered: we had already unlinked.
"""

from __future__ import annotations

from collections.abc import Iterator

from bridge.etf import Pid

_ACTIVE = 0  # else the id of the unlink that is not acknowledged yet, 1..2**64-1


class Links:
    def __init__(self) -> None:
        self._states: dict[Pid, int] = {}
        self._last_id = 0

    def __len__(self) -> int:
        return len(self._states)

    def link(self, other: Pid) -> bool:
        """We link. True: send LINK. An unlink still on its way is overtaken by the new link."""
        if self._states.get(other) == _ACTIVE:
            return False
        self._states[other] = _ACTIVE
        return True

    def unlink(self, other: Pid) -> int | None:
        """We unlink. The id to send UNLINK_ID with, or None: there is no link."""
        if self._states.get(other) != _ACTIVE:
            return None
        self._last_id += 1
        self._states[other] = self._last_id
        return self._last_id

    def receive_link(self, other: Pid) -> None:
        self._states.setdefault(other, _ACTIVE)

    def receive_unlink(self, other: Pid) -> None:
        """The caller always acknowledges, whatever the state was."""
        if self._states.get(other) == _ACTIVE:
            del self._states[other]

    def receive_unlink_ack(self, other: Pid, id_: int) -> None:
        if self._states.get(other) == id_:
            del self._states[other]

    def receive_exit(self, other: Pid) -> bool:
        """The other end died. True: deliver the exit signal."""
        return self._states.pop(other, None) == _ACTIVE

    def active(self) -> Iterator[Pid]:
        return (other for other, state in self._states.items() if state == _ACTIVE)

    def take_all_of(self, node: str) -> list[Pid]:
        """Forget everything about processes of `node`; the active ones are returned."""
        lost = [other for other in self._states if other.node.name == node]
        return [other for other in lost if self._states.pop(other) == _ACTIVE]
