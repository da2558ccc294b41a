"""A GenServer that Elixir calls.

iex> counter = {:counter, :"counter@127.0.0.1"}
{:counter, :"counter@127.0.0.1"}
iex> GenServer.call(counter, {:add, 5})
5
iex> GenServer.cast(counter, {:add, 10})
:ok
iex> :sys.get_state(counter)
15
"""

from typing import Any

import trio

from bridge.etf import Atom
from bridge.node import GenServer, Sender, open_node


class Counter(GenServer):
    def __init__(self) -> None:
        self.state = 0  # what :sys.get_state shows

    async def handle_call(self, request: Any, sender: Sender) -> Any:
        match request:
            case (Atom("add"), int(amount)):
                self.state += amount
                return self.state
            case _:
                return await super().handle_call(request, sender)

    async def handle_cast(self, request: Any) -> None:
        match request:
            case (Atom("add"), int(amount)):
                self.state += amount
            case _:
                await super().handle_cast(request)


async def main() -> None:
    async with open_node("counter@127.0.0.1", services={"counter": Counter()}):
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main)
