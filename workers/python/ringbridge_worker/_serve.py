"""serve(): from the script of a worker to its end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ringbridge_worker import _kit
from ringbridge_worker._answers import (
    AnswerTooLarge,
    Cancelled,
    ChannelError,
    PeerFailed,
    Term,
    describe,
)
from ringbridge_worker._handlers import Handler, plain
from ringbridge_worker._job import Job, State

_kit.bind(Job, Term, Cancelled, AnswerTooLarge, ChannelError, PeerFailed, describe)


class Op(NamedTuple):
    """An operation that a worker declares, so that a role may be held to it.

    `takes_raw`, `takes_term`: what its payload is; neither: anything. `parts`: it answers in parts.
    """

    opcode: int
    name: str  # at most 27 bytes
    takes_raw: bool = False
    takes_term: bool = False
    parts: bool = False


def set_ready(ready: bool) -> None:
    """False: give me nothing new for now; what it has been given it keeps. True: ready again.

    Told at once. Any thread, also before serve(): then the worker greets, and gets its first job
    once it is ready.
    """
    _kit.set_ready(ready)


def serve(
    handler: Handler,
    *,
    ops: Iterable[Op] = (),
    short_jobs: bool = False,
    save: Callable[[bool], State | None] | None = None,
    restore: Callable[[State], None] | None = None,
    serves_peers: bool = False,
) -> None:
    """Serve jobs until the bridge says drain or stop, then return.

    `handler(job)` is called for each job in order, one at a time, on this thread. It returns the
    answer (bytes-like: a binary; Term: a term), or raises: JobFailed, Cancelled, or anything else,
    which fails the job with its type and message. SystemExit and KeyboardInterrupt leave serve()
    with the job unanswered: the caller hears of a worker that ended.

    ops: what it can do; none: it takes every opcode. ValueError where they break a rule.
    short_jobs: every job takes microseconds; answers may then leave in batches, up to 50 us late.
    save, restore: state that outlives the process (docs/channel.md), both between two jobs.
    `save(increment)` gives the whole, or where an increment is asked for what is new since the last
    time; None: there is nothing. `restore(state)` takes one part, the whole first.
    serves_peers: other workers may ask this one too, as the policy of their roles allows
    (docs/links.md). Their requests are jobs for the same handler, between those of the bridge.

    Raises SystemExit: 64 when not started by a bridge, 71 or 78 when the link is refused, 65 when
    `restore` raised before the first job (stderr says why). A bridge that breaks a rule of the link
    ends the process with 76.
    """
    run = plain(handler)
    take = None if restore is None else lambda data, increment: restore(State(data, increment))
    os.register_at_fork(after_in_child=_kit.after_fork)
    declared = [
        (op.opcode, op.name, op.takes_raw | op.takes_term << 1 | op.parts << 2) for op in ops
    ]
    if status := _kit.serve(
        run, sys.argv[0] or "worker", short_jobs, save, take, declared, serves_peers
    ):
        raise SystemExit(status)
