"""The page that Prometheus reads: GET /metrics, and nothing else.

HTTP/1.1 of the smallest kind: one request a connection, a head of bounded size in bounded time,
few connections at once. It runs in trio, where the figures may be read; prometheus-client's own
server would read them from a thread.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from bridge.config import Config, ConfigError

if TYPE_CHECKING:
    from prometheus_client.registry import CollectorRegistry

HEAD_BYTES_MAX = 8_192
REQUEST_S = 5.0
SCRAPES_MAX = 16

log = structlog.get_logger("ringbridge")


async def listen(config: Config) -> list[trio.SocketListener]:
    """Open the page's port; none without [metrics] listen. Raises ConfigError."""
    if config.metrics.listen is None:
        return []
    host, _, port = config.metrics.listen.rpartition(":")
    try:
        return await trio.open_tcp_listeners(int(port), host=host.strip("[]"))
    except OSError as error:
        raise ConfigError(
            file=config.file,
            key="metrics.listen",
            value=config.metrics.listen,
            rule=f"it cannot be listened on: {error.strerror}",
            mend="Give another port, or stop what holds it (ss -ltnp shows it)",
        ) from error


async def serve(listeners: list[trio.SocketListener], registry: CollectorRegistry) -> None:
    """Answer scrapes until cancelled."""
    if listeners:
        log.info("metrics", port=listeners[0].socket.getsockname()[1])
        room = trio.Semaphore(SCRAPES_MAX)
        await trio.serve_listeners(partial(_answer, registry, room), listeners)


async def _answer(
    registry: CollectorRegistry, room: trio.Semaphore, stream: trio.SocketStream
) -> None:
    async with stream:
        try:
            room.acquire_nowait()
        except trio.WouldBlock:
            return
        try:
            with trio.move_on_after(REQUEST_S):
                head = await _head(stream)
                if head is not None:
                    await stream.send_all(_response(head, registry))
                    await stream.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # whoever asked has left
        finally:
            room.release()


async def _head(stream: trio.SocketStream) -> bytes | None:
    """A request up to the empty line, or None when it ended or grew too long before."""
    head = bytearray()
    while b"\r\n\r\n" not in head:
        data = await stream.receive_some(HEAD_BYTES_MAX)
        head += data
        if not data or len(head) > HEAD_BYTES_MAX:
            return None
    return bytes(head)


def _response(head: bytes, registry: CollectorRegistry) -> bytes:
    first, *lines = head.decode("latin-1").split("\r\n")
    method, _, rest = first.partition(" ")
    path = rest.partition(" ")[0].partition("?")[0]
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    if path != "/metrics":
        return _page("404 Not Found", "text/plain", b"the metrics are at /metrics\n")
    if method not in ("GET", "HEAD"):
        return _page("405 Method Not Allowed", "text/plain", b"GET only\n")
    from prometheus_client.exposition import choose_encoder  # late: it takes long to load

    encode, content_type = choose_encoder(headers.get("accept", ""))
    try:
        body = encode(registry)
    except Exception:  # a page that cannot be made must not end the bridge
        log.exception("metrics cannot be told")
        return _page("500 Internal Server Error", "text/plain", b"the log says why\n")
    return _page("200 OK", content_type, body, with_body=method == "GET")


def _page(status: str, content_type: str, body: bytes, *, with_body: bool = True) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (body if with_body else b"")
