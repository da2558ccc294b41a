"""GenServers for the tests."""

from __future__ import annotations

from typing import Any

import trio

from bridge.etf import Atom, Pid
from bridge.node import NO_REPLY, GenServer, Sender, Stop
from bridge.node.signals.gen import NORMAL


class Counter(GenServer):
    """Counts; and does on request whatever a test wants to see from outside."""

    def __init__(self) -> None:
        self.state = 0
        self.messages: list[Any] = []
        self.arrived = trio.Event()
        self.release = trio.Event()
        self.entered = trio.Event()
        self.terminated_with: list[Any] = []

    async def handle_call(self, request: Any, sender: Sender) -> Any:
        match request:
            case (Atom("add"), int(amount)):
                self.state += amount
                return self.state
            case Atom("messages"):
                return list(self.messages)
            case Atom("pid"):
                return self.pid
            case (Atom("echo"), term):
                return term
            case Atom("later"):
                self.node._nursery.start_soon(self._reply_later, sender)
                return NO_REPLY
            case Atom("never"):
                return NO_REPLY
            case Atom("crash"):
                raise RuntimeError("asked to crash")
            case (Atom("stop"), reason):
                raise Stop(reason, reply=Atom("stopping"))
            case Atom("block"):
                self.entered.set()
                await self.release.wait()
                return Atom("released")
            case (Atom("link"), Pid() as pid):
                await self.link(pid)
                return Atom("linked")
            case (Atom("unlink"), Pid() as pid):
                self.unlink(pid)
                return Atom("unlinked")
            case (Atom("monitor"), target):
                return await self.monitor(target)
            case _:
                return await super().handle_call(request, sender)

    async def handle_cast(self, request: Any) -> None:
        match request:
            case (Atom("add"), int(amount)):
                self.state += amount
            case Atom("stop"):
                raise Stop(NORMAL)
            case _:
                await super().handle_cast(request)

    async def handle_info(self, message: Any) -> None:
        self.messages.append(message)
        self.arrived.set()

    async def terminate(self, reason: Any) -> None:
        self.terminated_with.append(reason)

    async def wait_message(self) -> Any:
        """The next message that handle_info took."""
        while not self.messages:
            self.arrived = trio.Event()
            await self.arrived.wait()
        return self.messages.pop(0)

    async def _reply_later(self, sender: Sender) -> None:
        await trio.lowlevel.checkpoint()
        self.reply(sender, Atom("later"))
