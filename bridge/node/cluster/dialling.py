"""One dial: where the peer listens, a TCP connection, TLS if it is wanted, the handshake."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

import trio

from bridge.dist.connect import Connected, dial_peer
from bridge.dist.cookie import Cookie
from bridge.dist.errors import RemoteProtocolError
from bridge.dist.finding import Place, Resolver, undialable
from bridge.dist.handshake import Initiator
from bridge.dist.handshake_events import Identity
from bridge.dist.names import split_node_name
from bridge.node.cluster.lines import Line, Lines


class NoConnection(Exception):
    """There is no connection to that node and none could be made."""

    def __init__(self, peer: str, why: str) -> None:
        super().__init__(f"no connection to {peer}: {why}")
        self.peer = peer
        self.why = why


@dataclass(frozen=True)
class Dialler:
    """What every dial of one node has in common.

    `outstanding` holds the challenges that this node waits for an answer to, of either role: a peer
    that sends one of them to us would have us answer it for him.
    """

    identity: Identity
    cookie: Cookie
    resolver: Resolver | None
    outstanding: set[int]
    lines: Lines
    handshake_timeout_s: float

    async def dial(
        self, peer: str, *, replace: Callable[[], bool], ask_for_name: bool = False
    ) -> tuple[Line, Connected, Identity]:
        """The line after its handshake, and who we are on it: another than `identity` if we asked.

        Raises NoConnection, DialRefused, RemoteProtocolError, EpmdError, OSError; nothing is left
        open then, nor by a cancelled call.
        """
        line = await self._open_line(peer)
        challenge = secrets.randbits(32)
        core = Initiator(
            self.identity,
            self.cookie,
            peer,
            challenge=challenge,
            outstanding=lambda: self.outstanding,
            ask_for_name=ask_for_name,
            prefix_bytes=line.prefix_bytes,
        )
        self.outstanding.add(challenge)
        try:
            connected = await dial_peer(
                line.stream, core, replace=replace, timeout_s=self.handshake_timeout_s
            )
        except RemoteProtocolError as error:
            explained = line.explain(error)
            await line.abandon()
            raise explained from error
        except BaseException:
            await line.abandon()
            raise
        finally:
            self.outstanding.discard(challenge)
        return line, connected, core.identity

    async def _open_line(self, peer: str) -> Line:
        alive, host = split_node_name(peer)
        if why := undialable(split_node_name(self.identity.name)[1], host):
            raise NoConnection(peer, why)
        found = await self.resolver.lookup(alive, host) if self.resolver else None
        if found is None:
            raise NoConnection(peer, f"no node of that name is known on {host}")
        place = found if isinstance(found, Place) else Place(host, found)
        return self.lines.dialled(await trio.open_tcp_stream(place.host, place.port), host)
