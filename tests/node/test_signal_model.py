"""Links and monitors between two routers whose signals take their time, against a model.

Two nodes, processes on each, and two queues: what one node sends stays in its queue until a step
delivers it, so that unlinks cross links, exits cross unlinks, and demonitors cross downs in every
way that hypothesis finds. The model knows nothing of signals. It holds what a process may rely on
(erl_dist_protocol, "Link Protocol"; the reference manual, "Processes"):

* an EXIT ends its link, and none comes of a link that was given up;
* of each monitor comes exactly one DOWN, and none after the demonitor;
* when nothing is on its way any more, both ends agree: a link is there on both sides or on neither,
  and nothing is linked with, or watches, or waits for, what has ended.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from router_support import Box

from bridge.dist import control as c
from bridge.etf import Atom, Pid, Reference
from bridge.node.signals.ids import Ids
from bridge.node.signals.router import Router
from bridge.node.signals.table import Process

NODES = ("one@h", "two@h")
BAD = Atom("bad")
DOWN, EXIT = Atom("DOWN"), Atom("EXIT")

side = st.integers(0, 1)


class Wire:
    """Two connected routers. A signal waits in its sender's queue until `deliver`."""

    def __init__(self) -> None:
        self.connected = True
        self.queues: tuple[deque[Any], deque[Any]] = (deque(), deque())
        self.routers = [
            Router(Ids(name, 1), partial(self._emit, side)) for side, name in enumerate(NODES)
        ]

    def _emit(self, side: int, node: str, message: c.ControlMessage, payload: Any) -> bool:
        if self.connected:
            self.queues[side].append((message, payload))
        return self.connected

    def deliver(self, side: int) -> None:
        message, payload = self.queues[side].popleft()
        self.routers[1 - side].receive(NODES[side], message, lambda: payload)

    def has(self, kind: type) -> bool:
        return any(isinstance(message, kind) for queue in self.queues for message, _ in queue)

    def lose(self) -> None:
        self.connected = False
        for queue in self.queues:
            queue.clear()
        for side, router in enumerate(self.routers):
            router.connection_lost(NODES[1 - side])
        self.connected = True


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.wire = Wire()
        self.people: dict[int, tuple[Process, Box]] = {}
        self.heard: dict[Pid, int] = {}
        for side in range(2):
            self._spawn(side)
        self.dead: set[Pid] = set()
        self.linked: set[tuple[Pid, Pid]] = set()  # who linked, until either gives it up or it ends
        self.unlinked: set[tuple[Pid, Pid]] = set()  # who gave up a link with whom, until a new one
        self.watching: dict[Reference, tuple[Pid, Pid]] = {}

    def _spawn(self, side: int) -> None:
        box = Box()
        process = self.wire.routers[side].spawn(box, trap_exit=True)
        self.people[side] = (process, box)
        self.heard[process.pid] = 0

    # -- steps -------------------------------------------------------------------------------------

    @rule(side=side)
    def link(self, side: int) -> None:
        (process, _), (other, _) = self.people[side], self.people[1 - side]
        if other.pid not in process.links.active():  # else it changes nothing
            self.unlinked -= {(process.pid, other.pid), (other.pid, process.pid)}
            if not self.wire.has(c.UnlinkId):  # one of an older link may take this one along
                self.linked.add((process.pid, other.pid))
        self.wire.routers[side].link(process, other.pid)

    @rule(side=side)
    def unlink(self, side: int) -> None:
        (process, _), (other, _) = self.people[side], self.people[1 - side]
        if other.pid in process.links.active():
            self.unlinked.add((process.pid, other.pid))
        self.linked -= {(process.pid, other.pid), (other.pid, process.pid)}
        self.wire.routers[side].unlink(process, other.pid)

    @rule(side=side)
    def monitor(self, side: int) -> None:
        (process, _), (other, _) = self.people[side], self.people[1 - side]
        ref = self.wire.routers[side].ids.next_ref()
        self.watching[ref] = (process.pid, other.pid)
        self.wire.routers[side].monitor(process, other.pid, ref=ref)

    @rule(data=st.data())
    @precondition(lambda self: self.watching)
    def demonitor(self, data: Any) -> None:
        ref = data.draw(st.sampled_from(list(self.watching)))
        watcher, _ = self.watching.pop(ref)
        side = NODES.index(watcher.node.name)
        self.wire.routers[side].demonitor(ref)

    @rule(side=side, luck=st.integers(0, 3))
    def end(self, side: int, luck: int) -> None:
        process, _ = self.people[side]
        if luck == 0:
            self.dead.add(process.pid)
            for ref in [r for r, (watcher, _) in self.watching.items() if watcher == process.pid]:
                del self.watching[ref]
            self.wire.routers[side].terminate(process, BAD)
            self.linked = {pair for pair in self.linked if pair[0] != process.pid}
            self.what_was_heard_was_asked_for()
            assert (len(process.links), process.watchers, process.watching) == (0, {}, set())
            self._spawn(side)

    @rule(side=st.integers(0, 1))
    @precondition(lambda self: any(self.wire.queues))
    def deliver(self, side: int) -> None:
        if self.wire.queues[side]:
            self.wire.deliver(side)

    @rule(luck=st.integers(0, 15))
    def lose_the_connection(self, luck: int) -> None:
        if luck == 0:
            self.wire.lose()

    @rule()
    def settle(self) -> None:
        while any(self.wire.queues):
            for side in range(2):
                while self.wire.queues[side]:
                    self.wire.deliver(side)
        self._check_settled()

    # -- what holds --------------------------------------------------------------------------------

    @invariant()
    def what_was_heard_was_asked_for(self) -> None:
        for process, box in self.people.values():
            new, self.heard[process.pid] = box.signals[self.heard[process.pid] :], len(box.signals)
            for signal in new:
                assert process.pid not in self.dead, "the dead hear nothing"
                if signal[0] == DOWN:
                    _, ref, _, target, reason = signal
                    assert self.watching.pop(ref) == (process.pid, target), "once, and asked for"
                    self._check_reason(target, reason)
                else:
                    _, sender, reason = signal
                    assert sender not in process.links.active(), "the link is gone with it"
                    assert (process.pid, sender) not in self.unlinked, "it was given up"
                    self.linked.discard((process.pid, sender))
                    self._check_reason(sender, reason)

        for process, _ in self.people.values():
            others = {other for owner, other in self.linked if owner == process.pid}
            assert others <= set(process.links.active()), "it ended, and its EXIT did not come"

    def _check_reason(self, who: Pid, reason: Any) -> None:
        if reason == BAD or reason == Atom("noproc"):
            assert who in self.dead
        else:
            assert reason == Atom("noconnection")

    def _check_settled(self) -> None:
        self.what_was_heard_was_asked_for()
        by_pid = {process.pid: process for process, _ in self.people.values()}
        for process, _ in self.people.values():
            active = set(process.links.active())
            assert len(process.links) == len(active), "no unlink waits for its acknowledgement"
            for other in active:
                assert other not in self.dead, "its EXIT has come"
                assert process.pid in by_pid[other].links.active(), "both sides agree"
            for watcher in process.watchers.values():
                assert watcher.pid not in self.dead
        for _, target in self.watching.values():
            assert target not in self.dead, "its DOWN has come"
        held = sum(router.counts()["monitors_held"] for router in self.wire.routers)
        on_us = sum(router.counts()["monitors_on_us"] for router in self.wire.routers)
        assert held == on_us == len(self.watching)


Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestLinksAndMonitors = Machine.TestCase
