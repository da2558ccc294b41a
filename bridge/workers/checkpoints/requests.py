"""The requests to the WorkerRegistry whose answer waits for workers: {:checkpoint, id},
{:move_state, from, to, how} and {:chaos, id, hook, value, jobs}.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol

from bridge.etf import Atom
from bridge.ops.answers import ERROR, OK, BadRequest
from bridge.workers.channel.packets import NotHad
from bridge.workers.checkpoints.moving import HOWS, How
from bridge.workers.port_supervisor import PortSupervisor
from bridge.workers.worker import Worker

Term = Any

HOOK = re.compile(r"[a-z_]{1,15}")
HOOK_NUMBER_MAX = 9_999_999_999  # ten digits, as a kit reads them


class Conversing(Protocol):
    """Who talks to workers: bridge/conversations.py. Each raises NotHad."""

    async def checkpoint(self, worker: Worker) -> Term: ...
    async def trouble(self, worker: Worker, hook: str, value: int, jobs: int) -> Term: ...
    async def move(
        self, supervisor: PortSupervisor, source: Worker, target: Worker, how: How
    ) -> Term: ...


class StateRequests:
    """Begins what a request asks; its answer comes when it is done."""

    def __init__(self, supervisor: PortSupervisor, conversing: Conversing) -> None:
        self._supervisor = supervisor
        self._conversing = conversing

    def begin(
        self, request: Term, find: Callable[[Term], Worker], answer: Callable[[Term], None]
    ) -> bool:
        """False: the request is another. `find` gives the worker of an id. Raises BadRequest."""
        match request:
            case (Atom("checkpoint"), worker_id):
                story = partial(self._conversing.checkpoint, find(worker_id))
            case (Atom("move_state"), source, target, Atom(how)):
                if how not in HOWS:
                    raise BadRequest(f"a state moves by one of {', '.join(HOWS)}, not by {how}")
                story = partial(
                    self._conversing.move, self._supervisor, find(source), find(target), how
                )
            case (Atom("chaos"), worker_id, Atom(hook), value, jobs):
                if not HOOK.fullmatch(hook):
                    raise BadRequest("a hook's name is up to 15 small letters and underscores")
                for number in (value, jobs):
                    if type(number) is not int or not 0 <= number <= HOOK_NUMBER_MAX:
                        raise BadRequest(f"a hook's numbers are 0 to {HOOK_NUMBER_MAX}")
                story = partial(self._conversing.trouble, find(worker_id), hook, value, jobs)
            case _:
                return False
        self._supervisor.begin(partial(_answer_later, story, answer))
        return True


async def _answer_later(
    story: Callable[[], Awaitable[Term]], answer: Callable[[Term], None]
) -> None:
    try:
        answer((OK, await story()))
    except NotHad as error:
        answer((ERROR, error.reason()))
