"""A worker's state moves to another worker of its role, and its work with it.

    stop_and_copy   the target begins no job; the source finishes what it has, saves, and ends; the
                    target is given the state
    pre_copy        the same, but the target is given a whole checkpoint first, while the source
                    still works: what is left to give at the end is an increment, if the worker
                    makes them
    post_copy       the target takes jobs at once, and only those that need the state wait for it

The source is drained: jobs that it has are finished, those that wait go to others. Whatever goes
wrong, its state stays in the store as its own, the target goes on with what it had, and the source
is started again.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Literal, get_args

import structlog

from bridge.etf import Atom, brief
from bridge.workers.channel.channel import Channel
from bridge.workers.channel.packets import Code, Coming, Kind, NotHad
from bridge.workers.channel.states import Asked, States
from bridge.workers.checkpoints.keeper import Keeper
from bridge.workers.checkpoints.store import Part
from bridge.workers.wishes import Wanted
from bridge.workers.worker import State, Worker

How = Literal["stop_and_copy", "pre_copy", "post_copy"]
HOWS: tuple[How, ...] = get_args(How)
Until = Callable[[Callable[[], object]], Awaitable[None]]

_ENDED = (State.DRAINED, State.GIVEN_UP, State.FINISHED, State.STOPPED, State.RESTARTING)


def states_of(worker: Worker) -> States:
    """Raises NotHad: the worker does not run."""
    if worker.state in _ENDED:
        raise NotHad(Code.DOWN, f"worker {worker.id} has ended")
    if not isinstance(worker.conversation, Channel) or worker.state is not State.READY:
        raise NotHad(Code.UNAVAILABLE, f"worker {worker.id} is not ready")
    return worker.conversation.states


async def move(
    keeper: Keeper, until: Until, source: Worker, target: Worker, how: How
) -> Mapping[str, Any]:
    """Move the state of `source` to `target`; returns how, its bytes, and for how many ms nobody
    worked with it. `until` waits for a condition of the workers. Raises NotHad.
    """
    if source is target or source.plan.id != target.plan.id:
        raise NotHad(Code.BAD_REQUEST, "a state moves between two workers of one role")
    giver, taker = states_of(source), states_of(target)
    log = structlog.get_logger("ringbridge.workers").bind(
        role=source.plan.name, source=source.id, target=target.id, how=how
    )
    log.info("state moves")
    given: list[Part] = []
    try:
        taker.announce(Coming.COMING if how == "post_copy" else Coming.HOLD)
        if how == "pre_copy":
            await giver.checkpoint(Kind.FULL)
            given = await keeper.load(giver.place)
            await taker.restore(given)
            taker.announce(Coming.HOLD)
        stopped_s = time.monotonic()
        kind = Kind.INCREMENTAL if given else Kind.FULL
        asked = giver.save_before_leaving(kind)
        if asked is None:
            raise NotHad(Code.BUSY)
        await _drain(source, until, asked)
        state = await keeper.load(giver.place)
        # After a pre-copy increments are enough, if they stand on what was given; a worker may save
        # the whole once more, of itself too.
        stands = given != state and given == state[: len(given)]
        rest = state[len(given) :] if stands else state
        await taker.restore(rest)
        await keeper.move(giver.place, taker.place)
        taker.based()
    except BaseException as error:
        why = brief(error.reason()) if isinstance(error, NotHad) else type(error).__name__
        log.error("state not moved, the source starts again", why=why)
        with suppress(NotHad):
            taker.announce(Coming.ABANDONED)
        if source.state in (State.DRAINING, *_ENDED):
            source.want(Wanted.RESTART)
        raise
    paused_ms = round((time.monotonic() - stopped_s) * 1000)
    size = sum(len(part.state) for part in state)
    log.info("state moved", bytes=size, paused_ms=paused_ms)
    return {"how": Atom(how), "bytes": size, "paused_ms": paused_ms}


async def _drain(source: Worker, until: Until, asked: Asked) -> None:
    """Let the source finish, save and end. Raises NotHad where it has not saved."""
    conversation = source.conversation
    assert isinstance(conversation, Channel)
    await conversation.wait_told()
    source.want(Wanted.DRAIN)
    await until(lambda: source.state in _ENDED)
    await asked.answered.wait()
    if asked.error is not None:
        raise asked.error
