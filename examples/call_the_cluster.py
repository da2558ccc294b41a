"""Python calls a BEAM and watches its processes; nobody can call this node.

iex> {:ok, _} = Agent.start(fn -> [1, 2, 3] end, name: :numbers); :started
:started
$ python examples/call_the_cluster.py me@127.0.0.1
up: True
numbers: [1, 2, 3]
nobody: noproc
sleep: no answer in 0.1 s
numbers ended: killed
"""

import sys

import trio

from bridge.etf import Atom
from bridge.node import ProcessDown, open_node


async def main(peer: str) -> None:
    async with open_node("caller@127.0.0.1", listen=False) as node:
        print("up:", await node.ping(peer))
        print("numbers:", await node.rpc(peer, "sys", "get_state", [Atom("numbers")]))
        try:
            await node.call(("nobody", peer), b"hello")
        except ProcessDown as down:
            print("nobody:", down.reason.name)
        try:
            await node.rpc(peer, "timer", "sleep", [10_000], timeout=0.1)
        except trio.TooSlowError:
            print("sleep: no answer in 0.1 s")
        watch = await node.monitor(("numbers", peer))
        node.exit(await node.rpc(peer, "erlang", "whereis", [Atom("numbers")]), Atom("kill"))
        print("numbers ended:", (await watch.wait()).reason.name)


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
