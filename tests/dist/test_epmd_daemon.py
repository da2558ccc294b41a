"""Our own epmd on real sockets: with our client, with `epmd -names`, and its bounds."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from structlog.testing import capture_logs
from test_epmd_client import HOST, Epmd

from bridge.dist import epmd_daemon
from bridge.dist.epmd_client import EpmdClient
from bridge.dist.epmd_daemon import EpmdDaemon
from bridge.dist.errors import EpmdError, NameTaken

needs_epmd = pytest.mark.skipif(shutil.which("epmd") is None, reason="no epmd here")


@asynccontextmanager
async def own_epmd(port: int = 0) -> AsyncIterator[EpmdDaemon]:
    daemon = await EpmdDaemon.listen(port)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(daemon.run)
        yield daemon
        nursery.cancel_scope.cancel()


def owner(port: int) -> EpmdClient:
    return EpmdClient(port=port, if_absent="own", retry_s=0.02, environ={})


async def until_found(client: EpmdClient, alive: str) -> int:
    while True:
        try:
            if (port := await client.lookup(alive, HOST)) is not None:
                return port
        except EpmdError:  # nobody is epmd at this moment
            pass
        await trio.sleep(0.01)


async def test_our_client_registers_looks_up_and_lists() -> None:
    async with own_epmd() as daemon:
        client = EpmdClient(port=daemon.port, if_absent="fail")
        async with client.registration("alice", 4711) as creation:
            assert creation >= 4
            assert await client.lookup("alice", HOST) == 4711
            assert await client.lookup("nobody", HOST) is None
            assert await client.names() == {"alice": 4711}
            with pytest.raises(NameTaken, match="listens on port 4711"):
                async with client.registration("alice", 1):
                    pass
        while await client.names():
            await trio.lowlevel.checkpoint()


async def test_it_listens_on_both_loopbacks_only() -> None:
    async with own_epmd() as daemon:
        for host in ("127.0.0.1", "::1"):
            stream = await trio.open_tcp_stream(host, daemon.port)
            await stream.aclose()
        name = socket.gethostbyname(socket.gethostname())
        if not name.startswith("127."):
            with pytest.raises(OSError, match="all attempts to connect"):
                await trio.open_tcp_stream(name, daemon.port)


@needs_epmd
@pytest.mark.beam
async def test_the_epmd_program_lists_our_names_and_may_not_kill_us_while_there_are_any() -> None:
    async with own_epmd() as daemon:
        client = EpmdClient(port=daemon.port, if_absent="fail")

        async def program(option: str) -> str:
            command = ["epmd", "-port", str(daemon.port), option]
            done = await trio.run_process(
                command, capture_stdout=True, stderr=subprocess.STDOUT, check=False
            )
            return done.stdout.decode()

        async with client.registration("alice", 4711):
            assert "name alice at port 4711\n" in await program("-names")
            assert "not allowed" in await program("-kill")
            assert await client.lookup("alice", HOST) == 4711
        while await client.names():
            await trio.lowlevel.checkpoint()
        with capture_logs() as logs:
            assert "Killed" in await program("-kill")
        assert [line["event"] for line in logs] == ["our epmd was told to end"]


async def test_a_node_without_epmd_is_it_and_the_next_one_takes_its_place() -> None:
    port = Epmd().port
    async with trio.open_nursery() as nursery:
        first, second = trio.CancelScope(), trio.CancelScope()

        async def hold(alive: str, scope: trio.CancelScope, task_status: object) -> None:
            with scope:
                async with owner(port).registration(alive, 4711) as creation:
                    task_status.started(creation)  # type: ignore[attr-defined]
                    await trio.sleep_forever()

        await nursery.start(lambda task_status: hold("alice", first, task_status))
        await nursery.start(lambda task_status: hold("bob", second, task_status))
        assert set(await owner(port).names()) == {"alice", "bob"}
        first.cancel()  # who was epmd ends; bob's registration is lost with it
        with trio.fail_after(60):
            assert await until_found(owner(port), "bob") == 4711
        assert await owner(port).lookup("alice", HOST) is None
        second.cancel()


@needs_epmd
@pytest.mark.beam
async def test_a_real_epmd_beside_ours_leaves_and_one_that_comes_later_is_used() -> None:
    real = Epmd()
    async with trio.open_nursery() as nursery:
        daemon = await EpmdDaemon.listen(real.port)
        nursery.start_soon(daemon.run)
        client = EpmdClient(port=real.port, if_absent="own", retry_s=0.02)
        async with client.registration("alice", 4711):
            command = ["epmd", "-port", str(real.port), "-address", HOST]
            with trio.fail_after(60):  # it ends by itself
                await trio.run_process(command, capture_stderr=True, check=False)
            assert await client.lookup("alice", HOST) == 4711
        nursery.cancel_scope.cancel()
    real.start()
    try:
        async with client.registration("alice", 4711):
            assert await client.lookup("alice", HOST) == 4711
    finally:
        real.stop()


async def test_a_port_that_may_not_be_listened_on_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(trio, "open_tcp_listeners", refuse)
    with pytest.raises(EpmdError, match=r"our own epmd cannot listen.*Permission denied"):
        async with owner(Epmd().port).registration("alice", 4711):
            pass


async def test_who_asks_slowly_is_closed_when_others_need_the_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(epmd_daemon, "ASKING_MAX", 3)
    async with own_epmd() as daemon:
        idle = [await trio.open_tcp_stream(HOST, daemon.port) for _ in range(3)]
        while daemon.asking < 3:
            await trio.lowlevel.checkpoint()
        assert await EpmdClient(port=daemon.port).names() == {}
        assert await idle[0].receive_some() == b""  # the one that had been asking longest
        for stream in idle:
            await stream.aclose()


async def test_a_request_that_is_not_whole_in_time_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(epmd_daemon, "REQUEST_TIMEOUT_S", 0.05)
    async with own_epmd() as daemon:
        async with await trio.open_tcp_stream(HOST, daemon.port) as stream:
            await stream.send_all(struct.pack(">H", 7) + b"zal")
            with trio.fail_after(60):
                assert await stream.receive_some() == b""


async def test_a_registration_outlives_the_time_for_a_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(epmd_daemon, "REQUEST_TIMEOUT_S", 0.05)
    async with own_epmd() as daemon:
        client = EpmdClient(port=daemon.port, if_absent="fail", retry_s=1e9)
        async with client.registration("alice", 4711):
            await trio.sleep(0.15)
            assert await client.lookup("alice", HOST) == 4711


async def test_our_own_epmd_listens_where_erl_epmd_address_says_and_on_the_loopback() -> None:
    port = Epmd().port
    environ = {"ERL_EPMD_ADDRESS": "127.0.0.3, 127.0.0.4"}
    client = EpmdClient(port=port, if_absent="own", environ=environ)
    async with client.registration("alice", 4711):
        for host in ("127.0.0.1", "127.0.0.3", "127.0.0.4"):
            assert await client.lookup("alice", host) == 4711
        with pytest.raises(EpmdError, match="no epmd at 127.0.0.5"):
            await client.lookup("alice", "127.0.0.5")
