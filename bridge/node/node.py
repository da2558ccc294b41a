"""The node: one name and creation, its processes, its connections, and calls out. `open_node` makes
one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio

from bridge.dist import control as c
from bridge.dist.cookie import Cookie
from bridge.dist.errors import RemoteProtocolError
from bridge.dist.finding import Resolver
from bridge.dist.flags import ALIAS, SPAWN
from bridge.dist.handshake_events import Identity
from bridge.dist.names import split_node_name
from bridge.etf import Atom, DecodeError, Pid, Reference, decode_bare
from bridge.node.calls import Monitor, PendingCall, ProcessDown
from bridge.node.carrier import Carrier
from bridge.node.cluster.connections import Connections
from bridge.node.cluster.dialling import NoConnection
from bridge.node.cluster.keeping import Backoff, Kept
from bridge.node.cluster.lines import Securer
from bridge.node.cluster.node_events import EVENTS_MAX, NODEDOWN, NodeEvents, NodeMonitor
from bridge.node.exports import Exports
from bridge.node.functions.executions import Executions, ExportLimits
from bridge.node.functions.group_leader import GroupLeader, LogOutput, Sink, UserOutput
from bridge.node.functions.remote_calls import RemoteCalls
from bridge.node.functions.rex import Rex
from bridge.node.functions.spawns import SYSTEM_LIMIT, Spawns
from bridge.node.process.details import Details
from bridge.node.process.direct import NetKernel, RelayServiceHooks, RelayServiceProxy
from bridge.node.process.handle import ProcessHandle
from bridge.node.process.mailbox import MailboxPolicy
from bridge.node.process.plain import PlainProcess, ProcessFunction
from bridge.node.process.server import GenServer
from bridge.node.process.service import Service
from bridge.node.signals import gen
from bridge.node.signals.addresses import Address, Dest, Target, address_of, node_of, target_of
from bridge.node.signals.autoconnect import AutoConnect
from bridge.node.signals.ids import Ids
from bridge.node.signals.outgoing import can_express, encode_signal
from bridge.node.signals.policy import Policy
from bridge.node.signals.router import Router
from bridge.node.signals.table import Process

Term = Any

CALL_TIMEOUT_S = 5.0  # GenServer.call's default


@dataclass(frozen=True)
class NodeStatistics:
    """A moment's counts. `unwanted_messages`: sent to the pid that calls are made from, and
    dropped.
    """

    connections: int
    unauthenticated: int
    processes: int
    monitors_held: int
    monitors_on_us: int
    pending_answers: int
    unwanted_messages: int


class _CallerInbox:
    """The process that Python tasks outside any GenServer call from. Answers never come this
    way.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def details(self) -> Details:
        return Details(module="bridge.node", label=b"calls from Python tasks")

    def deliver(self, message: Term) -> None:
        self.counts["unwanted"] += 1

    def deliver_urgent(self, message: Term) -> None:
        self.counts["unwanted"] += 1

    def deliver_signal(self, message: Term, *, urgent: bool = False) -> None:
        self.counts["unwanted"] += 1

    def stop(self, reason: Term) -> None:
        pass


class Node(RemoteCalls):
    """A hidden Erlang node.

    `nursery` runs the tasks of its services and handshakes; errors of handlers end their process,
    never the nursery. `carrier` moves the bytes; what it reads is fed to `handle_signal` and
    `handle_connection_lost` in wire order by one task.
    """

    def __init__(
        self,
        identity: Identity,
        cookie: Cookie,
        carrier: Carrier,
        *,
        nursery: trio.Nursery,
        resolver: Resolver | None = None,
        policy: Policy | None = None,
        tls: Securer | None = None,
        exports: Exports | None = None,
        limits: ExportLimits | None = None,
        output: Sink | None = None,
    ) -> None:
        self.name = identity.name
        self.creation = identity.creation
        self._carrier = carrier
        self._nursery = nursery
        self.policy = policy or Policy()
        ids = Ids(identity.name, identity.creation)
        self.router = Router(ids, self._emit, policy=self.policy)
        self.events = NodeEvents(alive=lambda pid: self.router.table.find(pid) is not None)
        self.connections = Connections(
            identity,
            cookie,
            carrier,
            nursery=nursery,
            resolver=resolver,
            policy=self.policy,
            lost=self.router.connection_lost,
            tls=tls,
            events=self.events,
        )
        self.autoconnect = AutoConnect(
            reachable=self._is_reachable,
            connect=self.connections.connect,
            failures=(NoConnection, ValueError),
            nursery=nursery,
        )
        NetKernel(self.router).start((Atom("net_kernel"),))
        self._caller_inbox = _CallerInbox()
        self._caller = self._new_caller()
        self._output = output or LogOutput()
        self._group_leader: Process | None = None
        self.exports = Exports()  # of its own: two nodes may be given the same table
        if exports is not None:
            self.exports.merge(exports)
        self.executions = Executions(
            self.router,
            limits or ExportLimits(),
            nursery=nursery,
            handle_of=partial(ProcessHandle, self),
        )
        self._spawns = Spawns(self.router, self.exports, self.executions)
        self.router.receive_spawn = self._spawns.receive
        user = UserOutput(self.name, self._output)
        Rex(self.router, self.exports, self.executions, user).start((Atom("rex"),))

    def __repr__(self) -> str:
        return f"<Node {self.name} creation {self.creation}>"

    # -- processes ---------------------------------------------------------------------------------

    async def start(
        self,
        server: GenServer,
        *,
        name: str | None = None,
        names: Iterable[str] = (),
        parent: Pid | None = None,
    ) -> Pid:
        """Start `server` as a process, registered under the name(s); returns its pid when `init` is
        done. It is linked with `parent`, and ends when that does.

        Raises what `init` raises, ValueError when a name is taken. Cancelled: nothing runs.
        """
        all_names = {Atom(each) for each in ([name] if name is not None else []) + list(names)}
        service = Service(self, server)
        pid: Pid = await self._nursery.start(partial(service.start, all_names, parent=parent))
        return pid

    async def spawn(
        self,
        fn: ProcessFunction,
        *args: Any,
        name: str | None = None,
        link: Pid | None = None,
        trap_exit: bool = False,
        mailbox: MailboxPolicy | None = None,
    ) -> Pid:
        """Run `fn(me, *args)` as a process; `me` is its ProcessHandle. Returns its pid at once.

        It ends with the function: `normal`, `Stop`'s reason, or `{exception, Type, Text}`. With
        `link` it is linked with that process before it runs. Raises ValueError when the name is
        taken.
        """
        await trio.lowlevel.checkpoint()
        return self.spawn_nowait(
            fn, *args, name=name, link=link, trap_exit=trap_exit, mailbox=mailbox
        ).pid

    def spawn_nowait(
        self,
        fn: ProcessFunction,
        *args: Any,
        name: str | None = None,
        link: Pid | None = None,
        parent: Pid | None = None,
        trap_exit: bool = False,
        mailbox: MailboxPolicy | None = None,
    ) -> Process:
        """The same without a checkpoint: the process is in the table, its function runs later.

        `parent` is linked with it, and shown as who started it. What is done with the Process
        before the next checkpoint comes before anything it does.
        """
        task = PlainProcess(self, fn, args, mailbox or MailboxPolicy())
        process = task.spawn(names=() if name is None else (Atom(name),), trap_exit=trap_exit)
        process.parent = parent
        for other in (parent, link):
            if other is not None:
                task.handle.link(other)
        self._nursery.start_soon(task.start)
        return process

    def add_relay_service(
        self, names: Sequence[str], *, module: str, hooks: RelayServiceHooks | None = None
    ) -> Pid:
        """A process that the relay answers for: its pid is what `Relay.install_service` wants.

        Signals of it that come up here (`sys` messages, links, exits) are answered by way of
        `hooks`. Raises ValueError when a name is taken.
        """
        proxy = RelayServiceProxy(self.router, module=module, hooks=hooks or RelayServiceHooks())
        return proxy.start(tuple(map(Atom, names)), relay_owned=True)

    def register(self, name: str, pid: Pid) -> None:
        """Raises ValueError when the name is taken, or `pid` is no living process of ours."""
        process = self.router.table.find(pid)
        if process is None:
            raise ValueError(f"{pid} is no living process of {self.name}")
        self.router.table.register(Atom(name), process)

    def unregister(self, name: str) -> None:
        """Raises KeyError when nothing has the name."""
        self.router.table.unregister(Atom(name))

    def whereis(self, name: str) -> Pid | None:
        process = self.router.table.find(Atom(name))
        return process.pid if process else None

    def registered(self) -> list[str]:
        return self.router.table.registered()

    def exit(self, pid: Pid, reason: Term) -> None:
        """exit/2: ask a process, ours or a connected node's, to exit. Raises EncodeError."""
        self.router.exit(self.caller().pid, pid, reason)

    async def stop_supervisors(self, reason: Term = gen.SHUTDOWN) -> None:
        """End the supervisors that nobody supervises, the last started first, each of them its
        children in order. Returns when they have ended.
        """
        for process in reversed(list(self.router.table)):
            task = process.inbox
            if isinstance(task, Service) and task.is_root_supervisor:
                self.router.exit(process.pid, process.pid, reason)
                await task.ended.wait()

    def stop_all(self, reason: Term = gen.SHUTDOWN) -> None:
        """End every process; links and watchers hear `reason`."""
        for process in self.router.table:
            self.router.terminate(process, reason)

    # -- calls out ---------------------------------------------------------------------------------

    async def call(
        self,
        dest: Dest,
        request: Term,
        *,
        timeout: float = CALL_TIMEOUT_S,  # noqa: ASYNC109  # the word of GenServer.call
    ) -> Term:
        """`GenServer.call`: ask, wait for the answer; connects if need be. `timeout` in seconds,
        all included.

        Raises trio.TooSlowError, ProcessDown (`noproc`, `noconnection`, the real reason),
        NoConnection, EncodeError. A late answer reaches nobody, also after a cancel.
        """
        target = self.target(dest)
        with trio.move_on_after(timeout):
            await self._room_towards(target)
            alias = self.answers_to_aliases(target)
            pending = PendingCall(self.router, self.caller(), target, alias=alias)
            try:
                pending.ask(request)
                return await pending.wait()
            finally:
                pending.forget()
        raise trio.TooSlowError(f"no answer from {target!r} in {timeout:g} s")

    def answers_to_aliases(self, target: Target) -> bool:
        """Does the node of `target` send answers to aliases? What no release before 24 does."""
        connection = self.connections.peers.connection_of(node_of(target))
        return connection is None or bool(connection.flags & ALIAS)

    async def cast(self, dest: Dest, request: Term) -> None:
        """`GenServer.cast`: never an answer, no error if nobody is there. Raises NoConnection,
        EncodeError.
        """
        await self.send(dest, gen.cast_message(request))

    async def send(self, dest: Dest, message: Term) -> None:
        """Send a message; connects if need be, and waits while too much waits for its node. Raises
        NoConnection, EncodeError. Cancelled: nothing was sent.
        """
        address = self.address(dest)
        await trio.lowlevel.checkpoint()
        await self._room_towards(address)
        self.router.send(self.caller().pid, address, message)

    def send_nowait(self, dest: Dest, message: Term) -> bool:
        """Send over a connection that is up; False if there is none. Raises EncodeError."""
        return self.router.send(self.caller().pid, self.address(dest), message)

    async def monitor(self, dest: Dest) -> Monitor:
        """Watch a process; `await monitor.wait()` gives its Down, `noconnection` if its node is not
        reached.
        """
        target = self.target(dest)
        await self._try_connect_to(target)
        return Monitor(self.router, self.caller(), target)

    async def ping(
        self,
        peer: str,
        *,
        timeout: float = CALL_TIMEOUT_S,  # noqa: ASYNC109  # as for call
    ) -> bool:
        """`Node.ping`: whether `peer` answers as a node of our cluster. Never raises for an absent
        one.
        """
        try:
            request = (Atom("is_auth"), Atom(self.name))
            answer = await self.call(("net_kernel", peer), request, timeout=timeout)
        except (NoConnection, ProcessDown, trio.TooSlowError):
            return False
        return bool(answer == Atom("yes"))

    # -- connections -------------------------------------------------------------------------------

    async def connect(self, peer: str) -> None:
        """`Node.connect`. Raises NoConnection saying why, ValueError for what is no node name."""
        await self.connections.connect(peer)

    def disconnect(self, peer: str) -> bool:
        """`Node.disconnect`: False if there was no connection."""
        connection = self.connections.peers.connection_of(peer)
        if connection is not None:
            self.connections.drop(connection, "disconnected by this node")
        return connection is not None

    def connected(self) -> list[str]:
        """Names of the nodes we are connected with."""
        return sorted(connection.peer for connection in self.connections.peers)

    def keep_connected(self, peers: Iterable[str], *, backoff: Backoff | None = None) -> Kept:
        """Connect with each of `peers`, now and whenever the connection is lost, until `stop()`.

        One task per peer, while the node runs. Raises ValueError for what is no other node's name.
        """
        names = list(peers)
        for peer in names:
            split_node_name(peer)
            if peer == self.name:
                raise ValueError("a node does not connect to itself")
        return Kept(self.connections, names, self._nursery, backoff or Backoff())

    def monitor_nodes(self, *, events_max: int = EVENTS_MAX) -> NodeMonitor:
        """`with node.monitor_nodes() as events`, then `async for`: NodeUp and NodeDown of any.

        Who is more than `events_max` behind misses some; the next event says how many.
        """
        return self.events.monitor(events_max)

    async def serve(self, listeners: list[trio.SocketListener]) -> None:
        """Accept peers until cancelled. Start it when the services are registered: names answer
        before.
        """
        await self.connections.serve(listeners)

    def handle_signal(self, conn: int, control: bytes, message: bytes | None) -> None:
        """One signal from the carrier: bare terms. Never blocks. A peer that breaks a rule is
        disconnected.
        """
        connection = self.connections.peers.by_id(conn)
        if connection is None:
            return  # dropped by us; what was on its way is nobody's
        try:
            parsed = c.read(control, payload=message is not None)
            if isinstance(parsed, c.SpawnRequest) and self._spawns.is_too_large(message):
                self._spawns.refuse(connection.peer, parsed, SYSTEM_LIMIT)
                return
            self.router.receive(connection.peer, parsed, lambda: decode_bare(message or b"")[0])
        except (RemoteProtocolError, DecodeError) as error:
            rule = error.rule if isinstance(error, RemoteProtocolError) else str(error)
            self.connections.drop(connection, rule, rule_broken=True)

    def handle_connection_lost(self, conn: int, reason: str) -> None:
        """The carrier lost a connection: everything over it ends with `noconnection`. Never
        blocks.
        """
        self.connections.lost(conn, reason)

    def statistics(self) -> NodeStatistics:
        counts = self.router.counts()
        return NodeStatistics(
            connections=len(self.connected()),
            unauthenticated=self.connections.unauthenticated,
            processes=counts["processes"],
            monitors_held=counts["monitors_held"],
            monitors_on_us=counts["monitors_on_us"],
            pending_answers=counts["aliases"],
            unwanted_messages=self._caller_inbox.counts["unwanted"],
        )

    # -- for processes -----------------------------------------------------------------------------

    def begin_monitor_node(self, process: Process, node: str) -> None:
        if self._is_reachable(node):
            self.events.monitor_node(process, node, True)
        elif self.router.table.find(process.pid) is not None:
            process.inbox.deliver_signal((NODEDOWN, Atom(node)))

    async def monitor_for(self, me: ProcessHandle, dest: Dest) -> Reference:
        """`me.monitor(dest)`, held back until the node is connected or cannot be."""
        await self._try_connect_to(self.target(dest))
        return me.monitor(dest)

    async def link_for(self, me: ProcessHandle, other: Pid) -> None:
        """`me.link(other)`, held back as above."""
        await self._try_connect_to(other)
        me.link(other)

    def address(self, dest: Dest) -> Address:
        """Where `dest` is: a pid, an alias, or a name at a node (ours, if it says none)."""
        return address_of(dest, here=self.name)

    def target(self, dest: Dest) -> Target:
        """The same for what can be called and monitored. Raises ValueError for an alias."""
        return target_of(dest, here=self.name)

    # -- helpers -----------------------------------------------------------------------------------

    def caller(self) -> Process:
        """The process that Python tasks call from; a killed one is replaced, as any caller would
        be.
        """
        if self.router.table.find(self._caller.pid) is None:
            self._caller = self._new_caller()
        return self._caller

    def group_leader(self) -> Pid:
        """The io server of what we spawn on other nodes; started when it is first wanted."""
        if self._group_leader is None or self.router.table.find(self._group_leader.pid) is None:
            leader = GroupLeader(self, self._output)
            self._group_leader = self.spawn_nowait(leader.run)
        return self._group_leader.pid

    def takes_spawns(self, peer: str) -> bool:
        """Whether spawn requests were negotiated with `peer`; with ourselves they always are."""
        connection = self.connections.peers.connection_of(peer)
        return connection is None or bool(connection.flags & SPAWN)

    def start_soon(self, run: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Run a task of a process of this node; it lets no error out."""
        self._nursery.start_soon(run, *args)

    def _new_caller(self) -> Process:
        return self.router.spawn(self._caller_inbox, trap_exit=True)

    def _is_reachable(self, node: str) -> bool:
        return node == self.name or self.connections.peers.connection_of(node) is not None

    async def connect_if_other(self, peer: str) -> None:
        """Connect with `peer` if it is not this node. Raises NoConnection, ValueError."""
        if peer != self.name:
            await self.connections.connect(peer)
        else:
            await trio.lowlevel.checkpoint()

    async def _connect_to(self, address: Address) -> None:
        await self.connect_if_other(node_of(address))

    async def _room_towards(self, address: Address) -> None:
        """Connected, with room on its socket: above the high mark senders wait, as a BEAM's do.

        Where that is so already it is no checkpoint, but does raise Cancelled.
        """
        peers, node = self.connections.peers, node_of(address)
        if peers.connection_of(node) is None:
            await self._connect_to(address)
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
        if connection := peers.connection_of(node):
            await self._carrier.wait_writable(connection.id)

    async def wait_room(self, node: str) -> None:
        """Until there is room on the socket of `node`, if it is connected. No checkpoint if so."""
        if connection := self.connections.peers.connection_of(node):
            await self._carrier.wait_writable(connection.id)

    async def _try_connect_to(self, address: Address) -> None:
        with suppress(NoConnection):  # the monitor or link says noconnection at once
            await self._connect_to(address)

    def _emit(self, node: str, message: c.ControlMessage, payload: Term) -> bool:
        connection = self.connections.peers.connection_of(node)
        if connection is None:
            return False
        match message:
            case c.Exit(to=to) | c.UnlinkId(to=to) | c.UnlinkIdAck(to=to):
                if to.creation != connection.creation:
                    return True  # a BEAM closes on these for a pid of its earlier life (11)
        if not can_express(message, connection.flags):
            return True  # lost, as a BEAM that knows it loses it
        control, body = encode_signal(message, payload, connection.flags)
        try:
            self._carrier.send(connection.id, control, body)
        except (
            OSError
        ) as error:  # its queue is full; a gap in the order of signals is not an option
            self.connections.drop(connection, f"the carrier is full: {error}", rule_broken=True)
            return False
        return True
