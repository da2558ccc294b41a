"""Handlers of three kinds, made one: plain functions, generators and coroutine functions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeAlias, cast

from ringbridge_worker._answers import Answer, Cancelled, Term
from ringbridge_worker._job import Job

Handler: TypeAlias = Callable[[Job], "Answer | Iterator[Any] | Awaitable[Answer]"]

# A coroutine that waits is told of a cancel within this time, as a sleep in the kit's is.
LOOK_EVERY_S = 0.005


def plain(handler: Handler) -> Callable[[Job], Answer]:
    """The handler as a function that returns its answer."""
    called = handler.func if isinstance(handler, functools.partial) else handler
    if not inspect.isroutine(called):
        called = type(called).__call__  # an object with __call__
    if inspect.iscoroutinefunction(called):
        return _run_coroutine(handler)
    if inspect.isgeneratorfunction(called):
        return functools.partial(_run_generator, handler)
    return cast(Callable[[Job], Answer], handler)


def _run_generator(handler: Any, job: Job) -> Answer:
    """Each yield is a part; for a caller that takes no parts all of them are one list."""
    if job.wants_parts:
        for part in handler(job):
            job.emit(part)
        return None
    return Term([_plain_value(part) for part in handler(job)])


def _plain_value(part: Any) -> Any:
    return part.value if isinstance(part, Term) else bytes(part)


def _run_coroutine(handler: Any) -> Callable[[Job], Answer]:
    import asyncio

    runner = asyncio.Runner()  # one loop for all jobs: what they open stays open

    async def watched(job: Job) -> Any:
        task = asyncio.ensure_future(handler(job))
        while not (await asyncio.wait({task}, timeout=LOOK_EVERY_S))[0]:
            if job.is_cancelled():
                task.cancel()
        try:
            return task.result()
        except asyncio.CancelledError:
            raise Cancelled from None

    return lambda job: runner.run(watched(job))
