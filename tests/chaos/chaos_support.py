"""What the tests of chaos wait with."""

from __future__ import annotations

from collections.abc import Callable

import trio


async def until(condition: Callable[[], bool]) -> None:
    """Look every few ms: what is waited for are sockets and processes, which cannot tell us."""
    with trio.fail_after(20):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.005)
