"""A node that is nothing but Python: GenServers on bridge.node, which no relay answers for.

    python -m integration.bench.peers.python_echo NODE_NAME     cookie from RINGBRIDGE_COOKIE

`echo` answers {submit, echo, Bin} with {ok, Bin}, as the peers do; `target` with the pid of a new
process, which ends when it is told to; {calls_out, {Name, Node}, Callers, Milliseconds} with what
that many tasks got done that call from here, {Calls, MedianNs}.
"""

from __future__ import annotations

import sys
import time
from statistics import median
from typing import Any

import trio

from bridge.etf import Atom, Term
from bridge.node import GenServer, Sender, Stop, open_node

OK = Atom("ok")
PAYLOAD = b"0123456789abcdef"


class Target(GenServer):
    async def handle_info(self, message: Term) -> None:
        raise Stop


class Echo(GenServer):
    async def handle_call(self, request: Term, sender: Sender) -> Any:
        match request:
            case (Atom("submit"), Atom("echo"), payload):
                return (OK, payload)
            case Atom("target"):
                return await self.node.start(Target())
            case (Atom("calls_out"), (Atom() as name, Atom() as node), int(callers), int(ms)):
                return await self._call_out((name, node), callers, ms / 1000)
            case _:
                return await super().handle_call(request, sender)

    async def _call_out(self, target: tuple[Atom, Atom], callers: int, seconds: float) -> Term:
        times_ns: list[int] = []
        ends = trio.current_time() + seconds

        async def caller() -> None:
            while trio.current_time() < ends:
                begun = time.perf_counter_ns()
                await self.node.call(target, (Atom("submit"), Atom("echo"), PAYLOAD))
                times_ns.append(time.perf_counter_ns() - begun)

        async with trio.open_nursery() as nursery:
            for _ in range(callers):
                nursery.start_soon(caller)
        return (len(times_ns), int(median(times_ns)))


async def main(name: str) -> None:
    async with open_node(name, services={"echo": Echo()}):
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
