"""The trio side of `peers`: accepts, dials, hands sockets to the carrier, and tells the router what
is lost.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable
from functools import partial

import trio

from bridge.dist.connect import Connected, DialRefused, accept_peer
from bridge.dist.cookie import Cookie
from bridge.dist.epmd_client import random_creation
from bridge.dist.errors import EpmdError, RemoteProtocolError
from bridge.dist.finding import Resolver
from bridge.dist.handshake import Acceptor
from bridge.dist.handshake_events import Identity, Peer, Status
from bridge.dist.names import base36, split_node_name
from bridge.log import Log
from bridge.node.carrier import Carrier
from bridge.node.cluster.dialling import Dialler, NoConnection
from bridge.node.cluster.lines import Line, Lines, Securer
from bridge.node.cluster.node_events import NodeEvents
from bridge.node.cluster.peers import Connection, Peers
from bridge.node.log_limit import LogLimit
from bridge.node.signals.policy import Policy

log = Log("ringbridge.node")

# In 10 s for one address: a flood of strangers is none of lines, and does not hide another rule.
REFUSAL_LINES, REFUSAL_LINES_OF_A_RULE = 200, 20
CONNECT_TIMEOUT_S = 10.0  # look-up, TCP and handshake; a BEAM allows 7 s for the last two
_CLAIM_WAIT_S = 1.0  # before we dial: how long a peer that dials us may take to prove itself
_NOK_WAIT_S = 1.0  # after `nok`: how long the peer's own attempt may take to show itself

# The carrier's words for a peer that just went away; every other reason is a rule or a fault.
_ORDINARY_ENDS = frozenset({"closed_by_peer", "reset_by_peer"})


class Connections:
    """All connections of one node.

    `nursery` runs one task per dial and per accepted socket until its handshake has ended; none of
    them lets an error out. `lost(peer)` is called when everything over a connection is to be given
    up.
    """

    def __init__(
        self,
        identity: Identity,
        cookie: Cookie,
        carrier: Carrier,
        *,
        nursery: trio.Nursery,
        resolver: Resolver | None,
        policy: Policy,
        lost: Callable[[str], None],
        events: NodeEvents,
        tls: Securer | None = None,
    ) -> None:
        self.identity = identity
        self.peers = Peers(identity.name)
        self._cookie = cookie
        self._carrier = carrier
        self._nursery = nursery
        self._policy = policy
        self._lost = lost
        self._lines = Lines(tls, timeout_s=policy.handshake_timeout_s)
        self._events = events
        self._unauthenticated: Counter[str] = Counter()  # by address
        self._refusal_lines = LogLimit(lines=REFUSAL_LINES)
        self._rule_lines = LogLimit(lines=REFUSAL_LINES_OF_A_RULE)
        self._challenges: set[int] = set()
        timeout_s = policy.handshake_timeout_s
        self._dialler = Dialler(
            identity, cookie, resolver, self._challenges, self._lines, timeout_s
        )
        self._namer: str | None = None
        self._nameless = ""  # why there are no new connections any more

    # -- out ---------------------------------------------------------------------------------------

    async def connect(self, peer: str) -> Connection:
        """The connection to `peer`, made if there is none; callers at the same time share one
        attempt.

        Raises NoConnection, ValueError for what is no node name. Cancelled: an attempt goes on for
        others.
        """
        split_node_name(peer)
        if peer == self.identity.name:
            raise ValueError("a node does not connect to itself")
        with trio.move_on_after(CONNECT_TIMEOUT_S):
            return await self._connect(peer)
        raise NoConnection(peer, f"not up within {CONNECT_TIMEOUT_S:g} s")

    async def _connect(self, peer: str) -> Connection:
        waited = False
        while True:
            await trio.lowlevel.checkpoint()
            if connection := self.peers.connection_of(peer):
                return connection
            attempt = self.peers.attempt_of(peer)
            if attempt is None and not waited and self.peers.claims_of(peer):
                # The peer dials us at this moment, or somebody claims so: that may not hold us up.
                waited = True
                with trio.move_on_after(_CLAIM_WAIT_S):
                    await self.peers.changed(peer).wait()
                continue
            if attempt is None:
                scope = trio.CancelScope()
                attempt = self.peers.begin_attempt(peer, scope.cancel)
                self._nursery.start_soon(self._dial, peer, attempt, scope)
            await attempt.done.wait()
            match attempt.error:
                case None | DialRefused(status=Status.ALIVE):
                    pass  # up, or given up for a connection that is coming in
                case DialRefused(status=Status.NOK):
                    if self.peers.connection_of(peer) is None:
                        with trio.move_on_after(_NOK_WAIT_S):
                            await self.peers.changed(peer).wait()
                case error:
                    if self.peers.connection_of(peer) is None:
                        why = error.why if isinstance(error, NoConnection) else str(error)
                        raise NoConnection(peer, why) from error

    async def _dial(self, peer: str, attempt: object, scope: trio.CancelScope) -> None:
        error: Exception | None = None
        try:
            with scope:
                await self._dial_once(peer)
        except (OSError, EpmdError, RemoteProtocolError, DialRefused, NoConnection) as failure:
            error = failure
            if isinstance(failure, RemoteProtocolError):
                log.warning("dial failed", peer=peer, rule=failure.rule)
        finally:
            self.peers.end_attempt(peer, attempt, error)  # type: ignore[arg-type]

    async def _dial_once(self, peer: str) -> None:
        if self._nameless:
            raise NoConnection(peer, self._nameless)
        line, connected, _ = await self._dialler.dial(
            peer, replace=lambda: self.peers.connection_of(peer) is None
        )
        self._established(line, connected)

    def adopt_namer(self, line: Line, connected: Connected) -> None:
        """Take the connection over which this node was given its name: both end together."""
        self._namer = connected.peer.name
        self._established(line, connected)

    # -- in ----------------------------------------------------------------------------------------

    async def serve(self, listeners: list[trio.SocketListener]) -> None:
        """Accept on `listeners` until cancelled; they are closed then."""
        await trio.serve_listeners(self._accept, listeners, handler_nursery=self._nursery)

    async def _accept(self, stream: trio.SocketStream) -> None:
        address = _address_of(stream)
        if (rule := self._no_room_for(address)) is not None:
            self._log_refusal(None, address, rule)
            await trio.aclose_forcefully(stream)
            return
        try:
            line = self._lines.accepted(stream)
        except OSError as error:  # no descriptor, no room: the socket is closed
            self._log_refusal(None, address, str(error))
            return
        challenge = secrets.randbits(32)
        core = Acceptor(
            self.identity,
            self._cookie,
            challenge=challenge,
            give_name=self._give_name,
            prefix_bytes=line.prefix_bytes,
        )
        self._unauthenticated[address] += 1
        self._challenges.add(challenge)
        claims: list[str] = []
        try:
            connected = await accept_peer(
                line.stream,
                core,
                decide=partial(self._decide, line, address, claims),
                proven=self._take_over,
                timeout_s=self._policy.handshake_timeout_s,
            )
            if connected is not None:
                self._established(line, connected)
            else:
                await line.abandon()
        except RemoteProtocolError as error:
            rule = line.explain(error).rule
            self._log_refusal(error.peer, address, rule)
            await line.abandon()
        except OSError as error:  # of the carrier, which has closed the socket
            self._log_refusal(core.peer_name, address, str(error))
        except BaseException:
            await line.abandon()
            raise
        finally:
            self._unauthenticated[address] -= 1
            if not self._unauthenticated[address]:
                del self._unauthenticated[address]
            self._challenges.discard(challenge)
            for peer in claims:
                self.peers.end_claim(peer)

    def _no_room_for(self, address: str) -> str | None:
        """Why one more that has proved nothing yet is not let in, or None."""
        if self.unauthenticated >= self._policy.unauthenticated_max:
            return f"at most {self._policy.unauthenticated_max} connections may be unauthenticated"
        if self._unauthenticated[address] >= self._policy.unauthenticated_per_address_max:
            most = self._policy.unauthenticated_per_address_max
            return f"at most {most} connections of one address may be unauthenticated"
        return None

    def _log_refusal(self, peer: str | None, address: str, rule: str) -> None:
        """One line, unless that address has filled the log with such already."""
        held_back = self._rule_lines.due((address, rule))
        if held_back is not None and self._refusal_lines.due(address) is not None:
            more = {"held_back": held_back} if held_back else {}
            log.warning("peer refused", peer=peer, address=address, rule=rule, **more)

    def _decide(self, line: Line, address: str, claims: list[str], peer: Peer) -> Status:
        rule = None
        if not self._policy.allow(peer.name, address):
            rule = "the allow list does not name it"
        elif self._lines.check_hosts_of_callers:
            rule = line.host_problem(split_node_name(peer.name)[1])
        if rule is not None:
            self._log_refusal(peer.name, address, rule)
            return Status.NOT_ALLOWED
        status = self.peers.claim(peer.name)
        if status is not Status.NOK:
            claims.append(peer.name)
        return status

    def _give_name(self, host: str) -> tuple[str, int] | None:
        """A name that nobody connected has, as a BEAM makes them: a number in base 36."""
        if not self._policy.give_names:
            return None
        while True:
            name = f"{base36(secrets.randbits(64))}@{host}"
            if self.peers.connection_of(name) is None and not self.peers.claims_of(name):
                return name, random_creation()

    def _take_over(self, peer: Peer) -> None:
        """The peer has proved the cookie: what there was of it goes now."""
        if attempt := self.peers.attempt_of(peer.name):
            attempt.give_up()
        if old := self.peers.connection_of(peer.name):
            self.drop(old, "replaced by a new connection of the same node")

    # -- established -------------------------------------------------------------------------------

    def _established(self, line: Line, connected: Connected) -> None:
        peer = connected.peer
        if old := self.peers.connection_of(peer.name):
            self.drop(old, "replaced by a new connection of the same node")
        # No checkpoint between here and up(): the first signal must find its connection.
        conn, told = line.hand_over(self._carrier, connected)
        self.peers.up(Connection(conn, peer.name, peer.flags, peer.creation))
        self._events.up(peer.name)
        log.info("connection up", peer=peer.name, flags=hex(peer.flags), **told)

    def drop(self, connection: Connection, reason: str, *, rule_broken: bool = False) -> None:
        """Close a connection of ours (one log line) and give up all that went over it."""
        try:
            self._carrier.drop(connection.id, reason)
        except OSError as error:
            log.error(
                "the carrier could not drop a connection", peer=connection.peer, why=str(error)
            )
        self._end(connection.id, reason, ordinary=not rule_broken)

    def lost(self, conn: int, reason: str) -> None:
        """The carrier lost `conn`. Does nothing for one that we dropped before."""
        self._end(conn, reason, ordinary=reason in _ORDINARY_ENDS)

    def _end(self, conn: int, reason: str, *, ordinary: bool) -> None:
        if connection := self.peers.down(conn):
            level = log.info if ordinary else log.warning
            level("connection lost", peer=connection.peer, reason=reason)
            self._lost(connection.peer)
            self._events.down(connection.peer, reason)
            if connection.peer == self._namer:
                self._lose_name(connection.peer)

    def _lose_name(self, namer: str) -> None:
        """Whoever named us may give the name to somebody else now (dist-protocol.md, 2.4b)."""
        self._namer = None
        self._nameless = f"{namer} gave this node its name, which ended with that connection"
        for connection in self.peers:
            self.drop(connection, self._nameless)

    @property
    def unauthenticated(self) -> int:
        return self._unauthenticated.total()


def _address_of(stream: trio.SocketStream) -> str:
    try:
        return str(stream.socket.getpeername()[0])
    except OSError:  # reset before we looked
        return "unknown"
