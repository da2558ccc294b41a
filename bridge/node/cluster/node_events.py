"""Nodes that come and go: `{nodeup, Node}` and `{nodedown, Node}` for processes, events for tasks.

Facts (erl docs of net_kernel:monitor_nodes/1 and erlang:monitor_node/2): a nodeup comes before the
first signal of that node, a nodedown after the last, the DOWNs and EXITs of the loss included; who
asks twice is told twice. All peers count here, hidden ones too: to a hidden node there is no mesh
of visible ones.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from types import TracebackType

import trio

from bridge.etf import Atom, Pid
from bridge.node.signals.table import Process

NODEUP, NODEDOWN = Atom("nodeup"), Atom("nodedown")
EVENTS_MAX = 1_000  # that one subscription may be behind


@dataclass(frozen=True, slots=True)
class NodeUp:
    """A connection with `node` is up. `missed`: events before it that found no room."""

    node: str
    missed: int = 0


@dataclass(frozen=True, slots=True)
class NodeDown:
    """The connection with `node` is gone; `reason` in words. `missed` as above."""

    node: str
    reason: str
    missed: int = 0


class NodeMonitor:
    """An async iterator over NodeUp and NodeDown from the moment that it is entered."""

    def __init__(self, subscribe: Callable[[NodeMonitor, bool], None], events_max: int) -> None:
        self._subscribe = subscribe
        self._send, self._receive = trio.open_memory_channel[NodeUp | NodeDown](math.inf)
        self._events_max = events_max
        self._missed = 0

    def __enter__(self) -> NodeMonitor:
        self._subscribe(self, True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._subscribe(self, False)
        self._send.close()
        self._receive.close()

    def __aiter__(self) -> AsyncIterator[NodeUp | NodeDown]:
        return self

    async def __anext__(self) -> NodeUp | NodeDown:
        return await self._receive.receive()

    def tell(self, make: Callable[[int], NodeUp | NodeDown]) -> None:
        """Queue an event, or count it as missed. Never blocks."""
        if self._send.statistics().current_buffer_used >= self._events_max:
            self._missed += 1
        else:
            self._send.send_nowait(make(self._missed))
            self._missed = 0


class NodeEvents:
    """Who wants to hear of nodes. `alive(pid)` says whether a process still lives."""

    def __init__(self, alive: Callable[[Pid], bool]) -> None:
        self._alive = alive
        self._monitors: list[NodeMonitor] = []
        self._of_all: Counter[Pid] = Counter()
        self._of_one: dict[str, Counter[Pid]] = {}
        self._processes: dict[Pid, Process] = {}

    def monitor(self, events_max: int = EVENTS_MAX) -> NodeMonitor:
        """For `with`, then `async for`."""
        return NodeMonitor(self._subscribe, events_max)

    def monitor_nodes(self, process: Process, on: bool) -> None:
        """`process` hears of every node: once more, or never again."""
        self._forget_dead()
        if on:
            self._processes[process.pid] = process
            self._of_all[process.pid] += 1
        else:
            del self._of_all[process.pid]

    def monitor_node(self, process: Process, node: str, on: bool) -> None:
        """`process` hears of the next end of `node`: once more, or once less."""
        self._forget_dead()
        watchers = self._of_one.setdefault(node, Counter())
        self._processes[process.pid] = process
        watchers[process.pid] += 1 if on else -1
        if watchers[process.pid] <= 0:
            del watchers[process.pid]
        if not watchers:
            del self._of_one[node]

    def up(self, node: str) -> None:
        self._tell_all((NODEUP, Atom(node)))
        for monitor in self._monitors:
            monitor.tell(lambda missed: NodeUp(node, missed))

    def down(self, node: str, reason: str) -> None:
        message = (NODEDOWN, Atom(node))
        for pid, times in self._of_one.pop(node, Counter()).items():
            self._tell(pid, message, times)
        self._tell_all(message)
        for monitor in self._monitors:
            monitor.tell(lambda missed: NodeDown(node, reason, missed))

    def _subscribe(self, monitor: NodeMonitor, on: bool) -> None:
        (self._monitors.append if on else self._monitors.remove)(monitor)

    def _tell_all(self, message: tuple[Atom, Atom]) -> None:
        for pid, times in tuple(self._of_all.items()):
            self._tell(pid, message, times)

    def _tell(self, pid: Pid, message: tuple[Atom, Atom], times: int) -> None:
        if self._alive(pid):
            for _ in range(times):
                self._processes[pid].inbox.deliver_signal(message)

    def _forget_dead(self) -> None:
        for pid in [pid for pid in self._processes if not self._alive(pid)]:
            del self._processes[pid], self._of_all[pid]
            for watchers in self._of_one.values():
                del watchers[pid]
        self._of_one = {node: watchers for node, watchers in self._of_one.items() if watchers}
