"""serve(): from the script of a worker to its end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from ringbridge_worker import _kit
from ringbridge_worker._answers import AnswerTooLarge, Cancelled, ChannelError, Term, describe
from ringbridge_worker._handlers import Handler, plain
from ringbridge_worker._job import Job, State

_kit.bind(Job, Term, Cancelled, AnswerTooLarge, ChannelError, describe)


def serve(
    handler: Handler,
    *,
    short_jobs: bool = False,
    save: Callable[[bool], State | None] | None = None,
    restore: Callable[[State], None] | None = None,
) -> None:
    """Serve jobs until the bridge says drain or stop, then return.

    `handler(job)` is called for each job in order, one at a time, on this thread. It returns the
    answer (bytes-like: a binary; Term: a term), or raises: JobFailed, Cancelled, or anything else,
    which fails the job with its type and message. SystemExit and KeyboardInterrupt leave serve()
    with the job unanswered: the caller hears of a worker that ended.

    short_jobs: every job takes microseconds; answers may then leave in batches, up to 50 us late.
    save, restore: state that outlives the process (docs/channel.md), both between two jobs.
    `save(increment)` gives the whole, or where an increment is asked for what is new since the last
    time; None: there is nothing. `restore(state)` takes one part, the whole first.

    Raises SystemExit: 64 when not started by a bridge, 71 or 78 when the link is refused, 65 when
    `restore` raised before the first job (stderr says why). A bridge that breaks a rule of the link
    ends the process with 76.
    """
    run = plain(handler)
    take = None if restore is None else lambda data, increment: restore(State(data, increment))
    os.register_at_fork(after_in_child=_kit.after_fork)
    if status := _kit.serve(run, sys.argv[0] or "worker", short_jobs, save, take):
        raise SystemExit(status)
