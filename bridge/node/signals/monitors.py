"""Both sides of monitors, by node: those that processes of ours hold, and those held on them.

By node, so that what a lost connection or a dead process costs is what hung on it, however much
there is of others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bridge.dist.errors import RemoteProtocolError
from bridge.etf import Atom, Pid, Reference
from bridge.node.signals.addresses import Target
from bridge.node.signals.table import Process, Watcher

Term = Any

MONITORS_MAX = 100_000  # held on us per peer; a peer with more is broken or hostile


@dataclass(frozen=True, slots=True)
class Watch:
    """A monitor that a process of ours holds. `notify` takes the reason in place of a DOWN message;
    an `urgent` DOWN goes before ordinary messages.
    """

    owner: Process
    target: Target
    notify: Callable[[Term], None] | None = None
    urgent: bool = False

    @property
    def signal_target(self) -> Pid | Atom:
        return self.target[0] if isinstance(self.target, tuple) else self.target

    @property
    def node(self) -> str:
        node = self.target[1] if isinstance(self.target, tuple) else self.target.node
        return node.name


class Held:
    """Monitors that processes of ours hold."""

    def __init__(self) -> None:
        self._watches: dict[Reference, Watch] = {}
        self._by_node: dict[str, dict[Reference, None]] = {}

    def __len__(self) -> int:
        return len(self._watches)

    def get(self, ref: Reference) -> Watch | None:
        return self._watches.get(ref)

    def add(self, ref: Reference, watch: Watch) -> None:
        self._watches[ref] = watch
        self._by_node.setdefault(watch.node, {})[ref] = None
        watch.owner.watching.add(ref)

    def take(self, ref: Reference) -> Watch | None:
        watch = self._watches.pop(ref, None)
        if watch is not None:
            watch.owner.watching.discard(ref)
            refs = self._by_node[watch.node]
            del refs[ref]
            if not refs:
                del self._by_node[watch.node]
        return watch

    def of_node(self, node: str) -> list[Reference]:
        """The monitors on processes of `node`, oldest first."""
        return list(self._by_node.get(node, ()))


class HeldOnUs:
    """Monitors that processes of a node, ours too, hold on processes of ours."""

    def __init__(self, own_name: str) -> None:
        self._own_name = own_name
        self._by_node: dict[str, dict[Reference, Process]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_node.values()))

    def add(self, node: str, ref: Reference, process: Process, watcher: Watcher) -> None:
        """A second monitor of one reference is none. Raises RemoteProtocolError past the bound."""
        if self.is_new(node, ref):
            self._by_node.setdefault(node, {})[ref] = process
            process.watchers[ref] = watcher

    def is_new(self, node: str, ref: Reference) -> bool:
        """Whether `node` holds no monitor of that reference. Raises as `add` does."""
        held = self._by_node.get(node, {})
        if ref in held:
            return False
        if len(held) >= MONITORS_MAX and node != self._own_name:
            raise RemoteProtocolError(f"a node holds at most {MONITORS_MAX} monitors here")
        return True

    def remove(self, node: str, ref: Reference, sender: Pid | None = None) -> None:
        """Only of `sender`, if it is given. Unknown ones are normal."""
        held = self._by_node.get(node, {})
        process = held.get(ref)
        if process is None or (sender is not None and process.watchers[ref].pid != sender):
            return
        del held[ref]
        del process.watchers[ref]
        if not held:
            del self._by_node[node]
        _tell_unwatched(process)

    def forget_node(self, node: str) -> None:
        for ref, process in self._by_node.pop(node, {}).items():
            process.watchers.pop(ref, None)  # with the last one the process may have ended
            _tell_unwatched(process)


def _tell_unwatched(process: Process) -> None:
    if process.unwatched is not None and not process.watchers:
        process.unwatched()
