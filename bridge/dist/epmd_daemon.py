"""The trio shell of `epmd_server`: the epmd of a host that has none, for as long as we live.

It does not fork and it does not hand over: a real epmd that is started beside it finds the port in
use and leaves, as a second real one would. When we end, the names go with us; BEAMs and our own
nodes register again every 2 s, with whoever is the next epmd (`EpmdClient` with `if_absent="own"`
takes the place itself).
"""

from __future__ import annotations

import errno
import ipaddress
import time

import trio

from bridge.log import Log
from bridge.dist.epmd_server import REGISTERED_MAX, Names, Session, State

log = Log("ringbridge.epmd")

LOOPBACK = ("127.0.0.1", "::1")
REQUEST_TIMEOUT_S = 60.0  # for the whole request, as in OTP 29
ASKING_MAX = 256  # connections whose request is not whole yet, oldest closed first
ASKING_REMOTE_MAX = 128  # of them, from other hosts: they never keep a local node from registering
ANSWER_TIMEOUT_S = 10.0
_RECEIVE_BYTES = 4096


class EpmdDaemon:
    """Listens, and answers until cancelled. `names` is what is registered now."""

    def __init__(self, listeners: list[trio.SocketListener], port: int) -> None:
        self.names = Names()
        self.port = port
        self._listeners = listeners
        self._asking: dict[trio.CancelScope, bool] = {}
        self._scope = trio.CancelScope()

    @property
    def asking(self) -> int:
        """Connections whose request is not whole yet."""
        return len(self._asking)

    @classmethod
    async def listen(cls, port: int, addresses: tuple[str, ...] = ()) -> EpmdDaemon:
        """Listen on the loopback and on `addresses`; port 0 takes any free one.

        Raises OSError, EADDRINUSE above all, when an address cannot be had; an address of a family
        that this host has not is left out.
        """
        listeners: list[trio.SocketListener] = []
        try:
            for address in dict.fromkeys(LOOPBACK + addresses):
                try:
                    listeners += await trio.open_tcp_listeners(port, host=address)
                except OSError as error:
                    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                        continue
                    raise
                port = port or listeners[0].socket.getsockname()[1]
        except BaseException:
            for listener in listeners:
                await listener.aclose()
            raise
        return cls(listeners, port)

    async def run(self) -> None:
        """Serve until cancelled, or until a local peer asks for the end while no name is held."""
        with self._scope:
            await trio.serve_listeners(self._serve, self._listeners)

    async def _serve(self, stream: trio.SocketStream) -> None:
        local = _is_local(stream)
        session = Session(self.names, local=local, port=self.port)
        try:
            async with stream:
                await self._converse(stream, session, local)
        except (trio.BrokenResourceError, OSError):
            pass
        finally:
            session.close()
        if session.kill_asked:
            log.info("our epmd was told to end")
            self._scope.cancel()

    async def _converse(self, stream: trio.SocketStream, session: Session, local: bool) -> None:
        with trio.move_on_after(REQUEST_TIMEOUT_S) as scope:
            self._make_room(local)
            self._asking[scope] = local
            try:
                while session.state is State.ASKING:
                    data = bytes(await stream.receive_some(_RECEIVE_BYTES))
                    session.receive_data(data, int(time.time()))
            finally:
                del self._asking[scope]
        with trio.move_on_after(ANSWER_TIMEOUT_S) as answering:
            await stream.send_all(session.data_to_send())
        if not answering.cancelled_caught and session.state is State.REGISTERED:
            data = bytes(await stream.receive_some(1))
            session.receive_data(data, int(time.time()))

    def _make_room(self, local: bool) -> None:
        """Close the connection that has been asking longest when there are too many of its kind."""
        remote = [scope for scope, is_local in self._asking.items() if not is_local]
        if not local and len(remote) >= ASKING_REMOTE_MAX:
            remote[0].cancel()
        elif len(self._asking) >= ASKING_MAX:
            next(iter(self._asking)).cancel()


def _is_local(stream: trio.SocketStream) -> bool:
    """From the loopback, or from the very address of this host that it came to."""
    try:
        peer, own = stream.socket.getpeername()[0], stream.socket.getsockname()[0]
    except OSError:
        return False
    return bool(peer == own or ipaddress.ip_address(peer.partition("%")[0]).is_loopback)


__all__ = ["ASKING_MAX", "ASKING_REMOTE_MAX", "REGISTERED_MAX", "EpmdDaemon"]
