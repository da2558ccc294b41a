"""One bridge for all wire tests; each test has its own connection, and a witness beside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from integration.cluster import Cluster, wait_until
from integration.wire.peer import PLAIN, Peer


@dataclass
class Bridge:
    """The bridge as a peer on the wire sees it, and its log."""

    cluster: Cluster
    port: int
    os_pid: int

    def connect(self, flags: int = PLAIN) -> Peer:
        return Peer.connect(self.port, self.cluster.cookie, flags)

    def log(self) -> list[dict[str, Any]]:
        # What follows the last newline is being written just now.
        *lines, _rest = self.cluster.log_path("bridge").read_text().split("\n")
        return [json.loads(line) for line in lines if line.startswith("{")]

    def about(self, peer: Peer) -> list[dict[str, Any]]:
        """The log's lines that name the peer, without the one that says it is connected."""
        lines = [line for line in self.log() if peer.name in str(line.values())]
        return [line for line in lines if line["event"] != "connection up"]

    def one_line_about(self, peer: Peer) -> dict[str, Any]:
        """The one line that the end of a connection has left."""
        wait_until(lambda: bool(self.about(peer)), f"no log line about {peer.name}", 5)
        lines = self.about(peer)
        assert len(lines) == 1, lines
        return lines[0]

    def resident_bytes(self) -> int:
        with open(f"/proc/{self.os_pid}/statm") as statm:
            return int(statm.read().split()[1]) * 4096


@pytest.fixture(scope="session")
def bridge() -> Iterator[Bridge]:
    with Cluster() as cluster:
        process = cluster.start_bridge("bridge")
        port = cluster.port_of("bridge")
        assert port
        yield Bridge(cluster, port, process.pid)
        assert process.poll() is None, "the bridge has ended" + cluster.tail("bridge")
        assert "Traceback" not in cluster.log_path("bridge").read_text()


@pytest.fixture
def connect(bridge: Bridge) -> Iterator[Callable[..., Peer]]:
    """Connections that are closed after the test."""
    peers: list[Peer] = []

    def opened(flags: int = PLAIN) -> Peer:
        peers.append(bridge.connect(flags))
        return peers[-1]

    yield opened
    for peer in peers:
        peer.close()


@pytest.fixture(autouse=True)
def witness(bridge: Bridge) -> Iterator[Peer]:
    """A connection that was there before the test's and must be as good after it."""
    with bridge.connect() as peer:
        assert peer.echo(b"before").endswith(b"before")
        yield peer
        assert peer.echo(b"after").endswith(b"after")
