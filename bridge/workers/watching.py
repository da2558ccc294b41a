"""Watching: changes of workers as messages to processes of other nodes, bounded.

    {:ringbridge_workers, ref, [worker]}    what has changed, each worker as in :list
    {:ringbridge_workers, ref, :missed}     before what follows: too much changed; ask :list

A watcher is monitored: its end, or its node's, ends the watching. What waits for one whose node
reads slowly is the newest state of each worker (watch_list.py), and its messages wait for room on
the socket, as any sender's do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog
import trio

from bridge.etf import Atom, EncodeError, Pid, Reference
from bridge.node import NoConnection, Node
from bridge.ops.answers import BadRequest, Term
from bridge.workers.watch_list import Full, WatchList

TAG = Atom("ringbridge_workers")
MISSED = Atom("missed")

log = structlog.get_logger("ringbridge.workers")


@dataclass(slots=True)
class _Watch:
    ref: Reference
    news: trio.Event
    ended: bool = False


class Watching:
    """The watchers of one registry."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._list: WatchList[Pid, int, Mapping[Any, Term]] = WatchList()
        self._watches: dict[Pid, _Watch] = {}

    def __len__(self) -> int:
        return len(self._watches)

    def ref_of(self, watcher: Pid) -> Reference | None:
        return self._watches[watcher].ref if watcher in self._watches else None

    def begin(self, watcher: Pid, ref: Reference) -> None:
        """Tell `watcher` of what changes from now on. `ref`: of the monitor on it. Raises
        BadRequest.
        """
        try:
            self._list.add(watcher, str(watcher.node.name))
        except Full as full:
            raise BadRequest(str(full)) from full
        self._watches[watcher] = _Watch(ref, trio.Event())
        self._node.start_soon(self._tell, watcher)

    def end(self, watcher: Pid) -> Reference | None:
        """No more messages to it, but for one on its way. Returns its monitor, if it watched."""
        self._list.remove(watcher)
        if (watch := self._watches.pop(watcher, None)) is None:
            return None
        watch.ended = True
        watch.news.set()
        return watch.ref

    def end_all(self) -> None:
        for watcher in list(self._watches):
            self.end(watcher)

    def changed(self, worker_id: int, described: Mapping[Any, Term]) -> None:
        for watcher in self._list.changed(worker_id, described):
            self._watches[watcher].news.set()

    async def _tell(self, watcher: Pid) -> None:
        watch = self._watches[watcher]
        while not watch.ended:
            if (batch := self._list.take(watcher)) is None:
                await watch.news.wait()
                watch.news = trio.Event()
                continue
            try:
                if batch.missed:
                    await self._node.send(watcher, (TAG, watch.ref, MISSED))
                if batch.changes:
                    await self._node.send(watcher, (TAG, watch.ref, batch.changes))
            except (NoConnection, EncodeError) as error:  # the monitor tells of the former, too
                log.info("watcher lost", watcher=str(watcher), why=str(error))
                self.end(watcher)
