"""Pids and references of this node: counters, never used twice in one creation."""

from __future__ import annotations

from itertools import count

from bridge.etf import Atom, Pid, Reference

_PID_ID_BITS = 28  # as far as a BEAM counts before it carries into the serial
_REF_WORD0_BITS = 18  # BEAMs of our own name would refuse more (dist-protocol.md, 6.2)


class Ids:
    """Hands out identifiers of the node `name` in its incarnation `creation` (1..2**32-1)."""

    def __init__(self, name: str, creation: int) -> None:
        self.node = Atom(name)
        self.creation = creation
        self._pids = count(1)
        self._refs = count(1)

    def next_pid(self) -> Pid:
        number = next(self._pids)
        serial, id_ = divmod(number, 1 << _PID_ID_BITS)
        return Pid(self.node, id_, serial, self.creation)

    def next_ref(self) -> Reference:
        """A reference of three words: every release takes these, OTP 25 no more than five."""
        rest, word0 = divmod(next(self._refs), 1 << _REF_WORD0_BITS)
        word2, word1 = divmod(rest, 1 << 32)
        return Reference(self.node, self.creation, (word0, word1, word2))

    def is_own(self, node: Atom, creation: int) -> bool:
        """Whether something made by `node` in `creation` is ours, of this life and not an earlier
        one.
        """
        return node == self.node and creation == self.creation
