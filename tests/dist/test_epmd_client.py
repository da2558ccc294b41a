"""The epmd client against the real epmd, each test with one of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from bridge.dist.epmd_client import EpmdClient
from bridge.dist.errors import EpmdError, NameTaken

HOST = "127.0.0.1"
pytestmark = [
    pytest.mark.skipif(shutil.which("epmd") is None, reason="no epmd here"),
    pytest.mark.beam,
]


class Epmd:
    """The real epmd on a port of ours."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            self.port: int = probe.getsockname()[1]

    def start(self) -> None:
        self.process = subprocess.Popen(
            ["epmd", "-port", str(self.port), "-address", HOST],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        give_up = time.monotonic() + 10
        while True:
            try:
                socket.create_connection((HOST, self.port)).close()
            except ConnectionRefusedError:
                assert time.monotonic() < give_up, "epmd does not listen"
            else:
                return

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def epmd() -> Iterator[Epmd]:
    server = Epmd()
    server.start()
    yield server
    server.stop()


async def test_a_name_is_held_while_the_block_runs(epmd: Epmd) -> None:
    client = EpmdClient(port=epmd.port)
    async with client.registration("alice", 4711) as creation:
        assert creation >= 4
        assert await client.lookup("alice", HOST) == 4711
        assert await client.names() == {"alice": 4711}
    while await client.lookup("alice", HOST) is not None:  # epmd sees the close when it gets to it
        await trio.lowlevel.checkpoint()


async def test_an_unknown_name_has_no_port(epmd: Epmd) -> None:
    assert await EpmdClient(port=epmd.port).lookup("nobody", HOST) is None


async def test_a_taken_name_says_by_whom_and_what_to_do(epmd: Epmd) -> None:
    client = EpmdClient(port=epmd.port)
    async with client.registration("alice", 4711):
        with pytest.raises(NameTaken, match=r"already taken.*listens on port 4711.*another name"):
            async with client.registration("alice", 4712):
                pass
        assert await client.lookup("alice", HOST) == 4711


async def test_a_lost_registration_is_made_again(epmd: Epmd) -> None:
    client = EpmdClient(port=epmd.port, retry_s=0.01)
    async with client.registration("alice", 4711):
        epmd.stop()
        epmd.start()
        while await client.lookup("alice", HOST) is None:
            await trio.lowlevel.checkpoint()


async def test_an_absent_epmd_is_started(tmp_path: Path) -> None:
    epmd = Epmd()
    client = EpmdClient(port=epmd.port, environ={**os.environ, "ERL_EPMD_ADDRESS": HOST})
    try:
        async with client.registration("alice", 4711):
            assert await client.lookup("alice", HOST) == 4711
    finally:
        for pid in listeners_on(epmd.port):
            os.kill(pid, signal.SIGKILL)


async def test_without_an_epmd_program_the_error_says_how() -> None:
    client = EpmdClient(port=Epmd().port, environ={"PATH": "/nonexistent"})
    with pytest.raises(EpmdError, match=r"no epmd at 127.0.0.1:\d+.*epmd -daemon.*ERL_EPMD_PORT"):
        async with client.registration("alice", 4711):
            pass


async def test_an_absent_epmd_is_not_started_when_that_is_not_wanted() -> None:
    client = EpmdClient(port=Epmd().port, if_absent="fail")
    with pytest.raises(EpmdError, match="no epmd at"):
        async with client.registration("alice", 4711):
            pass
    with pytest.raises(EpmdError, match="no epmd at"):
        await client.lookup("alice", HOST)


@pytest.mark.parametrize("text", ["0", "65536", "http", "-1", "4369x"])
def test_a_port_in_the_environment_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(EpmdError, match="ERL_EPMD_PORT"):
        EpmdClient.from_environ({"ERL_EPMD_PORT": text})


def test_the_port_comes_from_the_environment() -> None:
    assert EpmdClient.from_environ({"ERL_EPMD_PORT": "5000"}).port == 5000
    assert EpmdClient.from_environ({}).port == 4369


def listeners_on(port: int) -> list[int]:
    """Pids of the epmd that was started as `epmd -daemon` with our port in its environment."""
    wanted = f"ERL_EPMD_PORT={port}\0".encode()
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                if (process / "comm").read_text() == "epmd\n" and wanted in (
                    (process / "environ").read_bytes() + b"\0"
                ):
                    found.append(int(process.name))
            except OSError:
                continue
    return found


async def test_an_epmd_that_takes_us_and_closes_is_not_asked_all_the_time() -> None:
    asked = 0

    async def close_at_once(stream: trio.SocketStream) -> None:
        nonlocal asked
        asked += 1
        await stream.receive_some(1000)
        await stream.send_all(b"\x76\x00" + (7).to_bytes(4, "big"))  # ALIVE2_X_RESP: taken
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host=HOST)
        nursery.start_soon(trio.serve_listeners, close_at_once, listeners)
        client = EpmdClient(port=listeners[0].socket.getsockname()[1], retry_s=0.2)
        async with client.registration("alice", 4711):
            await trio.sleep(0.5)
        nursery.cancel_scope.cancel()
    assert 2 <= asked <= 4
