"""Dynamic names with real BEAMs: we name them, they name us, and two of ours."""

from __future__ import annotations

import re

import pytest
import trio
from node_support import OpenNode, needs_erlang
from services import Counter
from structlog.testing import capture_logs

from bridge.etf import Atom
from bridge.node import EpmdClient, NoConnection, Policy, open_node
from bridge.testing import COOKIE, HOST, Beam, EpmdDaemon

pytestmark = [needs_erlang, pytest.mark.beam]


@pytest.fixture
def client(epmd: EpmdDaemon) -> EpmdClient:
    return EpmdClient(port=epmd.port, if_absent="fail")


@pytest.mark.parametrize("name", [None, f"undefined@{HOST}"])
async def test_a_beam_names_us_and_calls_us_by_that_name(
    beam: Beam, client: EpmdClient, name: str | None
) -> None:
    async with open_node(
        name,
        via=beam.name,
        services={"counter": Counter()},
        epmd=client,
        cookie=COOKIE,
    ) as node:
        assert re.fullmatch(rf"[0-9A-Z]+@{HOST}", node.name)
        assert node.connected() == [beam.name]
        assert await node.ping(beam.name)
        call = f"GenServer.call({{:counter, :'{node.name}'}}, {{:add, 2}})"
        assert await beam.evaluate(call) == "2"
        assert f':"{node.name}"' in await beam.evaluate("Node.list(:hidden)")
        await beam.evaluate(f"Node.monitor(:'{node.name}', true)")
        assert node.name.partition("@")[0] not in await client.names()
    heard = await beam.evaluate("receive do {:nodedown, n} -> to_string(n) after 5000 -> :no end")
    assert heard == f'"{node.name}"'


async def test_the_name_ends_with_the_connection_to_who_gave_it(
    beam: Beam, client: EpmdClient, open_test_node: OpenNode
) -> None:
    async with (
        open_test_node() as other,
        open_node(None, via=beam.name, cookie=COOKIE, epmd=client) as node,
    ):
        await node.connect(other.name)
        await beam.evaluate(f"Node.disconnect(:'{node.name}')")
        with trio.fail_after(60):
            while node.connected() or other.connected():
                await trio.lowlevel.checkpoint()
        with pytest.raises(NoConnection, match="gave this node its name"):
            await node.connect(other.name)


async def test_a_namer_that_is_not_there_and_a_name_without_one_are_said(
    client: EpmdClient,
) -> None:
    with pytest.raises(NoConnection, match="no node of that name"):
        async with open_node(None, via=f"nobody@{HOST}", cookie=COOKIE, epmd=client):
            pass
    with pytest.raises(ValueError, match="needs via="):
        async with open_node(None, cookie=COOKIE, epmd=client):
            pass
    with pytest.raises(ValueError, match="without a name"):
        async with open_node(f"named@{HOST}", via=f"x@{HOST}", cookie=COOKIE, epmd=client):
            pass


async def test_we_name_a_beam(epmd: EpmdDaemon, open_test_node: OpenNode) -> None:
    asker = Beam("undefined", epmd.port, arguments="-dist_listen false")
    try:
        await asker.ready()
        async with open_test_node(services={"counter": Counter()}) as node:
            assert await asker.evaluate(f"Node.connect(:'{node.name}')") == "true"
            name = (await asker.evaluate("to_string(node())")).strip('"')
            assert re.fullmatch(rf"[0-9A-Z]+@{HOST}", name)
            assert node.connected() == [name]
            call = f"GenServer.call({{:counter, :'{node.name}'}}, {{:add, 3}})"
            assert await asker.evaluate(call) == "3"
            await asker.evaluate("Process.register(self(), :driver)")
            await node.send(("driver", name), Atom("hello"))
            assert await asker.evaluate("receive do m -> m after 5000 -> :no end") == ":hello"
    finally:
        asker.close()


async def test_two_of_our_nodes_name_each_other(
    open_test_node: OpenNode, client: EpmdClient
) -> None:
    async with (
        open_test_node(services={"counter": Counter()}) as namer,
        open_node(None, via=namer.name, cookie=COOKIE, epmd=client) as first,
        open_node(None, via=namer.name, cookie=COOKIE, epmd=client) as second,
    ):
        assert len({namer.name, first.name, second.name}) == 3
        assert first.creation != second.creation
        assert await first.call(("counter", namer.name), (Atom("add"), 1)) == 1
        assert await second.call(("counter", namer.name), (Atom("add"), 1)) == 2


async def test_the_policy_is_asked_with_the_name_that_is_given_and_may_give_none(
    open_test_node: OpenNode, client: EpmdClient
) -> None:
    asked: list[str] = []

    def allow(name: str, address: str) -> bool:
        asked.append(name)
        return False

    for policy in (Policy(allow=allow), Policy(give_names=False)):
        async with open_test_node(policy=policy) as namer:
            with capture_logs() as logs, pytest.raises(NoConnection, match="not_allowed"):
                async with open_node(None, via=namer.name, cookie=COOKIE, epmd=client):
                    pass
            assert sum(line["event"] == "peer refused" for line in logs) == 1
    [name] = asked
    assert re.fullmatch(rf"[0-9A-Z]+@{HOST}", name)
