"""The checkpoints of one life of a worker: asked for, saved, given; by the clock, by the count of
jobs, before it leaves, or because somebody wants one.

A worker hears of none of this before it has asked for its state (`listens`). Each question of the
bridge's waits for one answer, which is a save or a reply.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import structlog
import trio

from bridge.config import CheckpointSettings
from bridge.etf import Atom, brief
from bridge.fabric import layout
from bridge.workers.channel import packets
from bridge.workers.channel.packets import Code, Coming, Kind, NotHad, Outgoing, Save
from bridge.workers.checkpoints.keeper import Keeper, parts_of
from bridge.workers.checkpoints.store import Part, Place

COUNT_LOOK_S = 0.25  # between two looks at how many jobs a worker has done
SAVES_MAX = 2  # of one worker at a time
REASON_BYTES_MAX = 256


@dataclass(slots=True)
class Asked:
    """A question of the bridge's that is open. `kind`: of the checkpoint that was asked for; None:
    a state was given.
    """

    kind: Kind | None
    leaving: bool = False
    answered: trio.Event = field(default_factory=trio.Event)
    error: NotHad | None = None
    saved: tuple[Kind, int] | None = None  # what it was, and its bytes

    def end(self, error: NotHad | None = None) -> None:
        self.error = error
        self.answered.set()


@dataclass(slots=True, frozen=True)
class Admitted:
    """A save that has come. `asked`: whose answer it is; `taken`: the states that its worker had
    taken over before it.
    """

    asked: Asked | None
    taken: int


class States:
    """One life's. `settings`: of its role, as they are now; `send` gives the worker a packet;
    `done`: how many jobs it has answered.
    """

    def __init__(
        self,
        keeper: Keeper,
        place: Place,
        settings: Callable[[], CheckpointSettings],
        *,
        send: Callable[[Outgoing], None],
        done: Callable[[], int] = lambda: 0,
    ) -> None:
        self.place = place
        self.listens = False
        self._keeper = keeper
        self._settings = settings
        self._send = send
        self._done = done
        self._ids = itertools.count(layout.PACKET_ID_BRIDGE | 1)
        self._asked: dict[int, Asked] = {}
        self._based = False  # this life's state is the stored one, or went there as a whole
        self._saves = 0
        self._taken = 0  # states of others that the worker has taken over
        self._moves = False  # it has taken one that the store does not have as its own yet
        self._missed = False  # and has saved since: an increment would stand on what is not there
        self._order = trio.Lock()  # checkpoints are stored in the order in which they came
        self._over = False
        self._log = structlog.get_logger("ringbridge.worker").bind(
            role=place.role, place=place.index
        )

    # ---- what the worker does

    async def load(self) -> bytes:
        """The state for a worker that asks for its latest. Raises NotHad."""
        self.listens = True
        if not self._settings().keep:
            raise NotHad(Code.UNAVAILABLE, "its role keeps no checkpoints")
        try:
            state = await self._keeper.load(self.place)
        except NotHad as why:
            detail = why.detail if isinstance(why.detail, str) else brief(why.reason())
            self._log.error("state not loaded", why=detail)
            raise
        self._based = bool(state)
        return packets.state_bytes(parts_of(state))

    def admit_save(self, id_: int) -> Admitted:
        """One more save has come. `save` has to follow. Raises BrokenRule for an answer to what was
        not asked, NotHad where too many are under way.
        """
        asked = None
        if id_ & layout.PACKET_ID_BRIDGE:
            asked = self._asked.get(id_)
            if asked is None or asked.kind is None:
                raise packets.BrokenRule("a checkpoint in answer to what was not asked")
            del self._asked[id_]
        elif self._saves >= SAVES_MAX:
            raise NotHad(Code.BUSY)
        self._saves += 1
        return Admitted(asked, self._taken)

    def not_saved(self, id_: int, error: NotHad) -> None:
        """A save that was not even looked at. Raises BrokenRule, as `admit_save`."""
        with suppress(NotHad):
            asked = self.admit_save(id_).asked
            self._saves -= 1
            if asked is not None:
                asked.end(error)
        self._note(error)

    async def save(self, admitted: Admitted, save: Save) -> None:
        """A checkpoint of the worker's. Raises NotHad where it is not kept; of one that the bridge
        asked for, whoever asked hears it.
        """
        asked = admitted.asked
        error: NotHad | None = NotHad(Code.UNAVAILABLE, "the bridge stops")
        try:
            if asked is not None and asked.kind is Kind.FULL is not save.kind:
                raise NotHad(Code.FULL_WANTED)
            async with self._order:
                await self._keep(save, admitted.taken)
            error = None
        except NotHad as why:
            error = why
            self._note(why)
            raise
        finally:
            self._saves -= 1
            if asked is not None:
                asked.saved = (save.kind, len(save.state))
                asked.end(error)

    @property
    def saving(self) -> bool:
        """Is a checkpoint under way to the store?"""
        return self._saves > 0

    def replied(self, id_: int, reply: packets.Reply) -> None:
        """The worker's reply to a question. Raises BrokenRule."""
        asked = self._asked.get(id_)
        if asked is None or (asked.kind is not None and reply.error is None):
            raise packets.BrokenRule("a reply to what was not asked")
        del self._asked[id_]
        if asked.kind is None and reply.error is None:
            self._taken += 1
            self._moves, self._missed = True, False
        asked.end(None if reply.error is None else NotHad(Code.UNAVAILABLE, _words(reply.error)))

    def over(self) -> None:
        """The worker has ended: nothing that is open is answered any more."""
        self._over = True
        for asked in self._asked.values():
            asked.end(NotHad(Code.DOWN, "the worker has ended"))
        self._asked.clear()

    def _note(self, error: NotHad) -> None:
        """A checkpoint is missing: no increment can go behind what is there."""
        self._based = False
        self._missed = True
        self._log.warning("checkpoint not kept", why=brief(error.reason()))

    async def _keep(self, save: Save, taken: int) -> None:
        settings = self._settings()
        if not settings.keep:
            raise NotHad(Code.UNAVAILABLE, "its role keeps no checkpoints")
        if taken != self._taken or self._moves:
            # Of the state that it has given up, which must not take the place of the other; or of
            # the other, which is about to be put in the place of this.
            raise NotHad(Code.FULL_WANTED)
        if save.kind is Kind.INCREMENTAL and not self._based:
            raise NotHad(Code.FULL_WANTED)
        await self._keeper.save(self.place, save.kind, save.state, settings)
        self._based = True

    # ---- what the bridge asks

    async def checkpoint(self, kind: Kind | None = None) -> tuple[Kind, int]:
        """Have the worker save, and wait until that is kept: what it was, and its bytes. `kind`
        None: as the role's settings say. Raises NotHad.
        """
        asked = self._ask_to_save(kind or self._next_kind(), leaving=False)
        return await self._answer(asked)

    def save_before_leaving(self, kind: Kind | None = None) -> Asked | None:
        """Tell a worker that is about to be drained to save behind its last job. None: it does not
        listen, or it was told so already.
        """
        if not self.listens or any(asked.leaving for asked in self._asked.values()):
            return None
        return self._ask_to_save(kind or self._next_kind(), leaving=True)

    async def restore(self, state: list[Part]) -> None:
        """Give the worker a state, and wait until it has taken it. Raises NotHad."""
        self._check_listens()
        id_ = next(self._ids)
        asked = self._asked[id_] = Asked(kind=None)
        self._send(packets.restore(id_, parts_of(state)))
        await self._answer(asked)

    async def trouble(self, hook: str, value: int, jobs: int) -> None:
        """Switch a hook on in the worker, and wait until it is. Raises NotHad."""
        if self._over:
            raise NotHad(Code.DOWN, "the worker has ended")
        id_ = next(self._ids)
        asked = self._asked[id_] = Asked(kind=None)
        self._send(packets.trouble(id_, hook, value, jobs))
        await self._answer(asked)

    def announce(self, coming: Coming) -> None:
        """Tell the worker of a state that comes, or does not. Raises NotHad."""
        if coming is Coming.ABANDONED and self._moves:
            self._moves = self._based = False
        self._check_listens()
        self._send(packets.announce(coming))

    def based(self) -> None:
        """What the worker was given is what its place has in the store. No increment can go behind
        it if the worker has saved meanwhile: that was not kept.
        """
        self._moves = False
        self._based = not self._missed

    async def keep_schedule(self) -> None:
        """Ask for checkpoints as the role's settings say, for ever."""
        saved_s, saved_jobs = trio.current_time(), 0
        while True:
            settings = self._settings()
            every_s, every_jobs = settings.every_ms / 1000, settings.every_jobs
            due_s = saved_s + every_s if every_s else float("inf")
            look_s = COUNT_LOOK_S if every_jobs else 1.0
            await trio.sleep(max(0.0, min(due_s - trio.current_time(), look_s)))
            jobs = self._done() if every_jobs else 0
            by_count = every_jobs and jobs - saved_jobs >= every_jobs
            if not (by_count or trio.current_time() >= due_s):
                continue
            saved_s, saved_jobs = trio.current_time(), jobs
            if not (self.listens and settings.keep):
                continue
            try:
                await self.checkpoint()
            except NotHad as error:
                self._log.warning("no checkpoint", why=brief(error.reason()))

    def _next_kind(self) -> Kind:
        return Kind.INCREMENTAL if self._settings().incremental and self._based else Kind.FULL

    def _ask_to_save(self, kind: Kind, *, leaving: bool) -> Asked:
        self._check_listens()
        open_ones = [asked for asked in self._asked.values() if asked.kind is not None]
        if any(asked.leaving == leaving for asked in open_ones):
            raise NotHad(Code.BUSY)
        id_ = next(self._ids)
        asked = self._asked[id_] = Asked(kind, leaving)
        self._send(packets.checkpoint_now(id_, kind, leaving=leaving))
        return asked

    async def _answer(self, asked: Asked) -> tuple[Kind, int]:
        """Wait for the answer, as long as the role allows; a late one is heard, and kept."""
        with trio.move_on_after(self._settings().save_ms / 1000):
            await asked.answered.wait()
        if not asked.answered.is_set():
            raise NotHad(Code.TIMEOUT)
        if asked.error is not None:
            raise asked.error
        return asked.saved or (Kind.FULL, 0)

    def _check_listens(self) -> None:
        if self._over or not self.listens:
            raise NotHad(Code.UNAVAILABLE, "the worker keeps no state, or has ended")


def _words(reason: object) -> str:
    """What a worker says for a reason, as a text of bounded length. It goes to whoever asked, so no
    term of a worker's may: its atoms and pids would be in the cluster past its role's policy.
    """
    match reason:
        case (Atom(), bytes() as text):
            return text[:REASON_BYTES_MAX].decode("utf-8", "replace")
    return brief(reason)
