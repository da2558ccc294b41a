"""A supervisor starts a crashed child again; Elixir looks at the tree with its own functions.

iex> fragile = {:fragile, :"supervised@127.0.0.1"}; GenServer.call(fragile, :increment)
1
iex> GenServer.call(fragile, :increment)
2
iex> try do GenServer.call(fragile, :crash) catch :exit, {reason, _call} -> reason end
{:exception, "ZeroDivisionError", "division by zero"}
iex> Process.sleep(100); GenServer.call(fragile, :increment)
1
iex> Supervisor.count_children({:top, :"supervised@127.0.0.1"}) |> Enum.sort()
[active: 2, specs: 2, supervisors: 0, workers: 2]
"""

from typing import Any

import trio

from bridge.etf import Atom
from bridge.node import ChildSpec, GenServer, Sender, Supervisor, open_node


class Fragile(GenServer):
    def __init__(self) -> None:
        self.state = 0

    async def handle_call(self, request: Any, sender: Sender) -> Any:
        match request:
            case Atom("increment"):
                self.state += 1
                return self.state
            case Atom("crash"):
                return 1 / 0
            case _:
                return await super().handle_call(request, sender)


class Top(Supervisor):
    children = (
        ChildSpec.server("fragile", Fragile, name="fragile"),
        ChildSpec.server("other", Fragile, name="other"),
    )
    strategy = "one_for_one"


async def main() -> None:
    async with open_node("supervised@127.0.0.1", services={"top": Top()}):
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main)
