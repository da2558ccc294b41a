"""Ten thousand processes of a BEAM are linked with one of ours and watch it: each hears both ends.

How long it takes is `make bench`'s business.
"""

from __future__ import annotations

import pytest
from node_support import OpenNode, needs_erlang
from services import Counter

from bridge.testing import Beam

pytestmark = [needs_erlang, pytest.mark.beam]

HOLD = """
parent = self()
watch = fn ->
  Process.flag(:trap_exit, true)
  Process.link(p)
  ref = Process.monitor(p)
  send(parent, :held)
  receive do: ({:EXIT, ^p, reason} -> send(parent, {:exit, reason}))
  receive do: ({:DOWN, ^ref, :process, ^p, reason} -> send(parent, {:down, reason}))
end
for _ <- 1..10_000, do: spawn(watch)
for _ <- 1..10_000, do: (receive do: (:held -> :ok))
GenServer.call(p, {:add, 0})
"""
COUNT = """
for _ <- 1..20_000, reduce: %{} do
  counts ->
    key = receive do: ({kind, reason} when kind in [:exit, :down] -> {kind, reason}),
                  after: (5_000 -> :missing)
    Map.update(counts, key, 1, & &1 + 1)
end
"""


async def test_ten_thousand_links_and_monitors_all_hear_of_the_end(
    beam: Beam, open_test_node: OpenNode
) -> None:
    async with open_test_node(services={"counter": Counter()}) as node:
        await beam.evaluate(f"p = GenServer.call({{:counter, :'{node.name}'}}, :pid)")
        await beam.evaluate(HOLD)
        assert node.statistics().monitors_on_us >= 10_000
        assert await beam.evaluate("GenServer.call(p, {:stop, :done})") == ":stopping"
        assert await beam.evaluate(COUNT) == "%{{:down, :done} => 10000, {:exit, :done} => 10000}"
        assert node.statistics().monitors_on_us == 0


async def test_ten_thousand_ends_are_heard_when_the_connection_is_lost(
    beam: Beam, open_test_node: OpenNode
) -> None:
    async with open_test_node(services={"counter": Counter()}) as node:
        await beam.evaluate(f"p = GenServer.call({{:counter, :'{node.name}'}}, :pid)")
        await beam.evaluate(HOLD)
        assert node.disconnect(beam.name)
        counts = await beam.evaluate(COUNT)
        assert counts == "%{{:down, :noconnection} => 10000, {:exit, :noconnection} => 10000}"
        assert node.statistics().monitors_on_us == 0
