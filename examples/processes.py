"""A process for each request, and selective receive.

The porter starts a process for every visitor. That one waits for a `:knock`, whatever else lies in
its mailbox, and for two seconds at most.

iex> send({:porter, :"porter@127.0.0.1"}, {:visit, self()}); :ok
:ok
iex> visit = receive do {:visit, pid} -> pid end; is_pid(visit)
true
iex> Process.monitor(visit); send(visit, :first); send(visit, {:knock, "hello"}); :ok
:ok
iex> receive do {:opened, text, others} -> {text, others} end
{"hello", [:first]}
iex> receive do {:DOWN, _ref, :process, ^visit, reason} -> reason end
:normal
"""

from contextlib import suppress

import trio

from bridge.etf import Atom, Pid
from bridge.node import ProcessHandle, open_node

PATIENCE_S = 2


async def visit(me: ProcessHandle, visitor: Pid) -> None:
    me.send(visitor, (Atom("visit"), me.pid))
    _, text = await me.receive((Atom("knock"), bytes), timeout=PATIENCE_S)
    others: list[object] = []
    with suppress(trio.TooSlowError):
        while True:
            others.append(await me.receive(timeout=0))
    me.send(visitor, (Atom("opened"), text, others))


async def porter(me: ProcessHandle) -> None:
    while True:
        _, visitor = await me.receive((Atom("visit"), Pid))
        await me.node.spawn(visit, visitor)


async def main() -> None:
    async with open_node("porter@127.0.0.1") as node:
        await node.spawn(porter, name="porter")
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main)
