"""A conversation whose jobs lie on links, so that the rules over messages hold there as well.

A slot's link is fetched before its first job. Jobs, starts, answers, parts, cancels, demand and
beats are then in memory; hello, leave and the end of a registration stay messages (stage.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import trio

from bridge.fabric import layout
from bridge.workers.remote import messages
from bridge.workers.remote.messages import (
    Began,
    Bytes,
    Drained,
    Ended,
    Heartbeat,
    Leave,
    NoLink,
    Said,
)
from workers.conformance.jobs import FINAL, Answer, Broke
from workers.conformance.link import Link, LinkPlan
from workers.conformance.messages.links import KILLED, LinkDesk, LinkedWorker
from workers.conformance.messages.stage import HEARTBEAT_MS, ROLE, Conversation, Stage
from workers.conformance.peer import Peer, now_ns

LOOK_S = 0.001


class Slot:
    """One slot's link, and which of its jobs it has said to begin."""

    def __init__(self, peer: Peer, worker: LinkedWorker) -> None:
        self.peer = peer
        self.worker = worker
        self._given: list[int] = []
        self._begun = 0
        self._beats = 0

    def give(self, opcode: int, payload: bytes, **how: Any) -> int:
        self._given.append(self.peer.submit(opcode, payload, **how))
        return self._given[-1]

    def news(self) -> list[messages.Message]:
        """What it has said since. An answer's job was begun before it."""
        answers: list[Answer] = []
        while self.peer.drain():
            while (answer := self.peer.poll(0)) is not None:
                self.peer.give_back(answer)
                answers.append(answer)
        started = self.peer.started.load()
        said: list[messages.Message] = []
        for answer in answers:
            said += self._begin(self._given.index(answer.job) + 1)
            data = Bytes(answer.payload, answer.is_term)
            if answer.status in FINAL:
                said.append(Ended(answer.job, answer.status, data, answer.code, answer.run_ns))
            else:
                said.append(Said(answer.job, answer.status, data))
        return [*said, *self._begin(started)]

    def _begin(self, count: int) -> list[messages.Message]:
        begun = [Began(job) for job in self._given[self._begun : count]]
        self._begun = max(self._begun, count)
        return [*begun]

    def beat(self) -> bool | None:
        """Whether it is ready, where it has beaten since the last look."""
        block = self.peer.telemetry()
        if block["heartbeats"] == self._beats:
            return None
        self._beats = block["heartbeats"]
        return not block["unready"]

    def close(self) -> None:
        self.worker.ended(KILLED, "its registration is over")
        self.peer.close()


@dataclass
class LinkedConversation(Conversation):
    links: Sequence[Slot] = ()
    _news: deque[messages.Message] = field(default_factory=deque)

    def give(
        self,
        opcode: int,
        payload: bytes = b"",
        *,
        slot: int = 0,
        is_term: bool = False,
        parts: int | None = None,
        progress: bool = False,
        deadline_ms: int | None = None,
        trace: bytes | None = None,
    ) -> int:
        flags = layout.FLAG_TERM * is_term | layout.FLAG_PROGRESS * progress
        flags |= layout.FLAG_PARTS * (parts is not None)
        how: dict[str, Any] = {"flags": flags, "demand": parts or 0}
        if deadline_ms is not None:
            how["deadline_ns"] = now_ns() + deadline_ms * 1_000_000
        if trace is not None:
            _, trace_id, span, bits = trace.decode().split("-")
            how["trace"] = bytes.fromhex(trace_id), bytes.fromhex(span), int(bits, 16)
        return self.links[slot].give(opcode, payload, **how)

    def demand(self, job: int, parts: int) -> None:
        self._holder(job).demand(job, parts)

    def tell(self, kind: str, **said: Any) -> None:
        match kind:
            case "cancel":
                if any(entry.id == said["job"] for each in self.links for entry in each.peer.jobs):
                    self._holder(said["job"]).cancel(said["job"])
            case "drain":
                for slot in said["slots"]:
                    self.links[slot].peer.control(layout.CONTROL_DRAIN)
            case _:
                super().tell(kind, **said)

    def _holder(self, job: int) -> Peer:
        for each in self.links:
            if any(entry.id == job for entry in each.peer.jobs):
                return each.peer
        raise Broke(f"no link holds job {job}")

    async def next(self, timeout_s: float | None = None) -> messages.Message | None:
        limit = self.patience_s if timeout_s is None else timeout_s
        with trio.move_on_after(limit):
            while not self._news:
                await self._look()
        return self._news.popleft() if self._news else None

    async def _look(self) -> None:
        for each in self.links:
            self._news += each.news()
        ready = self.links[0].beat()
        if ready is not None:
            self.beats_s.append(trio.current_time())
            self.ready = ready
        with trio.move_on_after(LOOK_S):
            match messages.read(await self.desk.receive()):
                case Leave() as left:
                    self._news.append(left)
                case NoLink(slot, _, why):
                    raise Broke(f"slot {slot} has no link any more: {why}")
                case Heartbeat() | Drained():
                    pass
                case said:
                    raise Broke(f"over messages it said {said}, though its jobs are on links")

    def close(self) -> None:
        for each in self.links:
            each.close()


class LinkedStage(Stage):
    """A stage whose conversations are over links."""

    def __init__(self, *how: Any) -> None:
        super().__init__(*how)
        self.links = LinkDesk()
        self._linked: list[LinkedConversation] = []

    async def greeted(
        self, message: Any = None, *, heartbeat_ms: int = HEARTBEAT_MS
    ) -> Conversation:
        talk = await super().greeted(message, heartbeat_ms=heartbeat_ms)
        linked = LinkedConversation(talk.node, talk.hello, talk.desk, talk.patience_s)
        self.conversations[-1] = linked
        self._linked.append(linked)
        linked.links = [await self._slot(talk, slot) for slot in range(talk.hello.slots)]
        return linked

    async def _slot(self, talk: Conversation, slot: int) -> Slot:
        made: list[LinkedWorker] = []

        def begin(link: Link) -> LinkedWorker:
            made.append(self.links.offer(talk, link, slot))
            return made[0]

        peer = Peer((), LinkPlan(role=ROLE), self.patience_s, begin=begin)
        hello = peer.link.worker.word(layout.WORKER_HEADER.at("hello"), 32)
        with trio.move_on_after(self.patience_s):
            while hello.load() != layout.HELLO_READY:  # noqa: ASYNC110  # nobody tells of it
                await trio.sleep(LOOK_S)
        found = Slot(peer, made[0])
        if hello.load() != layout.HELLO_READY:
            found.close()
            raise Broke(f"it does not fetch the link of slot {slot}")
        return found

    async def tidy(self) -> None:
        await super().tidy()
        while self._linked:
            self._linked.pop().close()
