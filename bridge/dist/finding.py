"""Where a node listens: epmd, one port for all nodes, or a table; and whom a BEAM would not dial.

`open_node(resolver=...)` takes any of these, or anything else with an async `lookup`.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from bridge.dist.names import matcher, pattern_problem


@dataclass(frozen=True, slots=True)
class Place:
    """A TCP address that the host part of the node's name does not tell."""

    host: str
    port: int


class Resolver(Protocol):
    """Finds where a node listens."""

    async def lookup(self, alive: str, host: str) -> int | Place | None:
        """The TCP port of `alive` on `host`, or a place elsewhere; None if unknown. May raise
        EpmdError.
        """


@dataclass(frozen=True)
class OnePort:
    """Every node listens on this port of its host, as with `-erl_epmd_port` and the kernel's
    `erl_epmd_node_listen_port`: no epmd is asked.
    """

    port: int

    async def lookup(self, alive: str, host: str) -> int | Place | None:
        return self.port


class Places:
    """A table from node names, or globs of them, to "host:port" or a port; `otherwise` is asked for
    the rest. Exact names win over globs, earlier globs over later ones.

    Raises ValueError for an entry that says neither.
    """

    def __init__(self, places: Mapping[str, str | int], otherwise: Resolver | None = None) -> None:
        self._otherwise = otherwise
        self.replace(places)

    def replace(self, places: Mapping[str, str | int]) -> None:
        """Go by another table from now on. Raises ValueError as the constructor does."""
        self._exact: dict[str, int | Place] = {}
        self._globs = []
        for name, text in places.items():
            if problem := pattern_problem(name):
                raise ValueError(f"{name!r}: {problem}")
            place = parse_place(text)
            self._exact[name] = place
            self._globs.append((matcher([name]), place))

    async def lookup(self, alive: str, host: str) -> int | Place | None:
        name = f"{alive}@{host}"
        if (place := self._exact.get(name)) is not None:
            return place
        for matches, place in self._globs:
            if matches(name):
                return place
        return await self._otherwise.lookup(alive, host) if self._otherwise else None


def parse_place(text: str | int) -> int | Place:
    """A port, "port", "host:port" or "[ipv6]:port". Raises ValueError."""
    host, colon, digits = str(text).rpartition(":")
    port = int(digits) if digits.isascii() and digits.isdecimal() else 0
    if not 0 < port < 65536 or (colon and not host):
        raise ValueError(f'{text!r}: a place is a port, "host:port" or "[ipv6]:port"')
    if not colon:
        return port
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError(f"{text!r}: an IPv6 address stands in brackets, [::1]:9100")
    return Place(host.removeprefix("[").removesuffix("]"), port)


def undialable(own_host: str, peer_host: str) -> str | None:
    """Why a BEAM named like us would refuse to dial a node on `peer_host`, or None.

    A BEAM with short names refuses a host with a dot, one with long names a host without, unless it
    is an IP address (inet_tcp_dist.erl). An IPv6 address fits both.
    """
    if _is_ip(own_host) and ":" in own_host:
        return None
    if "." in own_host:
        if "." not in peer_host and not _is_ip(peer_host):
            return (
                f"this node has a long name (its host {own_host} has a dot), and {peer_host} is a "
                "short one: a BEAM would not dial it either; give both nodes names of one kind"
            )
    elif "." in peer_host:
        return (
            f"this node has a short name (its host {own_host} has no dot), and {peer_host} is a "
            "long one: a BEAM would not dial it either; give both nodes names of one kind"
        )
    return None


def loopback_for(host: str) -> str:
    """The loopback address that a node named `alive@host` listens on by default."""
    return "::1" if _is_ip(host) and ":" in host else "127.0.0.1"


def host_towards(peer_host: str) -> str:
    """A host part for a node of this machine that dials `peer_host`: of the same style."""
    if peer_host == "localhost" or (_is_ip(peer_host) and ipaddress.ip_address(peer_host).is_loopback):
        return peer_host
    return socket.getfqdn() if undialable(socket.gethostname(), peer_host) else socket.gethostname()


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
