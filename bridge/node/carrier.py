"""What the node needs of whoever moves the bytes: the relay, or in tests a pump written in plain
Python.
"""

from __future__ import annotations

import socket
from typing import Any, Protocol


class Carrier(Protocol):
    """Owns established sockets: framing, ticks and fragments. Only `wait_writable` blocks.

    What arrives comes back as `node.handle_signal(conn, control, message)` and
    `node.handle_connection_lost(conn, reason)`, called in wire order by one task.
    """

    def adopt(
        self,
        sock: socket.socket,
        *,
        peer: str,
        flags: int,
        creation: int,
        leftover: bytes = b"",
        tls: Any = None,
    ) -> int:
        """Take `sock` after its handshake; `leftover` are bytes already read. Returns a connection
        id. `tls`: the session whose stream `sock` is, for a carrier that does TLS.
        """

    def send(self, conn: int, control: bytes, message: bytes | None = None) -> None:
        """Queue one signal: bare terms, without the leading 131."""

    async def wait_writable(self, conn: int) -> None:
        """Wait while too much of what was sent still waits on `conn`; at once if it is gone."""

    def drop(self, conn: int, reason: str) -> None:
        """Close `conn`. No event of it is awaited any more; late ones are ignored."""
