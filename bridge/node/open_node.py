"""`open_node`: a node for as long as a block runs, in the order that peers can rely on.

Listen first (so that the port is known), register at epmd (so that the creation is), start the
carrier and the services, and only then accept: a peer that dialled early waits in the listen queue
and finds every name.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import trio

from bridge.dist.connect import Connected, DialRefused
from bridge.dist.cookie import Cookie, find_cookie
from bridge.dist.epmd_client import EpmdClient, random_creation
from bridge.dist.errors import EpmdError, RemoteProtocolError
from bridge.dist.finding import Places, Resolver, host_towards, loopback_for
from bridge.dist.flags import OFFERED
from bridge.dist.handshake_events import Identity
from bridge.dist.names import split_node_name
from bridge.dist.nursery import block_nursery
from bridge.dist.tls import TlsConfig
from bridge.log import Log
from bridge.node.carrier import Carrier
from bridge.node.cluster.connections import CONNECT_TIMEOUT_S
from bridge.node.cluster.dialling import Dialler, NoConnection
from bridge.node.cluster.lines import Line, Lines, Securer
from bridge.node.exports import Exports
from bridge.node.functions.executions import ExportLimits
from bridge.node.functions.group_leader import Sink
from bridge.node.inspection import (
    RINGBRIDGE,
    Application,
    Inspection,
    publish_answers,
    traffic_of,
)
from bridge.node.node import Node
from bridge.node.process.server import GenServer
from bridge.node.signals.policy import Policy

if TYPE_CHECKING:
    from bridge.fabric.relay import RelayLimits  # the native part is optional

SUPERVISORS_GRACE_S = 30.0  # for all trees together, when the node ends
UNNAMED = "undefined@"  # as BEAMs spell the wish for a name: -name undefined@host
log = Log("ringbridge.node")


class EventCarrier(Carrier, Protocol):
    """A carrier that is read by `await next_events()`, as the relay is."""

    async def next_events(self) -> Sequence[Any]:
        """The next ones of Signal(conn, control, message) and ConnectionLost(conn, reason), in
        wire order.
        """


CarrierFactory = Callable[[Identity], AbstractAsyncContextManager[EventCarrier]]
Pump = Callable[[Node, EventCarrier], Awaitable[None]]


@asynccontextmanager
async def relay_carrier(
    identity: Identity, *, limits: RelayLimits | None = None
) -> AsyncIterator[EventCarrier]:
    """The relay thread as carrier, for a node used alone.

    Other limits than the default: `open_node(carrier=partial(relay_carrier, limits=...))`.
    """
    # Late: the node does not need the native part to be imported.
    from bridge.fabric.relay import Relay

    relay = Relay(node=identity.name, creation=identity.creation, limits=limits)
    try:
        yield relay
    finally:
        relay.close()


@contextmanager
def open_tls(config: TlsConfig) -> Iterator[Securer]:
    """The certificates and the thread of TLS handshakes. Raises TlsError."""
    from bridge.fabric.tls import Tls  # late, as above

    tls = Tls(config)
    try:
        yield tls
    finally:
        tls.close()


async def pump_events(node: Node, carrier: EventCarrier) -> None:
    """Feed the node from its carrier for ever. An application with events of its own writes its
    own.
    """
    while True:
        for event in await carrier.next_events():
            match event:
                case object(conn=conn, control=control, message=message):
                    node.handle_signal(conn, control, message)
                case object(conn=conn, reason=reason):
                    node.handle_connection_lost(conn, reason)


async def _stop_supervisors(node: Node) -> None:
    with trio.CancelScope(shield=True), trio.move_on_after(SUPERVISORS_GRACE_S) as grace:
        await node.stop_supervisors()
    if grace.cancelled_caught:
        log.warning("supervisors took too long to stop", grace_s=SUPERVISORS_GRACE_S)


@asynccontextmanager
async def open_node(
    name: str | None,
    *,
    via: str | None = None,
    cookie: str | Cookie | None = None,
    cookie_file: str | os.PathLike[str] | None = None,
    services: Mapping[str, GenServer] | None = None,
    before_listen: Callable[[Node], Awaitable[None]] | None = None,
    listen: bool = True,
    listen_host: str | None = None,
    listen_port: int = 0,
    epmd: EpmdClient | None = None,
    register: bool = True,
    resolver: Resolver | None = None,
    peers: Mapping[str, str | int] | None = None,
    flags: int = OFFERED,
    policy: Policy | None = None,
    application: Application | None = RINGBRIDGE,
    tls: TlsConfig | None = None,
    carrier: CarrierFactory = relay_carrier,
    pump: Pump = pump_events,
    exports: Exports | None = None,
    limits: ExportLimits | None = None,
    output: Sink | None = None,
) -> AsyncIterator[Node]:
    """Run the hidden node `name` (alive@host) while the block runs.

    `name=None`, or `"undefined@host"`: a short-lived client that is connected with the node `via`
    from the start, and gets its name from it; no other node finds it, and the name ends with that
    connection.
    `services` are started under their names, then `before_listen(node)` runs, then peers are let
    in. `listen=False`: calls out only. `listen_host` is by default the loopback, of IPv6 when the
    host of the name is an IPv6 address. `register=False`: no epmd, a creation at random; give
    `listen_port` then. `peers` says where nodes listen that epmd does not know: a port or
    "host:port" for a name or a glob. `resolver` finds all others, by default epmd on their host;
    `OnePort(9100)` asks no epmd. `tls`: every connection is under TLS, as between nodes
    started with `-proto_dist inet_tls` (docs/tls.md). `carrier` makes what moves the bytes,
    `pump` reads it: an application that has other events on the same carrier gives its own.
    `exports` are the functions that other nodes may run, within `limits` (docs/rpc.md);
    `output(node, text)` takes what functions that run on other nodes for us write, by default a
    log line. Tasks: the pump, the accept loop, one per handshake and per service; all end with
    the block. Processes end with `shutdown`, which their watchers hear.
    To observer, LiveDashboard and iex the node runs `application`; None: what they ask is undef.
    Raises ValueError (name), CookieError, TlsError, NameTaken, EpmdError, OSError (the port),
    NoConnection (to `via`), and what services raise.
    """
    if tls is not None and listen and tls.cert is None:
        raise ValueError("a node that listens with tls needs a cert")
    secret = find_cookie(cookie=cookie, cookie_file=cookie_file)
    client = epmd or EpmdClient.from_environ()
    finder = Places(peers or {}, resolver or client)
    policy = policy or Policy()
    async with AsyncExitStack() as stack:
        securer = stack.enter_context(open_tls(tls)) if tls is not None else None
        namer = None
        if name is None or name.startswith(UNNAMED):
            namer = await _take_name(name, via, secret, finder, flags, policy, securer)
            stack.push_async_callback(namer.abandon)
            name, listen = namer.identity.name, False
        elif via is not None:
            raise ValueError(f"via= is for a node without a name, not for {name}")
        alive, host = split_node_name(name)
        address = listen_host or loopback_for(host)
        listeners = await _listen(address, listen_port) if listen else []
        for listener in listeners:
            stack.push_async_callback(listener.aclose)
        if listeners and register:
            port = listeners[0].socket.getsockname()[1]
            creation = await stack.enter_async_context(client.registration(alive, port))
        else:
            creation = namer.identity.creation if namer else random_creation()
        identity = Identity(name, creation, flags)
        medium = await stack.enter_async_context(carrier(identity))
        nursery = await stack.enter_async_context(block_nursery())
        node = Node(
            identity,
            secret,
            medium,
            nursery=nursery,
            resolver=finder,
            policy=policy,
            tls=securer,
            exports=exports,
            limits=limits,
            output=output,
        )
        stack.callback(node.stop_all)
        stack.push_async_callback(_stop_supervisors, node)
        nursery.start_soon(pump, node, medium)
        if application is not None:
            publish_answers(
                Inspection(node, application=application, traffic=lambda: traffic_of(medium))
            )
        for service_name, server in (services or {}).items():
            await node.start(server, name=service_name)
        if before_listen is not None:
            await before_listen(node)
        if listeners:
            nursery.start_soon(node.serve, listeners)
        if namer:
            node.connections.adopt_namer(namer.line, namer.connected)
            namer.adopted = True
        yield node


async def _listen(address: str, port: int) -> list[trio.SocketListener]:
    """Raises ValueError and OSError that name the address."""
    if not 0 <= port <= 65535:
        raise ValueError(f"listen_port is 0 (any free port) to 65535, not {port}")
    try:
        return await trio.open_tcp_listeners(port, host=address)
    except OSError as error:
        why = f"cannot listen on {address}, port {port}: {error.strerror}"
        mend = "listen_host= is an address of this machine, listen_port= one that is free"
        raise OSError(error.errno, f"{why}; {mend}") from error


@dataclass
class _Namer:
    """The connection with the node that named us, until the node that we become has it."""

    line: Line
    connected: Connected
    identity: Identity
    adopted: bool = False

    async def abandon(self) -> None:
        if not self.adopted:
            await self.line.abandon()


async def _take_name(
    name: str | None,
    via: str | None,
    cookie: Cookie,
    resolver: Resolver,
    flags: int,
    policy: Policy,
    securer: Securer | None,
) -> _Namer:
    """Dial `via` and be named by it. Raises ValueError, NoConnection."""
    if via is None:
        raise ValueError("a node without a name needs via=, the node that gives it one")
    host = (name or UNNAMED).removeprefix(UNNAMED) or host_towards(split_node_name(via)[1])
    asker = Identity(UNNAMED + host, random_creation(), flags)
    split_node_name(asker.name)
    timeout_s = policy.handshake_timeout_s
    lines = Lines(securer, timeout_s=timeout_s)
    dialler = Dialler(asker, cookie, resolver, set(), lines, timeout_s)
    with trio.move_on_after(CONNECT_TIMEOUT_S):
        try:
            return _Namer(*await dialler.dial(via, replace=lambda: False, ask_for_name=True))
        except (OSError, EpmdError, RemoteProtocolError, DialRefused) as error:
            raise NoConnection(via, str(error)) from error
    raise NoConnection(via, f"not up within {CONNECT_TIMEOUT_S:g} s")
