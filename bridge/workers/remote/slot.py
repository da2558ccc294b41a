"""One slot of a remote worker: the bridge plays the worker's end of an ordinary link for it.

The relay sees a worker like others and decides everything. Requests that it puts into the ring
become messages, as far as the worker's credit goes; what the worker says becomes completions. A
slot lives as its link does; `RemoteDriver` makes the next one when the slot is started again.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from collections import deque
from collections.abc import Awaitable
from typing import Protocol

import structlog
import trio

from bridge.fabric import layout
from bridge.fabric.proxy import NoRoom, Proxy
from bridge.workers.remote import messages
from bridge.workers.remote.messages import Began, BrokenRule, Ended, Hello, Pulse, Said
from bridge.workers.remote.turns import OpenJob, Turns

ROOM_LOOK_S = 0.001  # the relay gives room back without a word
LINK_SLOTS_MAX = 256  # no worker has more credit
_OBITUARY = struct.Struct("<IiII")  # csrc/include/ringbridge/obituary.h
_OBITUARY_MAGIC = 0x424F4252
_LAST_WORDS_BYTES_MAX = 1_024


class AnySlot(Protocol):
    """One life of a slot, whoever has the worker's end of its link."""

    index: int

    def turn(self) -> None: ...
    def beat(self) -> None: ...
    def holds(self, job_id: int) -> bool: ...
    def take(self, said: Began | Pulse | Said | Ended) -> None: ...
    def overdue(self, now_s: float, patience_s: float) -> None: ...
    def die(self, status: int, signal: int, words: str, *, has_ended: bool = False) -> None: ...


class Desk(Protocol):
    """The registration that a slot belongs to."""

    hello: Hello
    credit: int
    answer_bytes_max: int
    ready: bool

    @property
    def idempotent(self) -> bool: ...  # its role, as the settings are now

    def tell(self, message: object) -> None: ...
    def wait_room(self) -> Awaitable[None]: ...
    def has_room(self) -> bool: ...
    def stopped_by(self, slot: AnySlot) -> None: ...
    def slot_started(self, slot: AnySlot) -> None: ...
    def may_link(self, index: int) -> bool: ...  # be offered this slot's link
    def slot_failed(self, why: str) -> None: ...

    @property
    def over(self) -> bool: ...


class Slot:
    """One life of a slot. `run` is its task; `die` ends it, `_finish` is its end when drained."""

    def __init__(self, desk: Desk, index: int, proxy: Proxy, obituary: int, stderr: int) -> None:
        self._desk = desk
        self.index = index
        self.turns = Turns()
        self._proxy = proxy
        self._obituary = obituary
        self._stderr = stderr
        self._late: deque[Ended | Said] = deque()  # for which there was no room
        self._draining = False
        self._scope = trio.CancelScope()
        self.over = trio.Event()

    # ---- its life

    async def run(self) -> None:
        """Carry what the relay has to say to the worker, until the end."""
        try:
            with self._scope:
                while not self.is_dead():
                    await self._desk.wait_room()
                    self._proxy.park()
                    self.turn()
                    if self.is_dead():
                        return
                    if not self._desk.has_room():
                        await trio.lowlevel.checkpoint()
                    elif self._late:
                        await trio.sleep(ROOM_LOOK_S)
                    else:
                        await trio.lowlevel.wait_readable(self._proxy.bell)
                    self._proxy.unpark()
        except Exception as error:  # a bug of ours; it costs this worker, and no other
            structlog.get_logger("ringbridge.remote").exception("the link of a slot failed")
            self._desk.slot_failed(f"its link failed: {error}")
        finally:
            if not self.is_dead():
                self.die(-1, 9, "the bridge has ended")
            self._proxy.close()
            self.over.set()

    def is_dead(self) -> bool:
        return self._obituary < 0

    def die(self, status: int, signal: int, words: str, *, has_ended: bool = False) -> None:
        """Tell the relay that the worker is gone: its exit status, or the signal that ended it, and
        what its callers read as the last words. May be repeated.

        `has_ended`: it begins nothing more. Without, it may begin what it was given until it hears
        of its end, while the relay gives to others what was not begun: so all of it counts as
        begun, unless the role may run a job twice.
        """
        if self.is_dead():
            return
        self._late_last()
        if not has_ended and not self._desk.idempotent:
            for job in self.turns:
                if not job.started:
                    job.started = True
                    self._proxy.start()
        write_end(self._obituary, self._stderr, status, signal, words)
        self._obituary = -1
        self._scope.cancel()

    def _late_last(self) -> None:
        """What had come in before its end counts, where there is room for it."""
        with contextlib.suppress(NoRoom, OSError):
            self._answer_late()

    # ---- towards the worker

    def turn(self) -> None:
        """Do what can be done at once."""
        if self.is_dead() or self._desk.over:
            return
        with contextlib.suppress(NoRoom):
            self._answer_late()
        self._tell_news()
        while len(self.turns) < self._desk.credit and self._desk.has_room():
            request = self._proxy.take()
            if request is None:
                break
            has_parts = bool(request.flags & layout.FLAG_PARTS)
            parts = self._proxy.demand(request.position, 0) if has_parts else None
            self.turns.give(
                OpenJob(
                    request.job,
                    request.position,
                    has_parts,
                    bool(request.flags & layout.FLAG_PROGRESS),
                    parts_told=parts or 0,
                )
            )
            now_ns = time.monotonic_ns()
            self._desk.tell(messages.job(self.index, request, now_ns=now_ns, parts=parts))
        if not self._draining and self._proxy.is_draining():
            self._draining = True
            self._desk.tell(messages.message("drain", slots=[self.index]))
        if self._draining and not self.turns and not self._late and self._proxy.is_empty():
            self.die(0, 0, "")

    def _tell_news(self) -> None:
        """Cancels and demands that the worker has not heard of."""
        for job in self.turns:
            if not job.cancel_told and self._proxy.is_cancelled(job.position, job.id):
                job.cancel_told = True
                self._desk.tell(messages.message("cancel", job=job.id))
            if job.has_parts:
                parts = job.parts_sent + self._proxy.demand(job.position, job.parts_sent)
                if parts > job.parts_told:
                    job.parts_told = parts
                    self._desk.tell(messages.message("demand", job=job.id, parts=parts))

    # ---- from the worker

    def holds(self, job_id: int) -> bool:
        return any(job.id == job_id for job in self.turns)

    def take(self, said: Began | Pulse | Said | Ended) -> None:
        """What the worker says of one of this slot's jobs. Raises BrokenRule."""
        if self.is_dead():
            return
        match said:
            case Began(job_id):
                self.turns.begin(job_id)
                self._proxy.start()
            case Pulse(job_id):
                self.turns.pulse(job_id)
                self._proxy.pulse()
            case Said(job_id, status, payload):
                if self.turns.say(job_id, status, len(payload.data)) is not None:
                    self._late.append(said)
                self._proxy.pulse()
            case Ended(job_id, status, payload):
                size_max = self._desk.answer_bytes_max
                job = self.turns.end(job_id, status, len(payload.data), size_max)
                if not job.started:
                    self._proxy.start()
                self._late.append(said)
        self.turn()

    def overdue(self, now_s: float, patience_s: float) -> None:
        """Raises BrokenRule where a job was told to stop and goes on past all patience. While its
        way has no room, the cancel itself may wait behind a payload: that time does not count.
        """
        if not self._desk.has_room():
            self.turns.be_patient()
        elif (job := self.turns.overdue(now_s, patience_s)) is not None:
            why = f"job {job.id} was cancelled {patience_s:g} s ago and has not ended"
            raise BrokenRule("remote_cancel_ignored", why)

    def beat(self) -> None:
        if not self.is_dead():
            self._proxy.beat(ready=self._desk.ready)

    def _answer_late(self) -> None:
        """Raises NoRoom, with the rest kept."""
        while self._late:
            said = self._late[0]
            code, run_ns = (said.code, said.run_ns) if isinstance(said, Ended) else (0, 0)
            payload = said.payload
            try:
                self._proxy.answer(
                    said.job,
                    said.status,
                    payload.data,
                    is_term=payload.is_term,
                    code=code,
                    run_ns=run_ns,
                )
            except NoRoom:
                if said.status != layout.STATUS_PROGRESS:  # that never waits
                    raise
            self._late.popleft()


def write_end(obituary: int, stderr: int, status: int, signal: int, words: str) -> None:
    """Tell the relay that a worker is gone, and close both."""
    with contextlib.suppress(OSError):  # a pipe that nobody reads any more
        os.write(stderr, words.encode()[:_LAST_WORDS_BYTES_MAX])
    os.close(stderr)
    with contextlib.suppress(OSError):
        os.write(obituary, _OBITUARY.pack(_OBITUARY_MAGIC, status, signal, 0))
    os.close(obituary)
