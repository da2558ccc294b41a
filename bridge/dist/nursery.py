"""A nursery for context managers that yield: an error of the block comes out as itself, not in a
group.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def block_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery that is cancelled when the block ends.

    What the block raises is raised as it is when no task failed beside it; otherwise the group is
    raised.
    """
    raised: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as error:
                raised = error
                raise
            finally:
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if raised is not None and group.exceptions == (raised,):
            raise raised from None
        raise
