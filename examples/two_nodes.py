"""Two nodes in one program; each has a name, connections and processes of its own.

iex> GenServer.call({:front, :"front@127.0.0.1"}, {:ask, 20})
41
iex> Node.list(:hidden)
[:"front@127.0.0.1"]
"""

from typing import Any

import trio

from bridge.etf import Atom
from bridge.node import GenServer, Sender, open_node


class Back(GenServer):
    async def handle_call(self, request: Any, sender: Sender) -> Any:
        return 2 * request + 1


class Front(GenServer):
    async def handle_call(self, request: Any, sender: Sender) -> Any:
        match request:
            case (Atom("ask"), int(number)):
                return await self.node.call(("back", "back@127.0.0.1"), number)
            case _:
                return await super().handle_call(request, sender)


async def main() -> None:
    async with (
        open_node("back@127.0.0.1", services={"back": Back()}),
        open_node("front@127.0.0.1", services={"front": Front()}),
    ):
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main)
