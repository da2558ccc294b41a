"""The bridge's side of one link with one worker: submits, collects, gives back, and checks.

Whatever a rule is about, each completion is held to what the relay demands of it (`_check`); a
breach is `Broke`, with what was seen.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from bridge.fabric import layout
from workers.conformance.gate import Gate
from workers.conformance.jobs import (
    CANCELLED,
    CODE_UNKNOWN_OPCODE,
    FAILED,
    FINAL,
    OK,
    PART,
    PROGRESS,
    STATUS_NAMES,
    Answer,
    Broke,
    Completion,
    Job,
    NotOffered,
    brief,
    envelope_crc,
    status_name,
)
from workers.conformance.link import Link, LinkPlan, pack, unpack
from workers.conformance.memory import Word
from workers.conformance.process import Worker, environment_of
from workers.conformance.region import Region, RegionError


def now_ns() -> int:
    return time.monotonic_ns()


class Peer:
    """One worker on one link. `patience_s`: how long to wait for what has to come."""

    def __init__(
        self,
        argv: Sequence[str],
        plan: LinkPlan,
        patience_s: float,
        *,
        environment: dict[str, str] | None = None,
        without_futex: bool = False,
        begin: Callable[[Link], Worker] | None = None,
    ) -> None:
        """`begin`: how the link comes to its worker, where that is not started on it."""
        self.plan = plan
        self.patience_s = patience_s
        self.link = link = Link(plan)
        try:
            self.process = (
                begin(link)
                if begin is not None
                else Worker.start(
                    argv,
                    link.inherited,
                    environment or environment_of(plan.worker_id, plan.role),
                    without_futex=without_futex,
                )
            )
        except BaseException:
            link.close()
            raise
        link.handed_over()
        self.gate = Gate(link, self.process)
        ours, theirs = layout.RELAY_POSITIONS, layout.WORKER_POSITIONS

        def our(name: str, bits: int = 64) -> Word:
            return link.relay.word(layout.AT_POSITIONS + ours.at(name), bits)

        def their(name: str, bits: int = 64) -> Word:
            return link.worker.word(layout.AT_POSITIONS + theirs.at(name), bits)

        self.request_tail = our("request_tail")
        self.completion_head = our("completion_head")
        self.giveback_tail = our("giveback_tail")
        self.control_word = our("control", 32)
        self.request_head = their("request_head")
        self.started = their("started")
        self.completion_tail = their("completion_tail")
        self.giveback_head = their("giveback_head")
        self.pulse = their("pulse")
        # Our truth about our positions; what is in shared memory is for the worker.
        self.put_count = 0
        self.taken_count = 0
        self.given_count = 0
        self.ended_count = 0  # jobs whose final completion was taken
        self._seen_tail = 0
        self._next_job = secrets.randbits(40) | 1 << 40
        self.jobs: deque[Job] = deque()
        self._inbox: deque[Answer] = deque()
        self.pool = Region(plan.pool_bytes, plan.pool_block_bytes)
        self.results = Region(plan.result_bytes, plan.result_block_bytes)

    def close(self) -> None:
        self.process.close()
        self.link.close()

    # --- the hello -------------------------------------------------------------------------------

    def hello(self) -> dict[str, int | bytes]:
        """The worker's header as it stands."""
        return unpack(layout.WORKER_HEADER, self.link.worker.read(0, layout.WORKER_HEADER.size))

    def greet(self) -> dict[str, int | bytes]:
        """Waits for the hello, and for it to be READY."""
        word = self.link.worker.word(layout.WORKER_HEADER.at("hello"), 32)
        state = self.gate.wait(word.load, self.patience_s)
        if state != layout.HELLO_READY:
            raise Broke(
                f"the hello is {state or 0} and not {layout.HELLO_READY} (ready){self.last_words()}"
            )
        return self.hello()

    def last_words(self) -> str:
        """How it ended and what it said on stderr, to be put behind a message."""
        status = self.process.wait(0)
        ended = "" if status is None else f"; it ended with {status_name(status)}"
        said = self.process.stderr.strip()
        return ended + (f"; stderr: {said[-400:]}" if said else "")

    # --- requests --------------------------------------------------------------------------------

    def put(
        self,
        opcode: int,
        payload: bytes = b"",
        *,
        flags: int = 0,
        deadline_ns: int = 0,
        demand: int = 0,
        trace: tuple[bytes, bytes, int] = (b"", b"", 0),
        spoil: dict[str, int | bytes] | None = None,
    ) -> int:
        """Write a request into the ring without publishing it. Returns its job's id.

        `spoil`: fields that are put in behind the CRC.
        """
        self._await_request_slot()
        position = self.put_count
        slot = position & self.plan.slots - 1
        self._next_job += 7  # ids are the bridge's own business: neither small nor dense
        extent = None
        fields: dict[str, int | bytes] = {
            "job": self._next_job,
            "opcode": opcode,
            "flags": flags,
            "deadline_ns": deadline_ns,
            "payload_bytes": len(payload),
            "priority": 2,
            "trace_id": trace[0],
            "span_id": trace[1],
            "trace_flags": trace[2],
        }
        if len(payload) <= layout.INLINE_BYTES_MAX:
            fields["flags"] = flags | layout.FLAG_INLINE
            fields["body"] = payload
        else:
            first = self.pool.take(len(payload))
            assert first is not None, "the plan's pool is too small"
            assert self.link.pool is not None
            extent = (first, self.pool.blocks_for(len(payload)))
            fields["payload_at"] = first * self.plan.pool_block_bytes
            self.link.pool.write(first * self.plan.pool_block_bytes, payload)
        fields["crc"] = envelope_crc(pack(layout.REQUEST, fields), payload, self.plan.features)
        fields |= spoil or {}
        self.link.relay.write(
            self.link.parts.requests_at + slot * layout.REQUEST.size, pack(layout.REQUEST, fields)
        )
        self.put_count += 1
        self.jobs.append(Job(self._next_job, position, flags, extent, deadline_ns))
        if demand:
            self.demand(self._next_job, demand, ring=False)
        return self._next_job

    def publish(self) -> int:
        """One store for all that was put; rings. Returns the way in which the worker was woken."""
        self.request_tail.store(self.put_count)  # R0
        return self.gate.ring()

    def submit(self, opcode: int, payload: bytes = b"", **how: Any) -> int:
        """Put and publish one."""
        job = self.put(opcode, payload, **how)
        self.publish()
        return job

    def _await_request_slot(self) -> None:
        """A worker releases slots a moment after it has published their answers."""
        until = time.monotonic() + self.patience_s
        while True:
            head = self.request_head.load()  # R3
            if head > self.put_count:
                raise Broke(f"request_head is {head}, and {self.put_count} were ever published")
            if self.put_count - head < self.plan.slots:
                return
            if time.monotonic() > until or self.process.has_ended():
                raise Broke(
                    f"no request slot is released: request_head {head}, published "
                    f"{self.put_count}, answered {self.ended_count}{self.last_words()}"
                )
            time.sleep(0.0002)

    def find(self, job: int) -> Job:
        return next(entry for entry in self.jobs if entry.id == job)

    def cancel(self, job: int, *, ring: bool = True) -> None:
        """C0: the slot's cancel word is the id of the job to stop."""
        self.cancel_slot(self.find(job).position, job)
        if ring:
            self.gate.ring()

    def cancel_slot(self, position: int, job: int) -> None:
        slot = position & self.plan.slots - 1
        self.link.relay.word(self.link.parts.cancels_at + slot * 8).store(job)

    def demand(self, job: int, parts: int, *, ring: bool = True) -> None:
        """D0: so many parts may be sent, from the job's beginning on."""
        entry = self.find(job)
        slot = entry.position & self.plan.slots - 1
        entry.parts_allowed = parts
        word = self.link.relay.word(self.link.parts.demands_at + slot * layout.DEMAND.size)
        word.store((entry.position & 0xFFFFFFFF) << 32 | parts)
        if ring:
            self.gate.ring()

    def control(self, word: int) -> None:
        self.control_word.store(word)
        self.gate.ring()

    # --- answers ---------------------------------------------------------------------------------

    def drain(self) -> bool:
        """Takes and checks every completion that is published. True when the inbox has any."""
        released = self.request_head.load()  # before the tail: its answers are then in the ring
        tail = self.completion_tail.load()  # R1
        if tail < self._seen_tail or tail - self.taken_count > self.plan.slots:
            raise Broke(
                f"completion_tail is {tail}, after {self._seen_tail}; {self.taken_count} were "
                f"taken out of a ring of {self.plan.slots}"
            )
        self._seen_tail = tail
        if tail == self.taken_count:
            return bool(self._inbox)
        started = self.started.load()
        while self.taken_count < tail:
            slot = self.taken_count & self.plan.slots - 1
            at = self.link.parts.completions_at + slot * layout.COMPLETION.size
            raw = self.link.worker.read(at, layout.COMPLETION.size)
            self._inbox.append(self._check(raw, started))
            self.taken_count += 1
        self.completion_head.store(self.taken_count)  # R2
        if released > self.ended_count:
            raise Broke(
                f"{released} request slots were released when {self.ended_count} jobs were answered"
            )
        return True

    def take(self, timeout_s: float | None = None, way: int = layout.PARK_EVENTFD) -> Answer:
        """The next completion. Raises Broke when none comes in time."""
        answer = self.poll(self.patience_s if timeout_s is None else timeout_s, way)
        if answer is None:
            raise Broke(f"no answer came, {len(self.jobs)} jobs are open{self.last_words()}")
        return answer

    def poll(self, timeout_s: float, way: int = layout.PARK_EVENTFD) -> Answer | None:
        """The next completion, or None when none comes within this time."""
        if not self._inbox and not self.gate.wait(self.drain, timeout_s, way):
            return None
        return self._inbox.popleft()

    def silence(self, seconds: float = 0.06) -> None:
        """Nothing may come now."""
        answer = self.poll(seconds)
        if answer is not None:
            raise Broke(f"a completion came that nobody asked for: {answer}")

    def give_back(self, answer: Answer, *, ring: bool = True) -> None:
        """Returns the answer's result blocks to the worker."""
        if answer.extent is None:
            return
        self.results.give(*answer.extent)
        self.put_giveback(*answer.extent)
        self.giveback_tail.store(self.given_count)
        if ring:
            self.gate.ring()

    def put_giveback(self, first: int, count: int) -> None:
        """Writes one extent into the ring, which has a slot for each block and so is never full."""
        at = self.link.parts.givebacks_at + (self.given_count & self.link.blocks - 1) * 8
        self.link.relay.write(at, pack(layout.GIVEBACK, {"first": first, "count": count}))
        self.given_count += 1

    def expect(
        self,
        job: int,
        status: int = OK,
        payload: bytes | None = None,
        *,
        code: int | None = None,
        term: bool = False,
        timeout_s: float | None = None,
        keep: bool = False,
    ) -> Answer:
        """The next completion has to be this. What it took of the region is given back."""
        answer = self.take(timeout_s)
        if answer.job != job:
            raise Broke(f"a completion for job {answer.job} came where {job} was to be answered")
        if status != FAILED and answer.status == FAILED and answer.code == CODE_UNKNOWN_OPCODE:
            raise NotOffered(answer.payload.decode(errors="replace"))
        right = answer.status == status and (payload is None or answer.payload == payload)
        if not right or (code is not None and answer.code != code) or answer.is_term != term:
            wanted = STATUS_NAMES[status] + (f" with code {code}" if code is not None else "")
            wanted += "" if payload is None else f" and {brief(payload)}"
            told = [wanted + (" as a term" if term else ""), f"{answer}"]
            raise Broke(f"expected {told[0]}, got {told[1]}{' as a term' * answer.is_term}")
        if not keep:
            self.give_back(answer)
        return answer

    def expect_any(self, job: int) -> Answer:
        """The next completion has to be this job's."""
        answer = self.take()
        if answer.job != job:
            raise Broke(f"a completion for job {answer.job} came where {job} was to be answered")
        self.give_back(answer)
        return answer

    def _check(self, raw: bytes, started: int) -> Answer:
        """What the relay demands of every completion."""
        c = Completion.of(raw)
        if c.status not in STATUS_NAMES:
            raise Broke(f"a completion has status {c.status}")
        if not self.jobs or self.jobs[0].id != c.job:
            raise Broke(self._out_of_order(c.job))
        job = self.jobs[0]
        known = layout.FLAG_INLINE | layout.FLAG_TERM
        is_raw = c.status == OK and not c.flags & layout.FLAG_TERM
        if is_raw and job.flags & layout.FLAG_ACCEPTS_ZSTD:
            known |= layout.FLAG_ZSTD
        if c.flags & ~known or c.reserved or any(c.reserved2):
            raise Broke(f"flags {c.flags:#x} or reserved fields of a completion are set")
        if started <= job.position:
            raise Broke(f"job {job.position} is answered and `started` is still {started}")
        payload, extent = self._payload(c)
        summed = envelope_crc(raw, payload, self.plan.features)
        if summed != c.crc:
            raise Broke(f"a completion has CRC {c.crc:08x}, its bytes make {summed:08x}")
        if c.code and c.status != FAILED:
            raise Broke(f"a completion with status {STATUS_NAMES[c.status]} has code {c.code}")
        self._check_kind(c, job)
        if c.status in FINAL:
            self.jobs.popleft()
            self.ended_count += 1
            if job.pool_extent is not None:
                self.pool.give(*job.pool_extent)
        return Answer(c.job, c.status, c.flags, c.code, c.queue_ns, c.run_ns, payload, extent)

    def _out_of_order(self, job: int) -> str:
        if any(entry.id == job for entry in self.jobs):
            return f"job {job} is answered before job {self.jobs[0].id}, which was put before it"
        return f"a completion for job {job}, which is not open: answered twice, or never put"

    def _payload(self, c: Completion) -> tuple[bytes, tuple[int, int] | None]:
        if c.flags & layout.FLAG_INLINE:
            if c.payload_bytes > layout.INLINE_BYTES_MAX or c.payload_at:
                raise Broke(f"{c.payload_bytes} bytes inline, payload_at {c.payload_at}")
            return c.body[: c.payload_bytes], None
        if c.payload_bytes <= layout.INLINE_BYTES_MAX:
            raise Broke(f"{c.payload_bytes} bytes lie in the region: up to 64 belong inline")
        first, rest = divmod(c.payload_at, self.plan.result_block_bytes)
        if rest or c.payload_at + c.payload_bytes > self.plan.result_bytes:
            raise Broke(
                f"{c.payload_bytes} bytes at {c.payload_at} of a region of {self.plan.result_bytes}"
            )
        count = self.results.blocks_for(c.payload_bytes)
        try:
            self.results.mark(first, count)
        except RegionError as error:
            raise Broke(f"result blocks are used that were not given back: {error}") from error
        at = self.link.parts.results_at + c.payload_at
        return self.link.worker.read(at, c.payload_bytes), (first, count)

    def _check_kind(self, c: Completion, job: Job) -> None:
        """Parts as far as they were asked for, progress where it is wanted."""
        if c.status == PART:
            job.parts_seen += 1
            if not job.flags & layout.FLAG_PARTS or job.parts_seen > job.parts_allowed:
                raise Broke(f"part {job.parts_seen} came, and {job.parts_allowed} are asked for")
            if c.payload_bytes > layout.PART_BYTES_MAX:
                raise Broke(f"a part of {c.payload_bytes} bytes")
        if c.status == PROGRESS:
            if not job.flags & layout.FLAG_PROGRESS:
                raise Broke("progress came of a job that nobody asks about")
            if c.payload_bytes > layout.PROGRESS_BYTES_MAX:
                raise Broke(f"progress of {c.payload_bytes} bytes")
        if c.status == CANCELLED and c.payload_bytes:
            raise Broke(f"a cancelled job has {c.payload_bytes} bytes")

    # --- what the worker shows of itself ---------------------------------------------------------

    def telemetry(self) -> dict[str, int]:
        """A consistent copy of the telemetry block (telemetry.h, T3 to T5)."""
        sequence = self.link.worker.word(layout.AT_TELEMETRY, 32)
        until = time.monotonic() + self.patience_s
        while time.monotonic() < until:
            before = sequence.load()
            raw = self.link.worker.read(layout.AT_TELEMETRY, layout.TELEMETRY.size)
            if before % 2 == 0 and sequence.load() == before:
                return {k: int(v) for k, v in unpack(layout.TELEMETRY, raw).items()}
        raise Broke(f"the telemetry block is never still: its sequence is {sequence.load()}")

    def await_started(self, count: int) -> None:
        """Waits until so many handlers have been entered."""
        self.until(lambda: self.started.load() >= count, f"`started` does not come to {count}")

    def until(self, ready: Callable[[], bool], why: str, timeout_s: float | None = None) -> None:
        """Looks again and again, since the worker need not ring for it."""
        end = time.monotonic() + (self.patience_s if timeout_s is None else timeout_s)
        while not ready():
            if time.monotonic() > end or self.process.has_ended():
                if ready():
                    return
                raise Broke(why + self.last_words())
            time.sleep(0.0005)

    def expect_exit(self, status: int, timeout_s: float | None = None) -> None:
        """It ends, with this exit status (negative: by this signal)."""
        limit = self.patience_s if timeout_s is None else timeout_s
        ended = self.process.wait(limit)
        if ended is None:
            raise Broke(f"it still lives after {limit:g} s and should have ended")
        if ended != status:
            raise Broke(
                f"it ended with {status_name(ended)}, not {status_name(status)}{self._said()}"
            )

    def _said(self) -> str:
        said = self.process.stderr.strip()
        return f"; stderr: {said[-400:]}" if said else ""
