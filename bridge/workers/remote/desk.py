"""One registration of a remote worker, as a process of the node: it hears what the worker says,
tells it what the relay has for it, and ends with it.

Its slots are workers of their role (slot.py). Whatever goes wrong, in one of them or in the process
itself, ends the whole registration: only the process could end what runs there, and it is asked to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import structlog
import trio

from bridge.config import RoleConfig
from bridge.etf import Atom, brief
from bridge.fabric import layout
from bridge.node.process.details import Details
from bridge.node.process.direct import DirectProcess
from bridge.node.signals import gen
from bridge.node.signals.gen import Call, Info
from bridge.node.signals.router import Router
from bridge.ops.answers import atom_keys, bad_request
from bridge.workers.remote import messages
from bridge.workers.remote.driver import same_layout
from bridge.workers.remote.linked import LinkedSlot, Offers
from bridge.workers.remote.messages import (
    Began,
    BrokenRule,
    Credit,
    Drained,
    Ended,
    Heartbeat,
    Hello,
    Leave,
    Links,
    Message,
    NoLink,
    Pulse,
    Said,
)
from bridge.workers.remote.slot import AnySlot
from bridge.workers.wishes import Wanted
from bridge.workers.worker import Worker

Term = Any
LOOK_S = 0.25  # at jobs that should have ended by now
WAY_S = 2.0  # for a cancel, and the end that answers it, to be on their way
_KILLED = (gen.KILLED, gen.KILL, gen.NOCONNECTION)
SIGKILL = 9


class Road(Protocol):
    """The way to a node: its connection, as far as it matters here."""

    def has_room(self, node: str) -> bool: ...
    async def wait_room(self, node: str) -> None: ...


class Registration(DirectProcess):
    """From a hello that was let in to its end. `gone` is called once, when it is over."""

    def __init__(
        self,
        router: Router,
        hello: Hello,
        *,
        road: Road,
        answer_bytes_max: int,
        settings: Callable[[], RoleConfig],
        stopping: Callable[[], bool],
        gone: Callable[[Registration], None],
        offers: Offers | None = None,
    ) -> None:
        super().__init__(router, module="Ringbridge.RemoteWorker")
        self.hello = hello
        self.node = hello.pid.node.name
        self.credit = hello.credit
        self.answer_bytes_max = answer_bytes_max
        self.ready = True
        self.unwanted: str | None = None  # why its slots are drained, where the settings say so
        self.workers: list[Worker] = []  # by slot
        self._slots: dict[int, AnySlot] = {}
        self._offers = offers
        self._no_link: set[int] = set()  # slots whose links it did not take
        self._road = road
        self._settings = settings  # its role's, of now
        self._stopping = stopping
        self._gone = gone
        self._over = False
        self._log = structlog.get_logger("ringbridge.remote").bind(
            role=hello.role, node=self.node, process=str(hello.pid)
        )
        self.start(())

    # ---- its life

    def open(self, workers: Sequence[Worker], *, hang_ms: int) -> None:
        """Welcome the worker, whose slots these are, and watch it from now on."""
        self.workers = list(workers)
        bounds = {"hang_ms": hang_ms, "answer_bytes_max": self.answer_bytes_max}
        ids = [worker.id for worker in workers]
        self.tell(messages.welcome(self.hello, desk=self.pid, workers=ids, **bounds))
        self._log.info("a remote worker is let in", workers=ids, kit=self.hello.kit)
        self._router.monitor(self.process, self.hello.pid, self._worker_down)

    @property
    def over(self) -> bool:
        return self._over

    @property
    def idempotent(self) -> bool:
        return self._settings().idempotent

    async def watch(self) -> None:
        """Look for jobs that do not heed their cancel, until the end."""
        while not self._over:
            await trio.sleep(LOOK_S)
            try:
                role = self._settings()
                patience_s = (role.cancel_term_ms + role.cancel_kill_ms) / 1000 + WAY_S
                for slot in tuple(self._slots.values()):
                    slot.overdue(trio.current_time(), patience_s)
            except BrokenRule as error:
                self._broke(error)
            except Exception as error:
                self._failed(error)

    def end(
        self, reason: str, why: str, *, again: bool, status: int = -1, has_ended: bool = False
    ) -> None:
        """It is over: tell the worker, and the relay of each slot that lives. May be repeated.

        `status`: the exit status that the relay hears; less than 0: SIGKILL. `has_ended`: the
        process is known to have, so that it begins nothing more.
        """
        if self._over:
            return
        self._over = True
        self.tell(messages.ended(reason, why, again=again))
        self._log.info("a remote worker is let go", reason=reason, why=why)
        for slot in tuple(self._slots.values()):
            slot.die(status, 0 if status >= 0 else SIGKILL, why, has_ended=has_ended)
        self._gone(self)
        if process := self._router.table.find(self.pid):
            self._router.terminate(process, gen.SHUTDOWN)

    def stopped(self, reason: Term) -> None:
        """Its own process has ended: told to by an exit signal, or the node ends."""
        self.end("killed", f"its desk was ended: {brief(reason)}", again=True)

    def stopped_by(self, slot: AnySlot) -> None:
        """A slot's life is to end though the worker lives."""
        worker = self.workers[slot.index]
        why = worker.last_error or "the bridge ends it"
        match worker.fate:
            case "broke":
                reason = "hung" if "no_heartbeat" in why else "broke"
                self.end(reason, why, again=True)
            case "killed":
                self.end("killed", why, again=True)
            case _ if self._stopping():
                self.end("bridge", "the bridge stops", again=True)
            case _:
                self.end("stopped", why, again=True)

    def all_left(self) -> None:
        """All of its slots have ended in order."""
        if self._stopping():
            self.end("bridge", "the bridge stops", again=True, status=0)
        elif self.unwanted is not None:  # it may be wanted again, and asks now and then
            self.end("stopped", self.unwanted, again=True, status=0)
        else:
            self.end("drained", "all of its slots are drained", again=False, status=0)

    def _worker_down(self, reason: Term) -> None:
        words = f"the remote worker {self.hello.pid} on {self.node} ended: {brief(reason)}"
        status = 0 if reason in (gen.NORMAL, gen.SHUTDOWN) else -1 if reason in _KILLED else 1
        # Cut off it may work on, until it notices; it has ended only where its node says so.
        has_ended = reason != gen.NOCONNECTION
        self.end("stopped", words, again=False, status=status, has_ended=has_ended)

    def _broke(self, error: BrokenRule) -> None:
        self._log.warning("a remote worker broke a rule", rule=error.rule, why=str(error))
        for worker in self.workers:
            worker.broke_messages(str(error))
        self.end("broke", str(error), again=True)

    def _failed(self, error: Exception) -> None:
        """A bug of ours, or of its link; it costs this worker, and no other."""
        self._log.error("the bridge failed at a remote worker", why=str(error), exc_info=error)
        self.end("stopped", f"the bridge failed at it: {type(error).__name__}", again=True)

    # ---- links that it has itself

    def may_link(self, index: int) -> bool:
        memory = self.hello.memory
        if self._offers is None or memory is None or index in self._no_link:
            return False
        return same_layout(memory.version, memory.digest) and self._offers.allows(self.node)

    def review_links(self) -> None:
        """Slots that hold their jobs in another way than they would now begin another life: what
        they have is finished, and nothing lost.
        """
        for index, slot in self._slots.items():
            if isinstance(slot, LinkedSlot) and not slot.decided:
                continue
            linked = isinstance(slot, LinkedSlot) and slot.linked
            if linked != self.may_link(index):
                self.workers[index].want(Wanted.RESTART)

    def _link_of(self, said: NoLink | Drained) -> LinkedSlot | None:
        """The slot whose link it speaks of; None: of an earlier life."""
        slot = self._slots.get(said.slot)
        if not isinstance(slot, LinkedSlot) or said.worker > slot.worker_id:
            why = f"a link of slot {said.slot}, worker {said.worker}, that it was never offered"
            raise BrokenRule("remote_bad_message", why)
        return slot if said.worker == slot.worker_id else None

    def _no_link_for(self, said: NoLink) -> None:
        slot = self._link_of(said)
        self._no_link.add(said.slot)
        self._log.info("a remote worker takes no link", slot=said.slot, why=said.why)
        if slot is not None and not slot.declined():
            self.workers[slot.index].want(Wanted.RESTART)
            slot.die(1, 0, f"the remote worker has lost its link: {said.why}")

    # ---- towards the worker

    def tell(self, message: Term) -> None:
        self._router.send(self.pid, self.hello.pid, message)

    def has_room(self) -> bool:
        return self._road.has_room(self.node)

    async def wait_room(self) -> None:
        await self._road.wait_room(self.node)

    def slot_started(self, slot: AnySlot) -> None:
        """A slot begins a life."""
        self._slots[slot.index] = slot

    def slot_failed(self, why: str) -> None:
        """A slot could not begin its life, or go on: a worker has all of its slots or none."""
        self.end("stopped", why, again=True)

    # ---- from the worker

    def handle(self, request: gen.Request) -> None:
        match request:
            case Info(message):
                # Anybody may send to a pid; only its own node speaks for the worker, and only
                # tagged: exit signals and late replies come to any process.
                ours = messages.is_ours(message) and self._router.origin == self.node
                if ours and not self._over:
                    self._hear(message)
            case Call(sender, _):
                self.reply(sender, bad_request("a remote worker's desk takes no calls"))

    def _hear(self, message: Term) -> None:
        try:
            self._take(messages.read(message))
        except BrokenRule as error:
            self._broke(error)
        except Exception as error:
            self._failed(error)

    def _take(self, said: Message) -> None:
        match said:
            case Began(job) | Pulse(job) | Said(job) | Ended(job):
                self._slot_of(job).take(said)
            case Heartbeat(ready):
                self.ready = ready
                for slot in self._slots.values():
                    slot.beat()
            case Credit(credit):
                self.credit = credit
                for slot in tuple(self._slots.values()):
                    slot.turn()
            case NoLink():
                self._no_link_for(said)
            case Drained():
                if (link := self._link_of(said)) is not None:
                    link.die(0, 0, "")
            case Links():
                self._no_link.clear()
                self.review_links()
            case Leave():
                for worker in self.workers:
                    worker.want(Wanted.DRAIN)

    def _slot_of(self, job: int) -> AnySlot:
        for slot in self._slots.values():
            if slot.holds(job):
                return slot
        why = f"job {job} is none that it holds: never given, or ended"
        raise BrokenRule("remote_unknown_job", why)

    # ---- what is shown

    def get_state(self) -> Term:
        return atom_keys(
            {
                "role": Atom(self.hello.role),
                "worker": self.hello.pid,
                "slots": [worker.id for worker in self.workers],
                "credit": self.credit,
                "ready": self.ready,
            }
        )

    def details(self) -> Details:
        return Details(module=self.module)


def answer_bytes_max(slots: int, *, result_bytes: int, upward_bytes_max: int) -> int:
    """The largest answer of one job: what one link holds, and what all slots together may have
    waiting for the interpreter, four times over.
    """
    share = upward_bytes_max // (4 * slots)
    return max(layout.PROGRESS_BYTES_MAX, min(result_bytes, share))
