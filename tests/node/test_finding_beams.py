"""BEAMs and we find each other: our own epmd, no epmd, IPv6, short names, a table of places."""

from __future__ import annotations

import socket
from contextlib import AbstractAsyncContextManager, aclosing

import pytest
import trio
from node_support import OpenNode, needs_erlang
from services import Counter

from bridge.node import EpmdClient, NoConnection, Node, OnePort, open_node
from bridge.testing import COOKIE, HOST, Beam, EpmdDaemon

pytestmark = [needs_erlang, pytest.mark.beam]


def free_port(host: str = HOST) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


async def otp() -> int:
    """The release of the BEAM on PATH."""
    code = 'io:format("~s", [erlang:system_info(otp_release)]), halt().'
    done = await trio.run_process(["erl", "-noshell", "-eval", code], capture_stdout=True)
    return int(done.stdout)


async def both_ways(node: Node, beam: Beam) -> None:
    """The BEAM calls us over a connection that it makes, then we it over one that we make."""
    ask = f"GenServer.call({{:counter, :'{node.name}'}}, {{:add, 1}})"
    assert int(await beam.evaluate(ask)) > 0
    assert node.disconnect(beam.name)
    assert await node.ping(beam.name)


async def test_a_beam_registers_at_our_own_epmd_and_again_at_the_next_one() -> None:
    port = free_port()
    beam: Beam | None = None

    def our_node(alive: str) -> AbstractAsyncContextManager[Node]:
        client = EpmdClient(port=port, if_absent="own", environ={})
        counter = {"counter": Counter()}
        return open_node(f"{alive}@{HOST}", cookie=COOKIE, epmd=client, services=counter)

    try:
        async with our_node("ownfirst") as node:
            beam = await Beam("atours", port).ready()
            assert set(await EpmdClient(port=port).names()) == {"ownfirst", "atours"}
            await both_ways(node, beam)
            listed = await beam.evaluate(":net_adm.names()")
            assert listed.startswith("{:ok,")
            assert "ownfirst" in listed
        async with our_node("ownsecond") as node:
            with trio.fail_after(60):  # erl_epmd tries every 2 s
                while await EpmdClient(port=port).lookup("atours", HOST) is None:
                    await trio.lowlevel.checkpoint()
            await both_ways(node, beam)
    finally:
        if beam is not None:
            beam.close()


@pytest.mark.parametrize("how", ["-erl_epmd_port", "-kernel erl_epmd_node_listen_port"])
async def test_one_port_for_all_and_no_epmd(how: str) -> None:
    if "kernel" in how and await otp() < 27:
        pytest.skip("the kernel's erl_epmd_node_listen_port came with OTP 27")
    port = free_port()
    other = "127.0.0.2"  # one port on each address
    beam = Beam(
        "noepmd",
        free_port(),  # nobody is there
        arguments=f"{how} {port} -start_epmd false",
        host=other,
        interface="{127,0,0,2}",
    )
    try:
        await beam.ready()
        async with open_node(
            f"pynoepmd@{HOST}",
            cookie=COOKIE,
            register=False,
            listen_port=port,
            resolver=OnePort(port),
            services={"counter": Counter()},
        ) as node:
            await both_ways(node, beam)
    finally:
        beam.close()


async def test_a_table_says_where_a_node_listens_whatever_its_name_says(
    epmd: EpmdDaemon, beam: Beam
) -> None:
    beam_port = (await EpmdClient(port=epmd.port).names())[beam.name.partition("@")[0]]
    forwarder = await trio.open_tcp_listeners(0, host="::1")
    port = forwarder[0].socket.getsockname()[1]
    nobody = EpmdClient(port=free_port(), if_absent="fail")

    async def forward(stream: trio.SocketStream) -> None:
        onward = await trio.open_tcp_stream(HOST, beam_port)
        async with stream, onward, trio.open_nursery() as copying:
            copying.start_soon(_copy, stream, onward)
            copying.start_soon(_copy, onward, stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, forward, forwarder)
        async with open_node(
            f"pytable@{HOST}",
            cookie=COOKIE,
            listen=False,
            epmd=nobody,
            peers={"*@nowhere": 1, beam.name: f"[::1]:{port}"},
        ) as node:
            assert await node.ping(beam.name)
            with pytest.raises(NoConnection, match="no epmd at"):
                await node.connect(f"stranger@{HOST}")
        nursery.cancel_scope.cancel()


async def _copy(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    try:
        async with aclosing(source):
            async for data in source:
                await sink.send_all(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


async def test_ipv6_both_ways() -> None:
    server = EpmdDaemon(host=None)
    beam = Beam(
        "six",
        server.port,
        host="::1",
        interface="{0,0,0,0,0,0,0,1}",
        arguments="-proto_dist inet6_tcp",
    )
    try:
        await beam.ready()
        async with open_node(
            "pysix@::1",
            cookie=COOKIE,
            epmd=EpmdClient(port=server.port, host="::1", if_absent="fail"),
            services={"counter": Counter()},
        ) as node:
            await both_ways(node, beam)
            tables = await beam.evaluate("Node.list(:connected)")
            assert "pysix@::1" in tables
    finally:
        beam.close()
        server.close()


async def test_short_names_meet_short_names(epmd: EpmdDaemon, open_test_node: OpenNode) -> None:
    beam = Beam("shorty", epmd.port, host="localhost")
    try:
        await beam.ready()
        async with open_node(
            "pyshort@localhost",
            cookie=COOKIE,
            epmd=EpmdClient(port=epmd.port, if_absent="fail"),
            services={"counter": Counter()},
        ) as node:
            await both_ways(node, beam)
    finally:
        beam.close()


async def test_whom_a_beam_does_not_dial_for_its_name_we_do_not_dial_either(
    epmd: EpmdDaemon, beam: Beam, open_test_node: OpenNode
) -> None:
    """The BEAM refuses before it asks epmd; so do we, and say why."""
    short = Beam("styled", epmd.port, host="localhost")
    client = EpmdClient(port=epmd.port, if_absent="fail")
    try:
        await short.ready()
        async with (
            open_test_node() as long_node,
            open_node("pystyled@localhost", cookie=COOKIE, epmd=client) as short_node,
        ):
            assert await short.evaluate(f"Node.connect(:'{long_node.name}')") == "false"
            assert await beam.evaluate(f"Node.connect(:'{short_node.name}')") == "false"
            with pytest.raises(NoConnection, match=r"short name.*long one"):
                await short_node.connect(beam.name)
            with pytest.raises(NoConnection, match=r"long name.*short one"):
                await long_node.connect(short.name)
            # Who is dialled takes either, as a BEAM does; our check stands only where we dial.
            assert short_node.connected() == long_node.connected() == []
    finally:
        short.close()
