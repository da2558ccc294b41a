"""The bounded mailbox of a Python process: taken from in order of arrival, or selectively.

What happens when it is full is stated by its `MailboxPolicy`. Whatever that says, DOWN and EXIT are
always taken: the process asked for them, and the number of its monitors and links bounds them; and
`sys` messages have some room of their own, so that an overloaded process can still be looked at.
One log line when it starts refusing, one when it has recovered.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from math import inf
from typing import Any, Final

import trio

from bridge.etf import Atom, Pid
from bridge.log import Log
from bridge.node.signals.gen import ERROR, Call, Sender, SystemRequest, classify

Term = Any
Predicate = Callable[[Term], bool]
log = Log("ringbridge.node")

CAPACITY = 10_000  # messages: a second of work for a handler that takes 100 us
SYSTEM_RESERVE = 64  # more than anybody has shells open
RETRY_AFTER_MS = 100
_NOTHING: Final = object()


class WhenFull(Enum):
    REFUSE = "refuse"
    """Answer a call with `{error, {overloaded, #{retry_after_ms => N}}}`; drop and count others."""
    DROP = "drop"
    """Drop and count everything; who called waits until its own timeout."""
    CLOSE = "close"
    """End the process with the reason `{mailbox_full, Capacity}`."""


@dataclass(frozen=True, slots=True)
class MailboxPolicy:
    """`capacity` in messages, and what becomes of those that find no room."""

    capacity: int = CAPACITY
    when_full: WhenFull = WhenFull.REFUSE

    def __post_init__(self) -> None:
        if self.capacity < 1:
            raise ValueError("a mailbox holds at least one message")


@dataclass(frozen=True)
class MailboxStatistics:
    """`length` of messages waiting; the others count since the start."""

    length: int
    length_max: int
    received: int
    refused_calls: int
    dropped_messages: int


class Mailbox:
    """Messages of one process. Priority messages go before all others, each kind in its order.

    `refuse` answers a call that finds no room, `close` ends the process. One task takes from it.
    """

    def __init__(
        self,
        policy: MailboxPolicy,
        *,
        refuse: Callable[[Sender, Term], None],
        close: Callable[[Term], None],
        what: str,
    ) -> None:
        self.policy = policy
        self.pid: Pid | None = None
        self._capacity = policy.capacity
        self._refuse = refuse
        self._close = close
        self._what = what
        self._urgent: deque[Term] = deque()
        self._messages: deque[Term] = deque()
        self._reader: trio.lowlevel.Task | None = None
        self._refusing = False
        self._paused = False
        self._received = 0
        self._length_max = 0
        self._lost: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._messages) + len(self._urgent)

    # -- what comes --------------------------------------------------------------------------------

    def deliver(self, message: Term) -> None:
        """Take a message, or turn it away by the policy. Never blocks."""
        length = len(self._messages) + len(self._urgent)
        if length < self._capacity or self._has_reserve_for(message):
            self._messages.append(message)
            self._arrived()
        else:
            self._turn_away(message)

    def deliver_urgent(self, message: Term) -> None:
        """Take a priority message: bounded like any other, but received before them."""
        if len(self) < self._capacity:
            self._urgent.append(message)
            self._arrived()
        else:
            self._turn_away(message)

    def deliver_signal(self, message: Term, *, urgent: bool = False) -> None:
        """Take a DOWN or EXIT, always."""
        (self._urgent if urgent else self._messages).append(message)
        self._arrived()

    # -- what is taken -----------------------------------------------------------------------------

    async def wait_message(self) -> None:
        """Return when `take_nowait` has something; a checkpoint always. Cancelled: no effect."""
        if self._urgent or self._messages:
            await trio.lowlevel.checkpoint()
        else:
            await self._wait_arrival()

    def take_nowait(self) -> Term:
        """The next message. Raises trio.WouldBlock when there is none."""
        if self._urgent:
            message = self._urgent.popleft()
        elif self._messages:
            message = self._messages.popleft()
        else:
            raise trio.WouldBlock
        if self._refusing:
            self._recover()
        return message

    async def receive(self, wanted: Predicate | None = None, timeout_s: float = inf) -> Term:
        """The first message that `wanted` says yes to; the others stay, in order.

        Raises trio.TooSlowError; with `timeout_s` 0 it takes what is there. A checkpoint always.
        Cancelled: no message is taken. Each message is asked about once, however often it waits.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        asked = [0, 0]
        message = self._take(wanted, asked)
        if message is not _NOTHING:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return message
        with trio.move_on_after(timeout_s):
            while message is _NOTHING:
                await self._wait_arrival()
                message = self._take(wanted, asked)
        if message is _NOTHING:
            raise trio.TooSlowError(f"no message that fits in {timeout_s:g} s")
        return message

    def remove(self, wanted: Predicate) -> int:
        """Drop every message that `wanted` says yes to; how many there were."""
        before = len(self)
        self._urgent = deque(m for m in self._urgent if not wanted(m))
        self._messages = deque(m for m in self._messages if not wanted(m))
        return before - len(self)

    def snapshot(self) -> list[Term]:
        """The messages that wait, in the order in which `take_nowait` would give them."""
        return [*self._urgent, *self._messages]

    def statistics(self) -> MailboxStatistics:
        return MailboxStatistics(
            length=len(self),
            length_max=self._length_max,
            received=self._received,
            refused_calls=self._lost["refused"],
            dropped_messages=self._lost["dropped"],
        )

    def pause(self, paused: bool) -> None:
        """While paused, `receive` waits whatever there is: the process is suspended."""
        self._paused = paused
        if not paused:
            self._wake()

    # -- helpers -----------------------------------------------------------------------------------

    def _take(self, wanted: Predicate | None, asked: list[int]) -> Term:
        """The first that is wanted, after those of each queue that were asked about before."""
        if self._paused:
            return _NOTHING
        if wanted is None:
            return self.take_nowait() if self._urgent or self._messages else _NOTHING
        for which, queue in enumerate((self._urgent, self._messages)):
            first = asked[which]
            for position, message in enumerate(islice(queue, first, None), first):
                if wanted(message):
                    del queue[position]
                    if self._refusing:
                        self._recover()
                    return message
            asked[which] = len(queue)
        return _NOTHING

    def _arrived(self) -> None:
        self._received += 1
        length = len(self._messages) + len(self._urgent)
        if length > self._length_max:
            self._length_max = length
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None:
            reader, self._reader = self._reader, None
            trio.lowlevel.reschedule(reader)

    async def _wait_arrival(self) -> None:
        if self._reader is not None:
            raise trio.BusyResourceError("a mailbox has one reader: the process itself")
        self._reader = trio.lowlevel.current_task()

        def abort(_: Any) -> trio.lowlevel.Abort:
            self._reader = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def _has_reserve_for(self, message: Term) -> bool:
        return len(self) < self._capacity + SYSTEM_RESERVE and isinstance(
            classify(message), SystemRequest
        )

    def _turn_away(self, message: Term) -> None:
        if self.policy.when_full is WhenFull.CLOSE:
            log.warning("mailbox full, ending the process", **self._names())
            self._lost["dropped"] += 1
            self._close((Atom("mailbox_full"), self._capacity))
            return
        if not self._refusing:
            self._refusing = True
            log.warning("mailbox full", when_full=self.policy.when_full.value, **self._names())
        match classify(message):
            case Call(sender) | SystemRequest(sender) if self.policy.when_full is WhenFull.REFUSE:
                self._lost["refused"] += 1
                details = {Atom("retry_after_ms"): RETRY_AFTER_MS}
                self._refuse(sender, (ERROR, (Atom("overloaded"), details)))
            case _:
                self._lost["dropped"] += 1

    def _recover(self) -> None:
        if len(self) <= self._capacity // 2:
            self._refusing = False
            log.info("mailbox has room again", **self._names())

    def _names(self) -> dict[str, Any]:
        return {"process": self._what, "pid": str(self.pid), "capacity": self._capacity}
