"""The process that the battery (battery.exs) is run against, in Python: subject.exs once more."""

from __future__ import annotations

import itertools
from typing import Any

import trio

from bridge.etf import Atom, Pid
from bridge.node import NO_REPLY, GenServer, Sender, Stop
from bridge.node.exports import Exports, Raise

OK, ERROR, SENT, UNBLOCKED = Atom("ok"), Atom("error"), Atom("sent"), Atom("unblocked")
_serial = itertools.count(1)


class Server(GenServer):
    trap_exit = False

    def __init__(self) -> None:
        self.total = 0
        self.messages: list[Any] = []

    def get_state(self) -> Any:
        return {Atom("messages"): self.messages, Atom("state"): self.total}

    async def handle_call(self, request: Any, sender: Sender) -> Any:
        match request:
            case Atom("pid"):
                return self.pid
            case (Atom("echo"), term):
                return term
            case (Atom("start"), list(options)):
                return await self.start_another(dict(options))
            case (Atom("add"), int(amount)):
                self.total += amount
                return self.total
            case Atom("never"):
                return NO_REPLY
            case (Atom("later"), int(ms), reply):
                self.node._nursery.start_soon(self.reply_later, ms / 1000, sender, reply)
                return NO_REPLY
            case (Atom("twice"), first, second):
                self.node._nursery.start_soon(self.reply_later, 0.03, sender, second)
                return first
            case (Atom("block"), int(ms)):
                await trio.sleep(ms / 1000)
                return UNBLOCKED
            case (Atom("stop"), reason, reply):
                raise Stop(reason, reply=reply)
            case (Atom("stop"), reason):
                raise Stop(reason)
            case (Atom("link"), Pid() as pid):
                await self.link(pid)
                return True
            case (Atom("unlink"), Pid() as pid):
                self.unlink(pid)
                return True
            case (Atom("monitor"), target):
                return await self.monitor(target)
            case (Atom("demonitor"), ref):
                self.demonitor(ref)
                return True
            case (Atom("exit"), Pid() as pid, reason):
                self.node.exit(pid, reason)
                return True
            case (Atom("send"), to, list(messages)):
                for message in messages:
                    self.node.send_nowait(to, message)
                return SENT
            case (Atom("send_and_stop"), to, message, reason):
                self.node.send_nowait(to, message)
                raise Stop(reason)
            case Atom("messages"):
                messages, self.messages = self.messages, []
                return messages
            case _:
                return await super().handle_call(request, sender)

    async def handle_cast(self, request: Any) -> None:
        match request:
            case (Atom("add"), int(amount)):
                self.total += amount
            case (Atom("stop"), reason):
                raise Stop(reason)
            case _:
                await super().handle_cast(request)

    async def handle_info(self, message: Any) -> None:
        self.messages.append(message)

    async def start_another(self, options: dict[Any, Any]) -> Any:
        name = str(options.get(Atom("name"), f"unnamed{next(_serial)}"))
        if taken := self.node.whereis(name):
            return (ERROR, (Atom("already_started"), taken))
        server = Trapping() if options.get(Atom("trap_exit")) else Server()
        return (OK, await self.node.start(server, name=name))

    async def reply_later(self, seconds: float, sender: Sender, reply: Any) -> None:
        await trio.sleep(seconds)
        self.reply(sender, reply)


class Trapping(Server):
    trap_exit = True


# Behaviour.Functions of subject.exs.
EXPORTS = Exports()


@EXPORTS.function("Behaviour.Functions")
def add(a: Any, b: Any) -> Any:
    return a + b


@EXPORTS.function("Behaviour.Functions")
def echo(term: Any) -> Any:
    return term


@EXPORTS.function("Behaviour.Functions")
def a_throw(term: Any) -> Any:
    raise Raise("throw", term)


@EXPORTS.function("Behaviour.Functions")
def an_exit(reason: Any) -> Any:
    raise Raise("exit", reason)


@EXPORTS.function("Behaviour.Functions")
def an_error(reason: Any) -> Any:
    raise Raise("error", reason)


@EXPORTS.function("Behaviour.Functions")
async def sleep(ms: Any) -> Any:
    await trio.sleep(ms / 1000)
    return Atom("slept")


@EXPORTS.process("Behaviour.Functions")
async def tell(me: Any, pid: Any, message: Any) -> Any:
    me.send(pid, message)
    return message
