"""Messages and calls of one worker into the cluster, as one process of the node: the worker's own.

They leave in the order in which they came. A node that is not connected is dialled meanwhile
(`node.autoconnect`), and what is for it waits in that order, bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import trio

from bridge.etf import EncodeError, encode_bare
from bridge.node import Node, ProcessDown
from bridge.node.calls import PendingCall
from bridge.node.signals import gen
from bridge.node.signals.addresses import Target, node_of
from bridge.node.signals.table import Process
from bridge.workers.channel.packets import Call, Code, NotHad, Send
from bridge.workers.channel.policy import AtomBudget, CallbackPolicy, check_term

Term = Any

WAITING_BYTES_MAX = 4 << 20  # of one worker's terms, for nodes that are being dialled


class Callbacks:
    """What one life of a worker says to others. `process`: the worker's own, for as long as it
    lives.
    """

    def __init__(self, node: Node, process: Callable[[], Process | None]) -> None:
        self._node = node
        self._process = process
        self._waiting_bytes = 0
        self._room = trio.Event()

    async def send(
        self, request: Send, size: int, policy: CallbackPolicy, budget: AtomBudget
    ) -> None:
        """Erlang's `!`. Waits while too much waits for its node. Raises NotHad."""
        process, address = self._checked(request.dest, request.message, policy, budget)
        check = partial(_encoded, request.message)
        send = partial(self._node.router.send, process.pid, address, request.message)
        check()
        await self._post(address, size, send)

    async def ask(
        self, request: Call, size: int, policy: CallbackPolicy, budget: AtomBudget
    ) -> OpenCall:
        """Ask the question of a call; its `wait` gives the answer. Its timeout runs from now on,
        also while it waits for room. Raises NotHad.
        """
        deadline_s = trio.current_time() + request.timeout_s
        process, address = self._checked(request.dest, request.request, policy, budget)
        _encoded(request.request)
        call = OpenCall(self._node, process, address, request.request, deadline_s)
        with trio.move_on_at(deadline_s) as posting:
            await self._post(address, size, call.ask)
        if posting.cancelled_caught:
            raise NotHad(Code.TIMEOUT)
        return call

    def _checked(
        self, dest: Term, term: Term, policy: CallbackPolicy, budget: AtomBudget
    ) -> tuple[Process, Target]:
        process = self._process()
        if process is None:
            raise NotHad(Code.UNAVAILABLE, "the worker's process on the node has ended")
        address = policy.address(dest)
        check_term(term, policy, budget)
        return process, address

    async def _post(self, address: Target, size: int, action: Callable[[], object]) -> None:
        """Carry `action` out when its node is connected, or cannot be; in order. Cancelled, nothing
        of it is left.
        """
        node = node_of(address)
        await self._node.wait_room(node)
        while self._waiting_bytes > WAITING_BYTES_MAX:
            await self._room.wait()
        self._waiting_bytes += size

        def act() -> None:
            self._waiting_bytes -= size
            self._room.set()
            self._room = trio.Event()
            action()

        if not self._node.autoconnect.run(node, act):
            self._waiting_bytes -= size
            raise NotHad(Code.BUSY)


class OpenCall:
    """One call on its way. `wait` for it once, or `forget` it. `deadline_s`: of trio's clock."""

    def __init__(
        self, node: Node, process: Process, target: Target, request: Term, deadline_s: float
    ) -> None:
        self._node = node
        self._deadline_s = deadline_s
        self._process = process
        self._target = target
        self._request = request
        self._pending: PendingCall | None = None
        self._asked = trio.Event()
        self._failed: NotHad | None = None
        self._over = False

    def ask(self) -> None:
        """Its turn has come. Never raises."""
        self._asked.set()
        if self._over or self._node.router.table.find(self._process.pid) is None:
            self._failed = NotHad(Code.UNAVAILABLE, "its worker has ended")
            return
        alias = self._node.answers_to_aliases(self._target)
        self._pending = PendingCall(self._node.router, self._process, self._target, alias=alias)
        try:
            self._pending.ask(self._request)
        except EncodeError as error:  # its node's release cannot have it
            self._failed = NotHad(Code.BAD_REQUEST, str(error))

    async def wait(self) -> Term:
        """The answer. Raises NotHad. Whatever happens, nothing of the call is left."""
        try:
            with trio.move_on_at(self._deadline_s):
                await self._asked.wait()
                if self._failed is not None:
                    raise self._failed
                assert self._pending is not None
                return await self._pending.wait()
            raise NotHad(Code.TIMEOUT)
        except ProcessDown as down:
            raise _ended(down.reason) from down
        finally:
            self.forget()

    def forget(self) -> None:
        self._over = True
        if self._pending is not None:
            self._pending.forget()


def _ended(reason: Term) -> NotHad:
    if reason == gen.NOPROC:
        return NotHad(Code.NO_PROCESS)
    if reason == gen.NOCONNECTION:
        return NotHad(Code.NO_CONNECTION)
    return NotHad(Code.DOWN, reason)


def _encoded(term: Term) -> bytes:
    try:
        return encode_bare(term)
    except EncodeError as error:
        raise NotHad(Code.BAD_REQUEST, str(error)) from error


def answer_bytes(answer: Term, bytes_max: int) -> bytes:
    """A call's answer as the worker gets it. Raises NotHad."""
    body = _encoded(answer)
    if len(body) > bytes_max:
        raise NotHad(Code.TOO_LARGE, bytes_max)
    return body
