"""The rules of links on a worker in a BEAM: its links are granted as the bridge grants them.

The worker is greeted by messages (stage.py) and offered a link, which it fetches at the bridge's
own socket of lanes. What then lies on that link is the battery's: the same Peer, and the same
rules, as of a worker that is started on its link. What a worker of that kind says by the end of its
process, this one says by a message (`LinkedWorker`).
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import threading
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import trio

from bridge.config import Config, LaneSettings
from bridge.fabric import layout
from bridge.lanes.desk import GRANT_S, LaneDesk
from bridge.workers.remote.driver import same_layout
from bridge.workers.remote.messages import Drained, NoLink
from workers.conformance.bench import Bench
from workers.conformance.jobs import Broke, NotHere
from workers.conformance.link import Link, LinkPlan
from workers.conformance.messages.stage import Conversation, Stage
from workers.conformance.peer import Peer
from workers.conformance.process import Worker

# In the order of struct rb_link_fds, as the socket gives them.
DESCRIPTORS = (
    layout.FD_RELAY_SIDE,
    layout.FD_WORKER_SIDE,
    layout.FD_POOL,
    layout.FD_WAKE_WORKER,
    layout.FD_WAKE_RELAY,
)
DRAINED, BROKEN, REFUSED, KILLED = 0, 76, 78, -9
START_S = 30.0  # a VM that starts, beside the patience for what it says


class LinkedWorker(Worker):
    """What serves one link in a VM, in place of a process: it ends with its link.

    Its end as an exit status: 0 where it says that it has drained the link, or was told to stop; 78
    where it did not take the link, and 76 where it gave it up by itself. `stderr` is what it said.
    """

    def __init__(self, link: Link, os_pid: int, slot: int, patience_s: float) -> None:
        self.argv = ()
        self.pid = os_pid
        self.slot = slot
        # Readable, and so for good, when it has ended; a Gate waits for it as for a process.
        self.pidfd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._status: int | None = None
        self._why = ""
        self._link = link
        self._patience_s = patience_s
        self._ending = threading.Lock()  # told of in the node's thread, awaited in the rule's
        self._copies = tuple(os.dup(link.inherited[number]) for number in DESCRIPTORS)

    @property
    def stdout(self) -> bytes:
        return b""

    @property
    def stderr(self) -> str:
        return self._why

    def wait(self, timeout_s: float) -> int | None:
        if self._status is None:
            select.select([self.pidfd], [], [], timeout_s)
        return self._status

    def signal(self, number: int) -> None:
        """A signal is the whole VM's: rules that need more are not tried."""

    def fetch(self) -> tuple[int, ...]:
        """The link's descriptors, once; they are the caller's."""
        copies, self._copies = self._copies, ()
        return copies

    def close(self) -> None:
        """Its link is stopped, as by a relay that lets go of it."""
        if self._status is None and self._link.relay.base:
            at = layout.AT_POSITIONS + layout.RELAY_POSITIONS.at("control")
            self._link.relay.word(at, 32).store(layout.CONTROL_STOP)
            with contextlib.suppress(BrokenPipeError):  # it has just ended
                if self._link.bell is not None:
                    self._link.bell.send(b"\0")
            self.wait(self._patience_s)
        self.ended(KILLED, "it holds on to a link that was stopped")
        with self._ending:
            for fd in (self.pidfd, *self.fetch()):
                os.close(fd)

    def ended(self, status: int, why: str) -> None:
        with self._ending:
            if self._status is None:
                self._status, self._why = status, why
                os.eventfd_write(self.pidfd, 1)

    def gave_up(self, why: str) -> None:
        """It has no link any more, and says why."""
        if self._status is not None or not self._link.relay.base:
            return
        at = layout.AT_POSITIONS + layout.RELAY_POSITIONS.at("control")
        stopped = self._link.relay.word(at, 32).load() == layout.CONTROL_STOP
        hello = self._link.worker.word(layout.WORKER_HEADER.at("hello"), 32).load()
        greeted = hello == layout.HELLO_READY
        self.ended(DRAINED if stopped else BROKEN if greeted else REFUSED, why)


@dataclass
class Offered:
    """A registration, and what serves the links of its slots, by the worker ids of the offers."""

    talk: Conversation
    served: dict[int, LinkedWorker] = field(default_factory=dict)


class LinkDesk:
    """Where links are fetched: the bridge's own socket, policy and tokens."""

    def __init__(self) -> None:
        # Of a configuration they know its lanes only; and a link is asked of no relay.
        settings = cast(Config, SimpleNamespace(lanes=LaneSettings()))
        self._desk = LaneDesk(cast(Any, None), lambda: settings)
        self.last = 0  # the worker id of the last offer

    async def open(self, nursery: trio.Nursery) -> None:
        await nursery.start(self._desk.run)

    def offer(self, talk: Conversation, link: Link, slot: int) -> LinkedWorker:
        """The link's worker, which is told of it."""
        memory = talk.hello.memory
        if memory is None:
            raise NotHere("its hello has no `memory`: it takes its jobs as messages only")
        if not same_layout(memory.version, memory.digest):
            raise Broke("its hello has another layout than the battery's")
        worker = LinkedWorker(link, memory.os_pid, slot, talk.patience_s)
        link.rung_at_bell = True
        self.last += 1
        node = talk.hello.pid.node.name
        grant = self._desk.links.grant(node, memory.os_pid, worker.fetch)
        talk.tell(
            "link",
            slot=slot,
            worker=self.last,
            socket=grant.socket,
            token=grant.token,
            within_ms=int(GRANT_S * 1000),
            bell=True,
        )
        return worker


class Granter:
    """Offers links to the worker of a stage. Its calls are those of the node's thread."""

    def __init__(self, stage: Stage, desk: LinkDesk, nursery: trio.Nursery) -> None:
        self._stage = stage
        self._desk = desk
        self._nursery = nursery
        self._now: Offered | None = None

    async def offer(self, link: Link, role: str) -> LinkedWorker:
        """The link's worker, which has been told of it. Raises Broke, NotHere."""
        now = self._now
        if now is None or role != self._stage.role or not self._stage.process_lives():
            now = self._now = await self._register(role)
        worker = self._desk.offer(now.talk, link, self._free_slot(now))
        now.served[self._desk.last] = worker
        return worker

    def _free_slot(self, now: Offered) -> int:
        taken = {each.slot for each in now.served.values() if not each.has_ended()}
        for slot in range(now.talk.hello.slots):
            if slot not in taken:
                return slot
        raise NotHere(f"the rule needs more links than its {now.talk.hello.slots} slots")

    def forget(self) -> None:
        """The next rule finds another registration: one was broken in this."""
        if self._now is not None:
            self._now.talk.end()
            self._now = None

    async def _register(self, role: str) -> Offered:
        """A worker of this role that has links; its VM is started anew where it has another one."""
        stage = self._stage
        if role != stage.role:
            stage.kill()
            stage.role = role
        await stage.tidy()  # of an earlier one too: a process has one desk here
        fresh = not stage.process_lives()
        message = await stage.hello(stage.patience_s + START_S * fresh)
        talk = await Stage.greeted(stage, message, heartbeat_ms=layout.HEARTBEAT_MS)
        offered = Offered(talk)
        self._nursery.start_soon(self._listen, offered)
        return offered

    async def _listen(self, offered: Offered) -> None:
        """What it says of its links, until the registration is over."""
        why = "its registration is over"
        try:
            while (said := await offered.talk.next(math.inf)) is not None:
                match said:
                    case NoLink(_, worker, words) if worker in offered.served:
                        offered.served[worker].gave_up(words)
                    case Drained(_, worker) if worker in offered.served:
                        offered.served[worker].ended(DRAINED, "")
        except Broke as error:
            why = str(error)
        finally:
            if self._now is offered:
                self._now = None
            for each in offered.served.values():
                each.ended(KILLED, why)


@dataclass
class LinkBench(Bench):
    """A bench whose workers are links in one VM. A rule runs in a thread beside the node's."""

    granter: Granter | None = None

    def start(self, *, greet: bool = True, without_futex: bool = False, **plan: Any) -> Peer:
        if without_futex:
            raise NotHere("no filter is laid over a whole VM")
        planned = LinkPlan(**plan)
        if not (planned.bell and planned.pool_bytes):
            raise NotHere("a link that is granted has all of its five descriptors")

        def begin(link: Link) -> Worker:
            assert self.granter is not None
            return trio.from_thread.run(self.granter.offer, link, planned.role)

        peer = Peer(self.argv, planned, self.patience_s, begin=begin)
        self.peers.append(peer)
        if greet:
            peer.greet()
        return peer


_PROCESS = "what ends, or is started, is no process of its own but a part of a VM"
_CHANNEL = "a worker in a BEAM has no channel: a process of the cluster has its own ways"
_TRAP = "the battery stops a thread at its parking, and a VM has many that may serve the link"
_CLOCK = "a deadline is the bridge's to keep, by a cancel; a handler is told it by the VM's clock"
NOT_HERE: dict[int, str] = {
    **dict.fromkeys((2, 3, 16, 61, 62, 91, 93, 94), _PROCESS),
    **dict.fromkeys((*range(111, 127), *range(141, 178)), _CHANNEL),
    **dict.fromkeys((105, 106, 131, 132), _TRAP),
    **dict.fromkeys((27, 47, 55), _CLOCK),
    38: "a report is a message to the process of the slot: a handler is not told what became of it",
    32: "its largest answers are more than the memory of a VM; rule 208 tries the bound",
}
