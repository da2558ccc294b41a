"""A router without a node: what it sends to a peer is a list, its processes write down what they
get.
"""

from __future__ import annotations

from typing import Any

from bridge.dist import control as c
from bridge.etf import Atom, Pid, Reference
from bridge.node import Policy
from bridge.node.signals.ids import Ids
from bridge.node.signals.router import Router
from bridge.node.signals.table import Process

US, PEER = "us@h", "you@h"
CREATION = 7
YOU = Pid(Atom(PEER), 2, 3, 4)


def ref(number: int) -> Reference:
    """A reference of the peer's."""
    return Reference(Atom(PEER), 4, (number, 0, 0))


class Box:
    """An inbox that remembers."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.urgent: list[Any] = []
        self.signals: list[Any] = []
        self.stopped: list[Any] = []

    def deliver(self, message: Any) -> None:
        self.messages.append(message)

    def deliver_urgent(self, message: Any) -> None:
        self.urgent.append(message)

    def deliver_signal(self, message: Any, *, urgent: bool = False) -> None:
        (self.urgent if urgent else self.signals).append(message)

    def stop(self, reason: Any) -> None:
        self.stopped.append(reason)


class World:
    """A router connected with PEER (or not), and what it sent there: (message, payload) in
    order.
    """

    def __init__(self, policy: Policy | None = None) -> None:
        self.connected = True
        self.sent: list[tuple[c.ControlMessage, Any]] = []
        self.router = Router(Ids(US, CREATION), self._emit, policy=policy)

    def _emit(self, node: str, message: c.ControlMessage, payload: Any) -> bool:
        if node != PEER or not self.connected:
            return False
        self.sent.append((message, payload))
        return True

    def spawn(self, *names: str, trap_exit: bool = False) -> tuple[Process, Box]:
        box = Box()
        return self.router.spawn(box, names=map(Atom, names), trap_exit=trap_exit), box

    def receive(self, message: c.ControlMessage, payload: Any = None, origin: str = PEER) -> None:
        self.router.receive(origin, message, lambda: payload)

    def take_sent(self) -> list[c.ControlMessage]:
        sent = [message for message, _ in self.sent]
        self.sent.clear()
        return sent
