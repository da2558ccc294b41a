"""TLS distribution against real BEAMs started with -proto_dist inet_tls: both directions, both
versions, what goes over it, and certificates that change (docs/tls.md).
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
import trio
from node_support import OpenNode, StartBeam, needs_erlang, needs_relay
from services import Counter
from structlog.testing import capture_logs
from tls_support import ROOT, Authority, make_certificates

from bridge.etf import Atom
from bridge.node import TlsConfig, TlsError, open_node
from bridge.testing import Beam

pytestmark = [needs_erlang, needs_relay, pytest.mark.beam]
VERSIONS = ["1.2", "1.3"]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


async def calls_both_ways(beam: Beam, name: str) -> None:
    add = f"GenServer.call({{:counter, :'{name}'}}, {{:add, 1}})"
    assert await beam.evaluate(add) == "1"
    large = f"""
    blob = :binary.copy(<<1, 2, 3, 4>>, 500_000)
    GenServer.call({{:counter, :'{name}'}}, {{:echo, blob}}) == blob
    """
    assert await beam.evaluate(large) == "true"


class Echo(Counter):
    async def handle_call(self, request: object, sender: object) -> object:
        match request:
            case (Atom("echo"), payload):
                return payload
        return await super().handle_call(request, sender)  # type: ignore[arg-type]


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_beam_dials_us(
    authority: Authority, start_beam: StartBeam, open_tls_node: OpenNode, version: str
) -> None:
    beam = await start_beam(arguments=authority.beam(version=version)).ready()
    with capture_logs() as logs:
        async with open_tls_node(services={"counter": Echo()}, tls=authority.config()) as node:
            assert await beam.evaluate(f"Node.connect(:'{node.name}')") == "true"
            await calls_both_ways(beam, node.name)
            [up] = [line for line in logs if line["event"] == "connection up"]
            assert up["tls"].startswith(f"TLSv{version} ")
            assert await node.ping(beam.name)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("verify", ["mutual", "mutual_host", "server", "none"])
async def test_we_dial_a_beam(
    authority: Authority,
    start_beam: StartBeam,
    open_tls_node: OpenNode,
    version: str,
    verify: str,
) -> None:
    beam = await start_beam(arguments=authority.beam(version=version)).ready()
    await beam.evaluate("Process.register(self(), :shell)")
    tls = authority.config(verify=verify, ca=authority.folder / "ca.pem")
    async with open_tls_node(services={"counter": Echo()}, tls=tls) as node:
        assert await node.ping(beam.name)
        await node.send(("shell", beam.name), b"x" * 3_000_000)
        assert await beam.evaluate("receive do blob -> byte_size(blob) end") == "3000000"
        await calls_both_ways(beam, node.name)


@pytest.mark.parametrize("version", VERSIONS)
async def test_we_dial_ourselves(
    authority: Authority, open_tls_node: OpenNode, version: str
) -> None:
    one, other = authority.config(), authority.config("app", versions=(version,))
    async with (
        open_tls_node(services={"counter": Echo()}, tls=one) as served,
        open_tls_node(tls=other) as caller,
    ):
        blob = os.urandom(2_000_000)
        answer = await caller.call(("counter", served.name), (Atom("echo"), blob))
        assert answer == blob


async def test_keys_change_in_the_middle(
    authority: Authority, start_beam: StartBeam, open_tls_node: OpenNode
) -> None:
    """OTP sends a TLS 1.3 KeyUpdate after so many bytes; every other one of ours is asked for."""
    arguments = authority.beam(version="1.3", more="{key_update_at,100000}")
    beam = await start_beam(arguments=arguments).ready()
    async with open_tls_node(services={"counter": Echo()}, tls=authority.config()) as node:
        for_all = f"""
        blobs = for n <- 1..40, do: :binary.copy(<<n>>, 90_000)
        blobs |> Task.async_stream(fn blob ->
          GenServer.call({{:counter, :'{node.name}'}}, {{:echo, blob}}) == blob
        end) |> Enum.all?(&(&1 == {{:ok, true}}))
        """
        assert await beam.evaluate(for_all) == "true"


async def test_a_beam_that_sends_no_client_certificate_may_come_where_none_is_demanded(
    authority: Authority, start_beam: StartBeam, open_tls_node: OpenNode
) -> None:
    optfile = authority.optfile(None)
    arguments = f"-proto_dist inet_tls -ssl_dist_optfile {optfile}"
    beam = await start_beam(arguments=arguments).ready()
    tls = authority.config(verify="server")
    async with open_tls_node(services={"counter": Echo()}, tls=tls) as node:
        await calls_both_ways(beam, node.name)


def replace(folder: Path, name: str, by: str) -> None:
    """As a renewal does: new files beside the old ones, then a rename."""
    for kind in ("pem", "key"):
        copy = folder / f"{name}.{kind}.new"
        shutil.copy(folder / f"{by}.{kind}", copy)
        copy.rename(folder / f"{name}.{kind}")


async def test_certificates_that_change_are_read_again_and_connections_go_on(
    tmp_path: Path, start_beam: StartBeam, open_tls_node: OpenNode
) -> None:
    own = make_certificates(tmp_path)
    first = await start_beam(arguments=own.beam()).ready()
    second = await start_beam(arguments=own.beam()).ready()
    replace(tmp_path, "ours", "node")
    ping = "Node.ping(:'%s')"
    async with open_tls_node(services={"counter": Echo()}, tls=own.config("ours")) as node:
        assert await first.evaluate(ping % node.name) == ":pong"
        with capture_logs() as logs:
            replace(tmp_path, "ours", "stranger")
            assert await second.evaluate(ping % node.name) == ":pang"  # no CA of its own signed it
            replace(tmp_path, "ours", "app")
            assert await second.evaluate(ping % node.name) == ":pong"
        reloads = [line for line in logs if line["event"] == "certificates reloaded"]
        assert [line["subject"] for line in reloads] == ["CN = stranger", "CN = app"]
        with capture_logs() as logs:
            (tmp_path / "ours.key").write_text("no key")
            third = await start_beam(arguments=own.beam()).ready()
            assert await third.evaluate(ping % node.name) == ":pong"  # by the old ones
        [line] = [line for line in logs if line["log_level"] == "error"]
        assert line["event"] == "certificates not reloaded, the old ones stay in force"
        assert f"key: {tmp_path / 'ours.key'} holds no key" in line["rule"]
        assert await first.evaluate("Node.list(:connected)") == f'[:"{node.name}"]'
        await calls_both_ways(first, node.name)


async def test_the_certificates_of_the_page_do(tmp_path: Path, open_tls_node: OpenNode) -> None:
    """docs/tls.md: its commands run as they stand there, and its settings connect two nodes."""
    page = (ROOT / "docs/tls.md").read_text()
    commands = re.search(r"```sh\n(.*?)```", page, re.DOTALL)
    settings = re.search(r"^tls = TlsConfig\((.*)\)$", page, re.MULTILINE)
    assert commands
    assert settings
    shell = ["bash", "-euo", "pipefail", "-c", commands[1]]
    await trio.run_process(shell, cwd=tmp_path, capture_stderr=True)
    files = dict(re.findall(r'(\w+)="(.*?)"', settings[1]))
    tls = TlsConfig(**{key: tmp_path / name for key, name in files.items()}, verify="mutual_host")
    async with open_tls_node(tls=tls) as one, open_tls_node(tls=tls) as other:
        assert await one.ping(other.name)


async def test_files_that_cannot_be_used_are_named_at_the_start(authority: Authority) -> None:
    with pytest.raises(TlsError, match=r"cert: .*absent\.pem .*No such file"):
        async with open_node("never@127.0.0.1", tls=authority.config("absent"), cookie="x"):
            pass


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cert": "c"}, 'verify = "mutual" needs a ca'),
        ({"cert": "c", "verify": "always"}, "verify is one of none, server, mutual, mutual_host"),
        ({"cert": "c", "ca": "c", "versions": ("1.1",)}, r"1\.2 and 1\.3, not \('1\.1',\)"),
        ({"cert": "c", "ca": "c", "versions": ()}, r"1\.2 and 1\.3"),
        ({"key": "c", "ca": "c"}, "a key needs its cert"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TlsConfig(**settings)  # type: ignore[arg-type]


async def test_who_listens_needs_a_certificate() -> None:
    with pytest.raises(ValueError, match="needs a cert"):
        async with open_node("never@127.0.0.1", tls=TlsConfig(ca="ca.pem"), cookie="x"):
            pass


async def test_many_connections_leave_nothing(
    authority: Authority, open_tls_node: OpenNode
) -> None:
    async with open_tls_node(services={"counter": Echo()}, tls=authority.config()) as served:

        async def one_round() -> None:
            async with open_tls_node(tls=authority.config("app"), listen=False) as caller:
                assert await caller.ping(served.name)
            while served.connected():
                await trio.lowlevel.checkpoint()

        await one_round()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(10):
            await one_round()
        assert len(os.listdir("/proc/self/fd")) == before, os.listdir("/proc/self/fd")
