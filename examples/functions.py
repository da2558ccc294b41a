"""Functions that :rpc and :erpc of other nodes may call; nothing else can be reached.

iex> :rpc.call(:"functions@127.0.0.1", Stats, :mean, [[1, 2, 6]])
3.0
iex> :erpc.call(:"functions@127.0.0.1", :stats, :median, [[5, 1, 3]])
3
iex> :rpc.call(:"functions@127.0.0.1", Stats, :mean, [[]])
{:badrpc, {:EXIT, {:empty, [{Stats, :mean, 1, []}]}}}
iex> {:badrpc, {:EXIT, {why, _stack}}} = :rpc.call(:"functions@127.0.0.1", :os, :cmd, [~c"id"]); why
:undef
"""

import statistics

import trio

from bridge.etf import Atom
from bridge.node import Exports, Raise, open_node

exports = Exports()


@exports.function("Stats")
def mean(numbers: list[float]) -> float:
    if not numbers:
        raise Raise("error", Atom("empty"))
    return statistics.fmean(numbers)


@exports.function("stats", "median")
async def slow_median(numbers: list[float]) -> float:
    await trio.sleep(0.01)  # an async function holds up nobody
    return statistics.median(numbers)


async def main() -> None:
    async with open_node("functions@127.0.0.1", exports=exports):
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main)
