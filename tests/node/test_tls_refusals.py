"""What TLS refuses, at a real BEAM's call or at ours: one line in the log each time, with rule,
value and way out (docs/tls.md, "What the log says").
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import trio
from node_support import OpenNode, StartBeam, needs_erlang, needs_relay
from services import Counter
from structlog.testing import capture_logs
from tls_support import Authority, make_certificates

from bridge.node import EpmdClient, NoConnection, Policy
from bridge.testing import HOST, EpmdDaemon

pytestmark = [needs_erlang, needs_relay, pytest.mark.beam]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def the_line(logs: list[Any]) -> Any:
    [line] = [entry for entry in logs if entry["log_level"] != "info"]
    return line


WHO_DIALS_US = [
    # the BEAM's certificate and CA, our settings, words of the rule
    pytest.param(
        {"name": "expired"},
        {},
        "the peer's certificate CN = expired has expired: it was valid until 20",
        id="expired",
    ),
    pytest.param(
        {"name": "stranger"},
        {},
        "our ca did not sign the peer's certificate CN = stranger",
        id="another CA",
    ),
    pytest.param({"name": None}, {}, "must show a certificate and the peer has none", id="none"),
    pytest.param(
        {"name": "elsewhere"},
        {"verify": "mutual_host"},
        f"CN = elsewhere names DNS:elsewhere.example, not {HOST}",
        id="another host",
    ),
    pytest.param({"ca": "stranger-ca"}, {}, "the peer does not accept our certificate", id="ours"),
]


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize(("shown", "settings", "words"), WHO_DIALS_US)
async def test_a_beam_that_dials_us_with_a_bad_certificate(
    authority: Authority,
    start_beam: StartBeam,
    open_tls_node: OpenNode,
    version: str,
    shown: dict[str, Any],
    settings: dict[str, Any],
    words: str,
) -> None:
    optfile = authority.optfile(**shown, version=version)
    beam = await start_beam(arguments=f"-proto_dist inet_tls -ssl_dist_optfile {optfile}").ready()
    async with open_tls_node(tls=authority.config(**settings)) as node:
        with capture_logs() as logs:
            assert await beam.evaluate(f"Node.connect(:'{node.name}')") == "false"
            while node.statistics().unauthenticated:
                await trio.lowlevel.checkpoint()
        line = the_line(logs)
        assert line["event"] == "peer refused"
        assert line["address"] == HOST
        assert words in line["rule"]


WHOM_WE_DIAL = [
    pytest.param({"name": "expired"}, {}, "CN = expired has expired", id="expired"),
    pytest.param({"name": "stranger"}, {}, "our ca did not sign the peer's", id="another CA"),
    pytest.param(
        {"name": "elsewhere"}, {}, f"names DNS:elsewhere.example, not {HOST}", id="another host"
    ),
    pytest.param({}, {"cert": None, "key": None}, "certificate", id="none of ours"),
    pytest.param({}, {"versions": ("1.3",)}, "no TLS version is common", id="version"),
]


@pytest.mark.parametrize(("shown", "settings", "words"), WHOM_WE_DIAL)
async def test_we_dial_a_beam_with_a_bad_certificate(
    authority: Authority,
    start_beam: StartBeam,
    open_tls_node: OpenNode,
    shown: dict[str, Any],
    settings: dict[str, Any],
    words: str,
) -> None:
    beam = await start_beam(arguments=authority.beam(**shown, version="1.2")).ready()
    async with open_tls_node(tls=authority.config(**settings), listen=False) as node:
        with capture_logs() as logs, pytest.raises(NoConnection, match=words):
            await node.call(("nobody", beam.name), 1)
        line = the_line(logs)
        assert (line["event"], line["peer"]) == ("dial failed", beam.name)
        assert words in line["rule"]


async def test_a_plain_beam_and_a_tls_node(
    authority: Authority, start_beam: StartBeam, open_tls_node: OpenNode
) -> None:
    plain = await start_beam().ready()
    async with open_tls_node(
        tls=authority.config(), policy=Policy(handshake_timeout_s=1.0)
    ) as node:
        with capture_logs() as logs:
            assert await plain.evaluate(f"Node.connect(:'{node.name}')") == "false"
        assert "this node speaks TLS and the peer does not" in the_line(logs)["rule"]
        assert "-proto_dist inet_tls" in the_line(logs)["rule"]
        with capture_logs() as logs, pytest.raises(NoConnection, match="may be a plain node"):
            await node.call(("nobody", plain.name), 1)
        assert "may be a plain node" in the_line(logs)["rule"]


async def test_a_tls_beam_and_a_plain_node(
    authority: Authority, start_beam: StartBeam, open_tls_node: OpenNode
) -> None:
    beam = await start_beam(arguments=authority.beam()).ready()
    async with open_tls_node(policy=Policy(handshake_timeout_s=2.0)) as node:
        with capture_logs() as logs:
            assert await beam.evaluate(f"Node.connect(:'{node.name}')") == "false"
        assert "the peer speaks TLS and this node does not" in the_line(logs)["rule"]
        with capture_logs() as logs, pytest.raises(NoConnection):
            await node.call(("nobody", beam.name), 1)
        assert "the peer" in the_line(logs)["rule"]


async def test_unauthenticated_tls_peers_are_bounded_and_leave_nothing(
    authority: Authority, epmd: EpmdDaemon, open_tls_node: OpenNode
) -> None:
    """Silent, half a ClientHello, garbage: each has its time, then its descriptors are free."""
    policy = Policy(unauthenticated_max=12, handshake_timeout_s=0.5)
    async with open_tls_node(
        services={"counter": Counter()}, tls=authority.config(), policy=policy
    ) as node:
        port = await EpmdClient(port=epmd.port).lookup(node.name.partition("@")[0], HOST)
        assert port is not None
        before = len(os.listdir("/proc/self/fd"))
        with capture_logs() as logs:
            streams = [await trio.open_tcp_stream(HOST, port) for _ in range(20)]
            for number, stream in enumerate(streams):
                if number % 3 == 1:
                    await stream.send_all(b"\x16\x03\x01\x02\x00\x01")
            while len(logs) < 20:
                await trio.lowlevel.checkpoint()
        rules = [line["rule"] for line in logs]
        assert sum("may be unauthenticated" in rule for rule in rules) == 8
        assert sum("the TLS handshake was not over" in rule for rule in rules) == 12
        while node.statistics().unauthenticated:
            await trio.lowlevel.checkpoint()
        for stream in streams:
            await stream.aclose()
        with trio.fail_after(60):
            while len(os.listdir("/proc/self/fd")) != before:
                await trio.lowlevel.checkpoint()  # its deadline is a second; nobody tells us
