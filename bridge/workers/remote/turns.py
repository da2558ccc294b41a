"""The jobs that one slot of a remote worker holds, and what it may say of them: a pure core.

Jobs are begun in their order, one after the other; each is begun once and ended once. Who says
something else broke a rule (docs/remote-workers.md). Times are the caller's, in seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from bridge.fabric import layout
from bridge.workers.remote.messages import BrokenRule


@dataclass(slots=True)
class OpenJob:
    """A job that the worker was given and has not ended. `cancelled_s`: told so, and since when it
    is its turn; None: not told, or it waits for its turn.
    """

    id: int
    position: int
    has_parts: bool
    has_progress: bool
    started: bool = False
    parts_sent: int = 0
    parts_told: int = 0
    cancel_told: bool = False
    cancelled_s: float | None = None


class Turns:
    """The open jobs of one slot, the oldest first. Each method raises BrokenRule."""

    def __init__(self) -> None:
        self._jobs: deque[OpenJob] = deque()

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[OpenJob]:
        return iter(self._jobs)

    def give(self, job: OpenJob) -> None:
        self._jobs.append(job)

    def begin(self, job_id: int) -> OpenJob:
        """Its handler is entered."""
        job = self._turn_of(job_id)
        if job.started:
            raise BrokenRule("remote_out_of_turn", f"job {job_id} was begun twice")
        job.started = True
        return job

    def say(self, job_id: int, status: int, size: int) -> OpenJob | None:
        """A part or progress of a job, of `size` bytes; None: progress that nobody wants."""
        job = self._turn_of(job_id)
        if not job.started:
            raise BrokenRule("remote_out_of_turn", f"job {job_id} has something before its begin")
        if status == layout.STATUS_PROGRESS:
            if size > layout.PROGRESS_BYTES_MAX:
                raise BrokenRule("remote_too_large", f"progress of {size} bytes")
            return job if job.has_progress else None
        if size > layout.PART_BYTES_MAX:
            raise BrokenRule("remote_too_large", f"a part of {size} bytes")
        if not job.has_parts or job.parts_sent >= job.parts_told:
            told = f"{job.parts_told} are asked for" if job.has_parts else "it is answered whole"
            why = f"part {job.parts_sent + 1} of job {job_id}, and {told}"
            raise BrokenRule("remote_part_without_demand", why)
        job.parts_sent += 1
        return job

    def pulse(self, job_id: int) -> OpenJob:
        return self._turn_of(job_id)

    def end(self, job_id: int, status: int, size: int, size_max: int) -> OpenJob:
        """The end of a job. One that was cancelled before its turn need not have been begun."""
        job = self._turn_of(job_id)
        if not job.started and status != layout.STATUS_CANCELLED:
            raise BrokenRule("remote_out_of_turn", f"job {job_id} has ended before its begin")
        if size > size_max:
            raise BrokenRule("remote_too_large", f"an answer of {size} bytes; {size_max} may be")
        return self._jobs.popleft()

    def overdue(self, now_s: float, patience_s: float) -> OpenJob | None:
        """The job whose turn it is, if it was told to stop and has not in all that time."""
        if not self._jobs:
            return None
        job = self._jobs[0]
        if not job.cancel_told:
            return None
        if job.cancelled_s is None:
            job.cancelled_s = now_s
        return job if now_s - job.cancelled_s > patience_s else None

    def be_patient(self) -> None:
        """What has passed so far counts for nothing."""
        for job in self._jobs:
            job.cancelled_s = None

    def _turn_of(self, job_id: int) -> OpenJob:
        if self._jobs and self._jobs[0].id == job_id:
            return self._jobs[0]
        if any(job.id == job_id for job in self._jobs):
            why = f"job {job_id}, and {self._jobs[0].id} was given before it"
            raise BrokenRule("remote_out_of_turn", why)
        why = f"job {job_id} is none that it holds: never given, or ended"
        raise BrokenRule("remote_unknown_job", why)
