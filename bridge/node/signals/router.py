"""Signals and what they do to processes: the receiving side of dist-protocol.md, 5. No sockets, no
tasks.

A signal to a process of another node goes out through `emit`; one to a process of our own goes
through the same door as if it had come from a peer, so that local and remote monitors, links and
exits are one code. Signals are handled here at once, whatever the processes are doing:
acknowledgements and DOWNs never wait for slow application code.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Literal

from bridge.dist import control as c
from bridge.dist.errors import RemoteProtocolError
from bridge.etf import Atom, EncodeError, Pid, Reference, decode_bare, encode_bare
from bridge.node.signals import gen
from bridge.node.signals.addresses import Address, Target, node_of
from bridge.node.signals.aliases import Aliases, ProcessAlias
from bridge.node.signals.guard import EXIT2, Guard
from bridge.node.signals.ids import Ids
from bridge.node.signals.links import LINKS_MAX, LinkIndex, Links
from bridge.node.signals.monitors import Held, HeldOnUs, Watch
from bridge.node.signals.policy import Policy
from bridge.node.signals.spawn_requests import SpawnRequests
from bridge.node.signals.table import Inbox, Process, ProcessTable, Watcher

Term = Any
ReceiveSpawn = Callable[[str, c.SpawnRequest, Callable[[], Term]], None]
_COPIED = c.Send | c.RegSend | c.AliasSend | c.AltactSend | c.SpawnRequest  # on their way to us


class Router:
    """The processes of one node and the signals between them and the world.

    `emit(node, message, payload)` sends to a connected node and says whether it is connected.
    """

    def __init__(
        self,
        ids: Ids,
        emit: Callable[[str, c.ControlMessage, Term], bool],
        *,
        policy: Policy | None = None,
    ) -> None:
        self.ids = ids
        self.policy = policy or Policy()
        self.table = ProcessTable()
        self._emit_remote = emit
        self._own_name = ids.node.name
        self._guard = Guard(self.policy, self._own_name)
        self._link_index = LinkIndex()
        self._held = Held()
        self.held_on_us = HeldOnUs(self._own_name)
        self._aliases = Aliases()
        self._local: deque[tuple[c.ControlMessage, Term]] = deque()
        self._draining = False
        self.origin = self._own_name  # the node whose signal is handled at this moment
        self.spawn_requests = SpawnRequests(self)
        self.receive_spawn: ReceiveSpawn = self._refuse_spawn

    # -- what processes of ours do -----------------------------------------------------------------

    def spawn(
        self,
        inbox: Inbox,
        *,
        names: Iterable[Atom] = (),
        trap_exit: bool = False,
        owner: Literal["python", "relay"] = "python",
    ) -> Process:
        """A new process. Raises ValueError when a name is taken."""
        pid = self.ids.next_pid()
        links = Links(pid, self._link_index)
        process = Process(pid=pid, inbox=inbox, links=links, trap_exit=trap_exit, owner=owner)
        self.table.add(process, names)
        return process

    def send(self, sender: Pid, to: Address, message: Term, *, priority: bool = False) -> bool:
        """Send a message; False if it is to a node we are not connected with. Raises
        EncodeError. With `priority`, to a priority alias, it goes before ordinary ones.
        """
        if priority:
            return self._send_altact(sender, to, message, c.ALTACT_PRIORITY)
        match to:
            case Pid():
                return self._emit(node_of(to), c.Send(sender, to), message)
            case Reference():
                return self._emit(node_of(to), c.AliasSend(sender, to), message)
            case (name, _):
                return self._emit(node_of(to), c.RegSend(sender, name), message)

    def reply(self, sender: Pid, to: gen.Sender, value: Term) -> None:
        """Answer a call. Raises EncodeError for `value`; a tag that cannot go back is its caller's
        loss.

        So is one that is no reference, if the caller is a process of ours: a From is what somebody
        claims, and `{Tag, Value}` of his choice may not come to one of ours as our own message.
        """
        if self.ids.is_own(to.pid.node, to.pid.creation) and not gen.is_mark(to.tag):
            return
        try:
            self.send(sender, to.reply_to, to.reply(value))
        except EncodeError:
            if gen.sendable(to.tag) == to.tag:
                raise

    def exit(
        self, sender: Pid, to: Pid | Reference, reason: Term, *, priority: bool = False
    ) -> bool:
        """exit/2; False if `to` is of a node we are not connected with. An alias stands for its
        process; a node that has no such exits (before OTP 28) is not asked.
        """
        if priority or isinstance(to, Reference):
            flags = c.ALTACT_EXIT | (c.ALTACT_PRIORITY if priority else 0)
            return self._send_altact(sender, to, reason, flags)
        return self._emit(node_of(to), c.Exit2(sender, to, reason), None)

    def _send_altact(self, sender: Pid, to: Address, payload: Term, flags: int) -> bool:
        match to:
            case Reference():
                return self._emit(
                    node_of(to), c.AltactSend(flags | c.ALTACT_ALIAS, sender, to), payload
                )
            case (name, _):
                return self._emit(
                    node_of(to), c.AltactSend(flags | c.ALTACT_NAME, sender, name), payload
                )
            case pid:
                return self._emit(node_of(pid), c.AltactSend(flags, sender, pid), payload)

    def link(self, process: Process, other: Pid) -> None:
        if other == process.pid or not process.links.link(other):
            return
        if not self._emit(node_of(other), c.Link(process.pid, other), None) and (
            process.links.receive_exit(other)
        ):
            self._link_broke(process, other, gen.NOCONNECTION)

    def unlink(self, process: Process, other: Pid) -> None:
        id_ = process.links.unlink(other)
        if id_ is not None:
            self._emit(node_of(other), c.UnlinkId(id_, process.pid, other), None)

    def monitor(
        self,
        process: Process,
        target: Target,
        notify: Callable[[Term], None] | None = None,
        *,
        ref: Reference | None = None,
        urgent: bool = False,
    ) -> Reference:
        """Watch `target`. One DOWN comes, at once (`noconnection`) if its node is not connected."""
        ref = ref or self.ids.next_ref()
        watch = Watch(process, target, notify, urgent)
        self._held.add(ref, watch)
        message = c.MonitorP(process.pid, watch.signal_target, ref)
        if not self._emit(watch.node, message, None):
            self._down(ref, gen.NOCONNECTION)
        return ref

    def hold_monitor(
        self,
        process: Process,
        target: Pid,
        notify: Callable[[Term], None] | None,
        *,
        ref: Reference,
    ) -> None:
        """`process` watches `target`, whose node knows it already: it was spawned so."""
        self._held.add(ref, Watch(process, target, notify))

    def demonitor(self, ref: Reference) -> None:
        """No DOWN of `ref` comes any more. Unknown ones are normal."""
        watch = self._held.take(ref)
        if watch is not None:
            message = c.DemonitorP(watch.owner.pid, watch.signal_target, ref)
            self._emit(watch.node, message, None)

    def emit(self, node: str, message: c.ControlMessage, payload: Term = None) -> bool:
        """Send a signal as it is; False if `node` is not connected. Raises EncodeError."""
        return self._emit(node, message, payload)

    def open_alias(self, ref: Reference, receive: Callable[[Term], None]) -> None:
        """Answers to the alias `ref` go to `receive` until `close_alias`."""
        self._aliases.open(ref, receive)

    def close_alias(self, ref: Reference) -> None:
        self._aliases.close(ref)

    def alias(self, process: Process, *, priority: bool = False, once: bool = False) -> Reference:
        """A new alias of `process`, until `unalias`, its end, or with `once` its first message."""
        ref = self.ids.next_ref()
        self._aliases.add(ref, ProcessAlias(process, priority, once))
        return ref

    def unalias(self, ref: Reference) -> bool:
        """Whether there was that alias of a process."""
        return self._aliases.remove(ref)

    def terminate(self, process: Process, reason: Term) -> None:
        """`process` ends: its links and watchers hear `reason`, its own monitors are given back.

        At most once per process. A reason that cannot be sent becomes `not_sendable`.
        """
        if not self.table.remove(process):
            return
        reason = gen.sendable(reason)
        self._aliases.forget_process(process)
        for ref in tuple(process.watching):  # first: it may watch itself, and hears no more
            self.demonitor(ref)
        for other in process.links.take_all():
            self._emit(node_of(other), c.Exit(process.pid, other, reason), None)
        for ref, watcher in tuple(process.watchers.items()):
            node = node_of(watcher.pid)
            self.held_on_us.remove(node, ref)
            self._emit(node, c.MonitorPExit(watcher.target, watcher.pid, ref, reason), None)
        process.inbox.stop(reason)

    # -- what comes from a node --------------------------------------------------------------------

    def receive(self, origin: str, message: c.ControlMessage, payload: Callable[[], Term]) -> None:
        """One signal from the node `origin`. `payload` decodes the payload term when it is wanted.

        Raises RemoteProtocolError (of `payload` too): close that connection.
        """
        self.origin = origin
        match message:
            # What each call is made of comes first: the arms are tried in order.
            case c.MonitorP():
                self._check_origin(origin, message.sender)
                self._receive_monitor(origin, message.sender, message.target, message.ref)
            case c.RegSend():
                self._deliver(origin, self.table.find(message.name), payload)
            case c.Send():
                self._deliver(origin, self.table.find(message.to), payload)
            case c.DemonitorP():
                self._check_origin(origin, message.sender)
                self.held_on_us.remove(origin, message.ref, message.sender)
            case c.AliasSend():
                self._deliver_to_alias(origin, message.alias, payload)
            case c.AltactSend():
                self._receive_altact(origin, message, payload)
            case c.MonitorPExit(_, _, ref):
                watch = self._held.get(ref)
                if watch is not None and watch.node == origin:
                    self._down(ref, _reason(message, payload))
                else:
                    self.spawn_requests.check_down(origin, ref)
            case c.Link(sender, to):
                self._check_origin(origin, sender)
                self._receive_link(sender, to)
            case c.UnlinkId(id_, sender, to):
                self._check_origin(origin, sender)
                self._receive_unlink(sender, to)
                self._emit(origin, c.UnlinkIdAck(id_, to, sender), None)
            case c.Unlink(sender, to):
                self._check_origin(origin, sender)
                self._receive_unlink(sender, to)
            case c.UnlinkIdAck(id_, sender, to):
                self._check_origin(origin, sender)
                if process := self.table.find(to):
                    process.links.receive_unlink_ack(sender, id_)
            case c.Exit(sender, to):
                self._check_origin(origin, sender)
                process = self.table.find(to)
                if process is not None and process.links.receive_exit(sender):
                    self._link_broke(process, sender, _reason(message, payload))
            case c.Exit2(sender, to):
                process = self.table.find(to)
                if process is not None and self._guard.lets(origin, process, EXIT2):
                    self._exit2_signal(process, sender, _reason(message, payload))
            case c.SpawnRequest(ref, sender):
                self._check_origin(origin, sender, ref)
                self.receive_spawn(origin, message, payload)
            case c.SpawnReply():
                self.spawn_requests.receive(origin, message)
            case c.GroupLeader(leader, to):
                process = self.table.find(to)
                if process is not None and self._guard.lets(origin, process, "group_leader/2"):
                    process.group_leader = leader

    def connection_lost(self, node: str) -> None:
        """Everything over the connection to `node` is gone (dist-protocol.md, 5.5)."""
        self.held_on_us.forget_node(node)
        for pid in self._link_index.owners(node):
            if process := self.table.find(pid):
                for other in process.links.take_all_of(node):
                    self._link_broke(process, other, gen.NOCONNECTION)
        for ref in self._held.of_node(node):
            self._down(ref, gen.NOCONNECTION)
        self.spawn_requests.connection_lost(node)

    def monitors_of(self, process: Process) -> list[Target]:
        """What `process` watches, once for each monitor."""
        watches = map(self._held.get, process.watching)
        return [watch.target for watch in watches if watch is not None]

    def counts(self) -> dict[str, int]:
        return {
            "processes": len(self.table),
            "monitors_held": len(self._held),
            "monitors_on_us": len(self.held_on_us),
            "aliases": len(self._aliases),
        }

    # -- helpers -----------------------------------------------------------------------------------

    def _refuse_spawn(
        self, origin: str, request: c.SpawnRequest, payload: Callable[[], Term]
    ) -> None:
        """Nothing is published: refused at once, never left open."""
        self._emit(origin, c.SpawnReply(request.ref, request.sender, 0, gen.NOTSUP), None)

    def _emit(self, node: str, message: c.ControlMessage, payload: Term) -> bool:
        if node != self._own_name:
            return self._emit_remote(node, message, payload)
        if isinstance(message, _COPIED):
            # A copy by way of the codec: what arrives has the types, and the errors, of a remote
            # send.
            payload, _ = decode_bare(encode_bare(payload))
        self._local.append((message, payload))
        if not self._draining:  # one at a time and in order, however deep the consequences go
            self._draining, origin = True, self.origin
            try:
                while self._local:
                    self._receive_own(*self._local.popleft())
            finally:
                self._draining, self.origin = False, origin
        return True

    def _receive_own(self, message: c.ControlMessage, payload: Term) -> None:
        self.receive(self._own_name, message, lambda: payload)

    def _check_origin(self, origin: str, *made: Pid | Reference) -> None:
        for each in made:
            if each.node.name != origin:
                raise RemoteProtocolError(
                    "links, exits, monitors and spawns come from a pid of the connected node"
                )

    def _deliver(
        self,
        origin: str,
        process: Process | None,
        payload: Callable[[], Term],
    ) -> None:
        if process is None:
            return
        message = payload()
        answer = gen.answer_in(message)
        if answer is not None and self.ids.is_own(answer[0].node, answer[0].creation):
            # An answer sent to the pid, as OTP 25's net_kernel does; a late one is nobody's.
            if receive := self._aliases.receiver(answer[0]):
                receive(message)
            return
        if (
            type(message) is tuple
            and len(message) == 2
            and type(message[0]) is Reference
            and (receive := self._aliases.receiver(message[0]))
        ):  # the answer of a node that sends none to aliases, while its call waits
            receive(message)
            return
        if origin == self._own_name or self._authorised(origin, process, message):
            process.inbox.deliver(message)

    def may(self, node: str, what: str) -> bool:
        """Whether `node` may do `what`, which changes or stops things; this node always may."""
        return self._guard.may(node, what)

    def _authorised(self, origin: str, process: Process, message: Term) -> bool:
        """Ask the policy for a message of a peer. A call that is refused is answered."""
        refused = self._guard.refusal(origin, process, message)
        if refused is None:
            return True
        if isinstance(refused.request, gen.Call | gen.SystemRequest):
            self.reply(process.pid, refused.request.sender, gen.unauthorized(refused.why))
        return False

    def _deliver_to_alias(
        self, origin: str, ref: Reference, payload: Callable[[], Term], *, priority: bool = False
    ) -> None:
        if receive := self._aliases.receiver(ref):
            receive(payload())
        elif alias := self._aliases.get(ref):
            message = payload()
            if alias.once:
                self._aliases.remove(ref)
            if origin == self._own_name or self._authorised(origin, alias.process, message):
                inbox = alias.process.inbox
                (inbox.deliver_urgent if priority and alias.priority else inbox.deliver)(message)

    def _receive_altact(
        self, origin: str, message: c.AltactSend, payload: Callable[[], Term]
    ) -> None:
        """Op 37. Priority counts only over a priority alias; a call's alias does not exit."""
        priority = bool(message.flags & c.ALTACT_PRIORITY)
        if not message.flags & c.ALTACT_EXIT:
            if isinstance(message.to, Reference):
                self._deliver_to_alias(origin, message.to, payload, priority=priority)
            else:
                self._deliver(origin, self.table.find(message.to), payload)
            return
        process, urgent = None, False
        if not isinstance(message.to, Reference):
            process = self.table.find(message.to)
        elif alias := self._aliases.get(message.to):
            process, urgent = alias.process, priority and alias.priority
        if process is not None and self._guard.lets(origin, process, EXIT2):
            self._exit2_signal(process, message.sender, payload(), urgent=urgent)

    def _receive_monitor(
        self, origin: str, sender: Pid, target: Pid | Atom, ref: Reference
    ) -> None:
        process = self.table.find(target)
        if process is None:
            self._emit(origin, c.MonitorPExit(target, sender, ref, gen.NOPROC), None)
            return
        if ref.node.name != origin:
            raise RemoteProtocolError("a monitor's reference is made by the node that holds it")
        self.held_on_us.add(origin, ref, process, Watcher(sender, target))

    def _receive_link(self, sender: Pid, to: Pid) -> None:
        process = self.table.find(to)
        if process is None:
            self._emit(node_of(sender), c.Exit(to, sender, gen.NOPROC), None)
            return
        if len(process.links) >= LINKS_MAX:
            raise RemoteProtocolError(f"a process has at most {LINKS_MAX} links")
        process.links.receive_link(sender)

    def _receive_unlink(self, sender: Pid, to: Pid) -> None:
        if process := self.table.find(to):
            process.links.receive_unlink(sender)

    def _down(self, ref: Reference, reason: Term) -> None:
        watch = self._held.take(ref)
        if watch is None:  # a loss within a loss: its DOWN has been given already
            return
        if watch.notify is not None:
            watch.notify(reason)
        else:
            message = (gen.DOWN, ref, gen.PROCESS, watch.target, reason)
            watch.owner.inbox.deliver_signal(message, urgent=watch.urgent)

    def _exit_signal(
        self, process: Process, sender: Pid, reason: Term, *, urgent: bool = False
    ) -> None:
        """A link broke: `normal` kills nobody, and `kill` is a reason like any other."""
        if process.trap_exit:
            process.inbox.deliver_signal((gen.EXIT, sender, reason), urgent=urgent)
        elif reason != gen.NORMAL:
            self.terminate(process, reason)

    def _link_broke(self, process: Process, other: Pid, reason: Term) -> None:
        urgent = other in process.urgent_links
        process.urgent_links.discard(other)
        self._exit_signal(process, other, reason, urgent=urgent)

    def _exit2_signal(
        self, process: Process, sender: Pid, reason: Term, *, urgent: bool = False
    ) -> None:
        """exit/2: `kill` cannot be trapped."""
        if reason == gen.KILL:
            self.terminate(process, gen.KILLED)
        else:
            self._exit_signal(process, sender, reason, urgent=urgent)


def _reason(message: c.Exit | c.Exit2 | c.MonitorPExit, payload: Callable[[], Term]) -> Term:
    return payload() if message.reason is c.PAYLOAD else message.reason
