"""A connection until its handshake is over, plain or under TLS: the same stream either way, and one
place that knows the difference.
"""

from __future__ import annotations

import socket
from typing import Any, Protocol

import trio

from bridge.dist.connect import Connected
from bridge.dist.errors import RemoteProtocolError
from bridge.node.carrier import Carrier

PLAIN_PREFIX_BYTES = 2


class TlsSession(Protocol):
    """What whoever does TLS gives for one socket; `bridge.fabric.tls.TlsLine` is the one there is.

    `stream` is in clear. `problem` and `host_problem` give one line, or None.
    """

    prefix_bytes: int
    stream: trio.SocketStream

    def problem(self) -> str | None: ...

    def is_open(self) -> bool: ...

    def version(self) -> str: ...

    def host_problem(self, host: str) -> str | None: ...

    def forget(self) -> None: ...


class Securer(Protocol):
    """Puts sockets under TLS; `bridge.fabric.tls.Tls` is the one there is."""

    @property
    def checks_hosts_of_callers(self) -> bool: ...

    def accepted(self, sock: socket.socket, *, timeout_s: float) -> TlsSession: ...

    def dialled(self, sock: socket.socket, *, host: str, timeout_s: float) -> TlsSession: ...


class Line:
    """One connection of which the handshake goes on. It ends by `hand_over` or `abandon`."""

    def __init__(self, stream: trio.SocketStream, session: TlsSession | None = None) -> None:
        self._session = session
        self.stream = session.stream if session else stream
        self.prefix_bytes = session.prefix_bytes if session else PLAIN_PREFIX_BYTES

    def explain(self, error: RemoteProtocolError) -> RemoteProtocolError:
        """The same error, or what TLS says of it: a handshake sees only an end where TLS failed."""
        if self._session is None:
            return error
        if problem := self._session.problem():
            return RemoteProtocolError(problem, peer=error.peer)
        if not self._session.is_open():
            rule = f"{error.rule}; the TLS handshake was not over, the peer may be a plain node"
            return RemoteProtocolError(rule, peer=error.peer)
        return error

    def host_problem(self, host: str) -> str | None:
        """Why the peer's certificate does not name `host`. Of a line under TLS only."""
        return self._session.host_problem(host) if self._session else None

    def hand_over(self, carrier: Carrier, connected: Connected) -> tuple[int, dict[str, str]]:
        """Give the connection to `carrier`: its id there, and what the log may tell of it.

        Raises OSError; the connection is closed then.
        """
        peer, told, more = connected.peer, {}, dict[str, Any]()
        if self._session is not None:
            told["tls"] = self._session.version()
            more["tls"] = self._session
        conn = carrier.adopt(
            socket.socket(fileno=self.stream.socket.detach()),
            peer=peer.name,
            flags=peer.flags,
            creation=peer.creation,
            leftover=connected.leftover,
            **more,
        )
        return conn, told

    async def abandon(self) -> None:
        """Close it; what was sent before still goes."""
        if self._session is not None:
            self._session.forget()
        await trio.aclose_forcefully(self.stream)


class Lines:
    """Makes the lines of one node: all plain, or all under TLS."""

    def __init__(self, tls: Securer | None, *, timeout_s: float) -> None:
        self._tls = tls
        self._timeout_s = timeout_s

    @property
    def check_hosts_of_callers(self) -> bool:
        return self._tls is not None and self._tls.checks_hosts_of_callers

    def accepted(self, stream: trio.SocketStream) -> Line:
        """A line with who dialled us. Raises OSError; the stream is taken either way."""
        if self._tls is None:
            return Line(stream)
        return Line(stream, self._tls.accepted(_detach(stream), timeout_s=self._timeout_s))

    def dialled(self, stream: trio.SocketStream, host: str) -> Line:
        """A line with whom we dialled; `host` is of the node's name. Raises OSError."""
        if self._tls is None:
            return Line(stream)
        sock = _detach(stream)
        return Line(stream, self._tls.dialled(sock, host=host, timeout_s=self._timeout_s))


def _detach(stream: trio.SocketStream) -> socket.socket:
    return socket.socket(fileno=stream.socket.detach())
