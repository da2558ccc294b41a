"""A proxy in front of a node, and an epmd of its own that sends callers to the proxy.

A BEAM finds nodes by the epmd that ERL_EPMD_PORT names when it starts. So a second epmd, which
knows the node by the proxy's port, puts the proxy between the two, and neither has to know.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bridge.chaos.lane import Shape
from bridge.chaos.proxy import Proxy, open_proxy
from bridge.dist.epmd_client import EpmdClient
from bridge.dist.epmd_daemon import EpmdDaemon
from bridge.dist.errors import EpmdError
from bridge.dist.nursery import block_nursery


@dataclass(frozen=True)
class Detour:
    proxy: Proxy
    epmd_port: int  # for ERL_EPMD_PORT of whoever is to come through the proxy


@asynccontextmanager
async def open_detour(
    name: str,
    epmd: EpmdClient,
    shape: Shape | None = None,
    *,
    epmd_port: int = 0,
    proxy_port: int = 0,
    seed: int = 0,
) -> AsyncIterator[Detour]:
    """Stand before the node `name`, which `epmd` knows, while the block runs.

    Raises EpmdError when it does not know it or cannot be asked, OSError for a port that is taken.
    """
    alive, _, host = name.partition("@")
    port = await epmd.lookup(alive, host)
    if port is None:
        raise EpmdError(f"no node {name} is registered at the epmd of {host}, port {epmd.port}")
    daemon = await EpmdDaemon.listen(epmd_port)
    async with block_nursery() as nursery:
        nursery.start_soon(daemon.run)
        async with open_proxy(host, port, shape, listen_port=proxy_port, seed=seed) as proxy:
            second = EpmdClient(port=daemon.port, if_absent="fail")
            async with second.registration(alive, proxy.port):
                yield Detour(proxy, daemon.port)


__all__ = ["Detour", "open_detour"]
