"""A bridge's side of the messages, as a rule uses it: it is greeted, gives jobs, and checks.

What a worker says is held to the bridge's own rules (bridge/workers/remote), whatever a rule is
about; a breach is `Broke`, with what was seen.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import trio

from bridge.etf import Atom
from bridge.fabric import layout
from bridge.node import Node
from bridge.node.process.handle import ProcessHandle
from bridge.workers.remote import messages
from bridge.workers.remote.messages import Began, BrokenRule, Ended, Heartbeat, Hello, Said
from bridge.workers.remote.turns import OpenJob, Turns
from workers.conformance.jobs import CODE_UNKNOWN_OPCODE, STATUS_NAMES, Broke, NotOffered, brief

ROLE = "conformance"
HEARTBEAT_MS = 100  # what the worker is told: a battery that waits for seconds is not tried
ANSWER_BYTES_MAX = 1 << 20
NAMES = ("Elixir.Ringbridge.RemoteWorkers", "remote_workers")


@dataclass
class Conversation:
    """One registration, from its welcome to its end."""

    node: Node
    hello: Hello
    desk: ProcessHandle
    patience_s: float
    slots: dict[int, Turns] = field(default_factory=dict)
    beats_s: list[float] = field(default_factory=list)
    ready: bool = True
    _last: int = 0

    def tell(self, kind: str, **said: Any) -> None:
        self.desk.send(self.hello.pid, messages.message(kind, **said))

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
        """A job for a slot; returns its number."""
        self._last += 7
        job = OpenJob(self._last, 0, parts is not None, progress, parts_told=parts or 0)
        self.slots.setdefault(slot, Turns()).give(job)
        said = messages.message(
            "job",
            job=job.id,
            slot=slot,
            opcode=opcode,
            deadline_ms=deadline_ms,
            priority=2,
            trace=trace,
            parts=parts,
            progress=progress,
        )
        given = (messages.TERM, b"\x83" + payload) if is_term else (messages.RAW, payload)
        self.desk.send(self.hello.pid, (*said, given))
        return job.id

    def demand(self, job: int, parts: int) -> None:
        _, entry = self._find(job)
        entry.parts_told = parts
        self.tell("demand", job=job, parts=parts)

    def _find(self, job: int) -> tuple[Turns, OpenJob]:
        for turns in self.slots.values():
            for entry in turns:
                if entry.id == job:
                    return turns, entry
        raise Broke(f"it speaks of job {job}, which it does not hold")

    async def next(self, timeout_s: float | None = None) -> messages.Message | None:
        """What it says next, checked; heartbeats are noted. None: nothing in this time."""
        limit = self.patience_s if timeout_s is None else timeout_s
        with trio.move_on_after(limit):
            while True:
                said = self._checked(await self.desk.receive())
                if not isinstance(said, Heartbeat):
                    return said
                self.beats_s.append(trio.current_time())
                self.ready = said.ready
        return None

    def _checked(self, message: Any) -> messages.Message:
        try:
            said = messages.read(message)
            match said:
                case Began(job):
                    self._find(job)[0].begin(job)
                case Said(job, status, payload):
                    self._find(job)[0].say(job, status, len(payload.data))
                case Ended(job, status, payload):
                    self._find(job)[0].end(job, status, len(payload.data), ANSWER_BYTES_MAX)
        except BrokenRule as error:
            raise Broke(str(error)) from error
        return said

    async def said(self) -> messages.Message:
        """The same, but for beats there has to be something."""
        said = await self.next()
        if said is None:
            raise Broke("nothing came in time")
        return said

    async def began(self, job: int) -> None:
        """The next word has to be that this job's handler is entered."""
        said = await self.said()
        if said != Began(job):
            raise Broke(f"job {job} was to be begun, and it said {said}")

    async def ended(
        self,
        job: int,
        status: int = layout.STATUS_OK,
        payload: bytes | None = None,
        *,
        code: int | None = None,
        is_term: bool = False,
    ) -> Ended:
        """The next word has to be this end of the job."""
        said = await self.said()
        if not isinstance(said, Ended) or said.job != job:
            raise Broke(f"the end of job {job} was to come, and it said {said}")
        if status != layout.STATUS_FAILED and said.code == CODE_UNKNOWN_OPCODE:
            raise NotOffered(said.payload.data.decode(errors="replace"))
        data = said.payload.data
        fits = said.status == status and (payload is None or data == payload)
        if not fits or (code is not None and said.code != code) or said.payload.is_term != is_term:
            seen = f"{STATUS_NAMES[said.status]} with code {said.code} and {brief(data)}"
            raise Broke(f"job {job} was to end {STATUS_NAMES[status]}, and it was {seen}")
        return said

    async def run(self, opcode: int, payload: bytes = b"", **how: Any) -> Ended:
        """One job, from its begin to an end that is OK; `expect` and `as_term` are of its end."""
        expect, as_term = how.pop("expect", None), how.pop("as_term", False)
        job = self.give(opcode, payload, **how)
        await self.began(job)
        return await self.ended(job, payload=expect, is_term=as_term)

    async def silence(self, seconds: float = 0.1) -> None:
        """Nothing but heartbeats may come now."""
        if (said := await self.next(seconds)) is not None:
            raise Broke(f"it said what nobody asked for: {said}")

    def end(self, reason: str = "stopped", *, again: bool = True) -> None:
        """It is over: the worker is told, and the desk ends."""
        self.desk.send(self.hello.pid, messages.ended(reason, "the battery ends it", again=again))
        self.drop()

    def drop(self) -> None:
        """The desk ends without a word, as when a bridge dies."""
        self.node.exit(self.desk.pid, Atom("kill"))


class Stage:
    """The node that plays the bridge, and the worker under test, which lives for many rules."""

    def __init__(self, node: Node, argv: Sequence[str], cookie: str, patience_s: float) -> None:
        self.node = node
        self.patience_s = patience_s
        self._argv = list(argv)
        self._cookie = cookie
        self.role = ROLE
        self._process: subprocess.Popen[bytes] | None = None
        self._service: ProcessHandle | None = None
        self.conversations: list[Conversation] = []
        self._kept: list[Any] = []  # hellos that were put back
        self._unanswered: Any = None

    async def open(self) -> None:
        """Have the names that a worker greets."""
        self._service = await self._handle_of()
        for name in NAMES:
            self.node.register(name, self._service.pid)

    async def _handle_of(self) -> ProcessHandle:
        got: list[ProcessHandle] = []
        there = trio.Event()

        async def live(me: ProcessHandle) -> None:
            got.append(me)
            there.set()
            await trio.sleep_forever()

        await self.node.spawn(live)
        await there.wait()
        return got[0]

    # ---- the worker as a process

    def process(self) -> subprocess.Popen[bytes]:
        """The worker's; it is started where there is none."""
        if self._process is None or self._process.poll() is not None:
            environment = {
                **os.environ,
                "RINGBRIDGE_CONFORMANCE_BRIDGE": self.node.name,
                "RINGBRIDGE_CONFORMANCE_COOKIE": self._cookie,
                "RINGBRIDGE_ROLE": self.role,
            }
            self._process = subprocess.Popen(
                self._argv,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        return self._process

    def signal(self, number: int) -> None:
        process = self.process()
        os.killpg(process.pid, number)

    async def gone(self) -> None:
        """Until the process has ended. Raises Broke."""
        with trio.move_on_after(self.patience_s):
            while self.process_lives():  # noqa: ASYNC110  # nobody tells of it
                await trio.sleep(0.01)
        if self.process_lives():
            raise Broke("its process goes on")

    def process_lives(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        if self._process is not None:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    # ---- greetings

    async def hello(self, timeout_s: float | None = None) -> Any:
        """The next hello, as it came. Raises Broke when none comes."""
        if self._kept:
            return self._kept.pop()
        self.process()
        assert self._service is not None
        limit = self.patience_s if timeout_s is None else timeout_s
        try:
            self._unanswered = await self._service.receive(timeout=limit)
            return self._unanswered
        except trio.TooSlowError:
            raise Broke("no hello came" + ("" if self.process_lives() else "; it ended")) from None

    def put_back(self, message: Any) -> None:
        """It is the next hello."""
        self._kept.append(message)

    async def no_hello(self, seconds: float = 0.5) -> None:
        assert self._service is not None
        try:
            message = await self._service.receive(timeout=seconds)
        except trio.TooSlowError:
            return
        raise Broke(f"a hello came that may not come: {message}")

    def refuse(self, message: Any, reason: str, *, again: bool) -> None:
        whom = messages.answerable(message)
        if whom is None:
            raise Broke("its hello has no pid and ref to be answered")
        self._unanswered = None
        refusal = messages.Refusal(reason, "the battery refuses it", again=again)
        assert self._service is not None
        self._service.send(whom[0], messages.refused(whom[1], refusal))

    async def greeted(
        self, message: Any = None, *, heartbeat_ms: int = HEARTBEAT_MS
    ) -> Conversation:
        """A worker that has said hello and is welcome."""
        message = message if message is not None else await self.hello()
        try:
            hello = messages.read_hello(message)
        except messages.Refusal as refusal:
            raise Broke(str(refusal)) from refusal
        self._unanswered = None
        talk = Conversation(self.node, hello, await self._handle_of(), self.patience_s)
        self.conversations.append(talk)
        said = messages.message(
            "welcome",
            version=messages.VERSION,
            ref=hello.ref,
            desk=talk.desk.pid,
            workers=list(range(1, hello.slots + 1)),
            heartbeat_ms=heartbeat_ms,
            hang_ms=20 * heartbeat_ms,
            answer_bytes_max=ANSWER_BYTES_MAX,
            part_bytes_max=layout.PART_BYTES_MAX,
            progress_bytes_max=layout.PROGRESS_BYTES_MAX,
            features=[],
        )
        talk.desk.send(hello.pid, said)
        return talk

    async def tidy(self) -> None:
        """After a rule: nothing of it is left, and a worker that lives says hello again."""
        assert self._service is not None
        greetings = [*self._kept, *([self._unanswered] if self._unanswered else [])]
        self._kept.clear()
        while True:
            try:
                greetings.append(await self._service.receive(timeout=0))
            except trio.TooSlowError:
                break
        for message in greetings:
            if messages.answerable(message) is not None:
                self.refuse(message, "full", again=True)
        for talk in self.conversations:
            talk.end()
        self.conversations.clear()
