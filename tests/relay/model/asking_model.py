"""The other ways of asking (docs/calling.md): asynchronously, many at once, once for many.

An asynchronous job's caller is told {ok, Ref} before anything of the job, is watched, and gets its
one answer as a message. The elements of a batch are jobs of their own, whose answers leave as one
list in their order. Callers that give the same dedupe key wait for one run: it is the first one's,
who comes later joins it or gets the answer that was kept, and with the last one it is cancelled.
Who said `orphan: finish` leaves a job behind that runs to its end.
"""

from dataclasses import dataclass, field, replace

from dispatcher_model import MS, Asked, Caller, Dispatcher, Job, Where

Answer = tuple[object, ...]


@dataclass(eq=False)
class Batch:
    head: Job  # holds the caller, and is no job itself
    answers: list[Answer | None]
    left: int = 0


@dataclass(eq=False)
class Shared:
    """What a dedupe key stands for."""

    key: tuple[str, str, bytes]  # of a role, and a tenant
    work: tuple[bytes, int]
    run: Job | None = None
    callers: list[Job] = field(default_factory=list)
    ttl_ms: int = 0
    answer: Answer = ()
    reason: str = ""
    expires: int | None = None  # once the answer is kept


class Asking(Dispatcher):
    def __init__(self) -> None:
        super().__init__()
        self.batches: dict[tuple[str, int], Batch] = {}
        self.batch_of: dict[Job, Batch] = {}
        self.shared: dict[tuple[str, str, bytes], Shared] = {}
        self.run_of: dict[Job, Shared] = {}
        self.joined: dict[Job, Shared] = {}
        self.forgotten: set[Job] = set()  # whose callers left them behind

    def open_jobs(self) -> list[Job]:
        return [*self.run_of, *super().open_jobs()]

    # ---- asynchronously

    def _admit(self, job: Job) -> None:
        super()._admit(job)
        if job.asked.is_async:
            self._watch(job)
            self._tell(job.caller, "handle")

    def cancel_by_handle(self, asker: Caller, caller: Caller) -> None:
        job = self.jobs.get((caller.node, caller.ref))
        self.cancel(asker, job.number if job and job.asked.is_async else 0)

    # ---- what an answer is, and what follows from it

    def _deliver(self, job: Job, answer: Answer) -> None:
        if shared := self.run_of.get(job):
            shared.answer = answer
        elif batch := self.batch_of.get(job):
            batch.answers[job.element[0]] = answer
        elif job not in self.forgotten:
            self._tell(job.caller, *(("message", *answer) if job.asked.is_async else answer))

    def _answered(self, job: Job, reason: str) -> None:
        if shared := self.run_of.pop(job, None):
            self._leave(job)
            self._over(shared, reason)
            return
        super()._answered(job, reason)
        if batch := self.batch_of.pop(job, None):
            batch.left -= 1
            self._finish(batch)
        if shared := self.joined.pop(job, None):
            shared.callers.remove(job)
            if not shared.callers and shared.run:
                self._answered(shared.run, reason)

    # ---- many at once

    def submit_many(self, caller: Caller, asked: Asked, payloads: list[bytes]) -> None:
        role = self.roles.get(asked.role)
        if role is None or (asked.retry and not role.limits.idempotent):
            self._refuse(caller, "bad_request")
            return
        batch = Batch(self._new_job(role, caller, asked), [None] * len(payloads))
        self.batches[caller.node, caller.ref] = batch
        if not caller.monitors:
            self._watch(batch.head)
        for index, payload in enumerate(payloads):
            self._submit_element(batch, index, replace(asked, payload=payload))
        if not batch.left and batch.answers:  # none was accepted: the first one's reason
            self._tell(caller, *(batch.answers[0] or ()))
            self._forget_batch(batch)
        else:
            self._finish(batch)

    def _submit_element(self, batch: Batch, index: int, asked: Asked) -> None:
        role = batch.head.role
        if refusal := self._refusal(role, batch.head.caller, asked):
            self.refused[str(refusal[0])] += 1
            batch.answers[index] = ("error", *refusal)
            return
        job = self._new_job(role, batch.head.caller, asked)
        job.element = (index,)
        self.accepted += 1
        self.jobs[job.name] = job
        self.batch_of[job] = batch
        batch.left += 1
        self._enqueue(job)

    def _finish(self, batch: Batch) -> None:
        caller = batch.head.caller
        if not batch.left and self.batches.get((caller.node, caller.ref)) is batch:
            self._tell(caller, "ok", tuple(batch.answers))
            self._forget_batch(batch)

    def _forget_batch(self, batch: Batch) -> None:
        """Answered, or nobody waits for it."""
        del self.batches[batch.head.caller.node, batch.head.caller.ref]
        self._unwatch(batch.head)

    # ---- once for many

    def submit(self, caller: Caller, asked: Asked) -> None:
        role = self.roles.get(asked.role)
        if asked.dedupe is None or role is None or (asked.retry and not role.limits.idempotent):
            super().submit(caller, asked)
            return
        key = (asked.role, asked.tenant, asked.dedupe)
        work = (asked.payload, asked.opcode)
        known = self.shared.get(key)
        if known and known.expires is not None and known.expires <= self.now:
            known = None
        if known and known.work != work:
            self._refuse(caller, "bad_request")
        elif known:
            self._join(known, self._new_job(role, caller, asked))
        elif refusal := self._refusal(role, caller, asked):
            self._refuse(caller, *refusal)
        else:
            shared = self.shared[key] = Shared(key, work)
            first = self._new_job(role, caller, asked)
            shared.run = self._new_job(role, caller, asked)
            self.run_of[shared.run] = shared
            self._join(shared, first)
            self._enqueue(shared.run)

    def _join(self, shared: Shared, job: Job) -> None:
        job.where = Where.WAITING
        self._admit(job)
        if shared.run:
            shared.callers.append(job)
            shared.ttl_ms = max(shared.ttl_ms, job.asked.ttl_ms)
            self.joined[job] = shared
        else:
            self._deliver(job, shared.answer)
            self._answered(job, shared.reason)

    def _over(self, shared: Shared, reason: str) -> None:
        callers, shared.callers, shared.run = shared.callers, [], None
        shared.reason = reason
        for job in callers:
            del self.joined[job]
            self._deliver(job, shared.answer)
            self._answered(job, reason)
        if reason in ("ok", "job_failed") and shared.ttl_ms:
            shared.expires = self.now + shared.ttl_ms * MS
        else:
            del self.shared[shared.key]

    # ---- callers that leave

    def caller_gone(self, node: str, ref: int) -> None:
        """DEMONITOR_P: of a call. An asynchronous job's call is over already."""
        job, batch = self.jobs.get((node, ref)), self.batches.get((node, ref))
        if job and not job.asked.is_async:
            self._orphan(job)
        if batch:
            self._orphan_batch(batch)

    def caller_died(self, node: str, ref: int) -> None:
        if job := self.jobs.get((node, ref)):
            job.watched = False
            self._orphan(job)
        if batch := self.batches.get((node, ref)):
            batch.head.watched = False
            self._orphan_batch(batch)

    def _orphan(self, job: Job) -> None:
        if job.asked.finish:
            self.forgotten.add(job)
            self._unwatch(job)
        else:
            self._answered(job, "cancelled")

    def _orphan_batch(self, batch: Batch) -> None:
        self._forget_batch(batch)
        if not batch.head.asked.finish:
            for job in [job for job, of in self.batch_of.items() if of is batch]:
                self._answered(job, "cancelled")

    def end_lost(self) -> None:
        for node in self.lost:
            for batch in [b for b in self.batches.values() if b.head.caller.node == node]:
                self._orphan_batch(batch)
            for job in list(self.jobs.values()):
                if job.caller.node == node and not job.element and job not in self.forgotten:
                    self._orphan(job)
        self.lost.clear()
