"""serve(): from the script of a worker to its end."""

from __future__ import annotations

import os
import sys

from ringbridge_worker import _kit
from ringbridge_worker._answers import AnswerTooLarge, Cancelled, Term, decode, describe
from ringbridge_worker._handlers import Handler, plain

_kit.bind(Cancelled, AnswerTooLarge, Term, describe, decode)


def serve(handler: Handler, *, short_jobs: bool = False) -> None:
    """Serve jobs until the bridge says drain or stop, then return.

    `handler(job)` is called for each job in order, one at a time, on this thread. It returns the
    answer (bytes-like: a binary; Term: a term), or raises: JobFailed, Cancelled, or anything else,
    which fails the job with its type and message. SystemExit and KeyboardInterrupt leave serve()
    with the job unanswered: the caller hears of a worker that ended.

    short_jobs: every job takes microseconds; answers may then leave in batches, up to 50 us late.

    Raises SystemExit: 64 when not started by a bridge, 71 or 78 when the link is refused (stderr
    says why). A bridge that breaks a rule of the link ends the process with 76.
    """
    run = plain(handler)
    os.register_at_fork(after_in_child=_kit.after_fork)
    if status := _kit.serve(run, sys.argv[0] or "worker", short_jobs):
        raise SystemExit(status)
