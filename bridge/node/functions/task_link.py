"""A link between a process and a block of Python code: when one ends badly, so does the other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from bridge.etf import Pid
from bridge.node.calls import ProcessDown
from bridge.node.process.ends import exception_reason, unwrapped
from bridge.node.signals import gen
from bridge.node.signals.router import Router

Term = Any


class TaskLink:
    """The inbox of the small process that holds the link: it takes the exit and nothing else."""

    def __init__(self, router: Router, other: Pid) -> None:
        self._router = router
        self._other = other
        self._scope = trio.CancelScope()
        self._reason: Term = None

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Link, run the block, unlink. Raises ProcessDown when the other end was the first."""
        process = self._router.spawn(self, trap_exit=True)
        ours: Term = gen.NORMAL
        try:
            with self._scope:
                self._router.link(process, self._other)
                yield
        except trio.Cancelled:
            ours = gen.SHUTDOWN
            raise
        except Exception as error:
            ours = exception_reason(unwrapped(error))
            raise
        finally:
            if ours == gen.NORMAL:
                self._router.unlink(process, self._other)
            self._router.terminate(process, ours)
        if self._scope.cancelled_caught:
            raise ProcessDown(self._other, self._reason)

    # -- Inbox -------------------------------------------------------------------------------------

    def deliver(self, message: Term) -> None:
        pass

    def deliver_urgent(self, message: Term) -> None:
        pass

    def deliver_signal(self, message: Term, *, urgent: bool = False) -> None:
        match message:
            case (_, _, reason) if reason != gen.NORMAL:
                self._end(reason)

    def stop(self, reason: Term) -> None:
        self._end(reason)

    def _end(self, reason: Term) -> None:
        if not self._scope.cancel_called:
            self._reason = reason
            self._scope.cancel()
