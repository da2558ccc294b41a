"""Node.ping, Node.connect, GenServer.call and cast, :sys, monitors and links: a real BEAM towards our node."""

from __future__ import annotations

import pytest
from conftest import OpenNode, StartBeam, needs_erlang
from services import Counter

pytestmark = [needs_erlang, pytest.mark.beam]


async def test_ping_connect_and_call(open_test_node: OpenNode, start_beam: StartBeam) -> None:
    beam = start_beam()
    async with open_test_node(services={"counter": Counter()}) as node:
        await beam.ready()
        assert await beam.evaluate(f"Node.ping(:'{node.name}')") == ":pong"
        assert await beam.evaluate(f"Node.connect(:'{node.name}')") == "true"
        assert await beam.evaluate("Node.list(:hidden)") == f'[:"{node.name}"]'
        assert await beam.evaluate("Node.list()") == "[]"
        assert (
            await beam.evaluate(f"GenServer.call({{:counter, :'{node.name}'}}, {{:add, 5}})") == "5"
        )
        assert node.connected() == [beam.name]
