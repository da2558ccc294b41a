"""The bounded mailbox of a Python process.

Policy when it is full: a call is refused with `{error, {overloaded, #{retry_after_ms => N}}}`, a
cast or any other message is dropped and counted, `sys` messages have some room of their own, so
that an overloaded process can still be looked at. DOWN and EXIT are always taken: the process asked
for them, and the number of its monitors and links bounds them. One log line when it starts
refusing, one when it has recovered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog
import trio

from bridge.etf import Atom, Pid
from bridge.node.gen import ERROR, Call, Info, Request, Sender, SystemRequest, classify

Term = Any
log = structlog.get_logger("ringbridge.node")

CAPACITY = 10_000  # messages: a second of work for a handler that takes 100 us
SYSTEM_RESERVE = 64  # more than anybody has shells open
RETRY_AFTER_MS = 100


@dataclass(frozen=True)
class MailboxStatistics:
    """`length` of messages waiting; the others count since the start."""

    length: int
    refused_calls: int
    dropped_messages: int


class Mailbox:
    """Messages of one process, in order. `refuse` answers a call that finds no room."""

    def __init__(
        self, *, capacity: int = CAPACITY, refuse: Callable[[Sender, Term], None], what: str
    ) -> None:
        self._messages: deque[Request] = deque()
        self._deferred: deque[Request] = deque()  # what a suspended process has passed over
        self._capacity = capacity
        self._refuse = refuse
        self._what = what
        self._arrived = trio.Event()
        self._refusing = False
        self._refused_calls = 0
        self._dropped = 0
        self.pid: Pid | None = None

    def __len__(self) -> int:
        return len(self._messages) + len(self._deferred)

    def deliver(self, message: Term) -> None:
        """Take a message, or refuse or drop it. Never blocks."""
        request = classify(message)
        reserve = SYSTEM_RESERVE if isinstance(request, SystemRequest) else 0
        if len(self) < self._capacity + reserve:
            self._put(request)
        else:
            self._turn_away(request)

    def deliver_signal(self, message: Term) -> None:
        """Take a DOWN or EXIT, always."""
        self._put(Info(message))

    async def wait_message(self) -> None:
        """Return when `take_nowait` has something; a checkpoint always. Cancelled: no effect."""
        if self._messages:
            await trio.lowlevel.checkpoint()
        while not self._messages:
            self._arrived = trio.Event()
            await self._arrived.wait()

    def take_nowait(self) -> Request:
        """The oldest message. Raises trio.WouldBlock when there is none."""
        if not self._messages:
            raise trio.WouldBlock
        request = self._messages.popleft()
        if self._refusing and len(self) <= self._capacity // 2:
            self._refusing = False
            log.info("mailbox has room again", process=self._what, pid=str(self.pid))
        return request

    def defer(self, request: Request) -> None:
        """Keep a message that was taken for later: the process is suspended."""
        self._deferred.append(request)

    def restore_deferred(self) -> None:
        """Put what was deferred back in front, in its order."""
        self._messages.extendleft(reversed(self._deferred))
        self._deferred.clear()

    def statistics(self) -> MailboxStatistics:
        return MailboxStatistics(len(self), self._refused_calls, self._dropped)

    def _put(self, request: Request) -> None:
        self._messages.append(request)
        self._arrived.set()

    def _turn_away(self, request: Request) -> None:
        if not self._refusing:
            self._refusing = True
            log.warning(
                "mailbox full, refusing calls and dropping messages",
                process=self._what,
                pid=str(self.pid),
                capacity=self._capacity,
            )
        match request:
            case Call(sender) | SystemRequest(sender):
                self._refused_calls += 1
                details = {Atom("retry_after_ms"): RETRY_AFTER_MS}
                self._refuse(sender, (ERROR, (Atom("overloaded"), details)))
            case _:
                self._dropped += 1
