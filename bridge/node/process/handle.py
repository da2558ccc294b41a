"""What a process in Python holds of itself: its pid, its mailbox, and the signals it can send.

Everything but `receive` is done at once and never blocks. A signal to a node that is not connected
waits, in order, until it is (see `autoconnect`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

from bridge.etf import Pid, Reference, encode_bare
from bridge.node.process.mailbox import MailboxStatistics
from bridge.node.process.patterns import ANY, predicate_of
from bridge.node.signals import gen
from bridge.node.signals.addresses import Address, Dest, Target, node_of
from bridge.node.signals.gen import Sender
from bridge.node.signals.table import Process

if TYPE_CHECKING:
    from bridge.node.node import Node
    from bridge.node.process.task import ProcessTask

Term = Any


class ProcessHandle:
    """One living process, for the task that is it: a mailbox has one reader."""

    def __init__(self, node: Node, task: ProcessTask) -> None:
        self.node = node
        self._task = task
        self._router = node.router
        self._process = task.process
        self._unsent_monitors: set[Reference] = set()
        self.state: Term = None  # what `:sys.get_state` shows of a process without get_state

    def __repr__(self) -> str:
        return f"<{self._task.module} {self.pid}>"

    @property
    def pid(self) -> Pid:
        return self._process.pid

    @property
    def trap_exit(self) -> bool:
        """Whether the end of a link, and exit/2, come as `{'EXIT', Pid, Reason}` messages."""
        return self._process.trap_exit

    @trap_exit.setter
    def trap_exit(self, on: bool) -> None:
        self._process.trap_exit = on

    @property
    def names(self) -> list[str]:
        return sorted(name.name for name in self._process.names)

    def mailbox_statistics(self) -> MailboxStatistics:
        return self._task.mailbox.statistics()

    # -- messages ----------------------------------------------------------------------------------

    async def receive(
        self,
        pattern: Any = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # the `after` of a receive
    ) -> Term:
        """The first message that matches; the others stay in the mailbox, in order.

        `pattern` is a function that says yes or no, or a pattern (see `patterns`); None takes any
        message. `timeout` in seconds, 0 for what is there already. Raises trio.TooSlowError. A
        checkpoint always. Cancelled: no message is taken.
        """
        wanted = predicate_of(pattern)
        return await self._task.mailbox.receive(wanted, inf if timeout is None else timeout)

    def forget(self, pattern: Any) -> int:
        """Drop the messages that match and have not been received; how many there were."""
        return self._task.mailbox.remove(predicate_of(pattern) or (lambda _: True))

    def send(self, to: Dest, message: Term, *, priority: bool = False) -> bool:
        """Send a message. False: it is lost, too many signals wait for that node already.

        `priority`: over a priority alias (see `alias`) it goes before ordinary messages; to
        anything else, and to releases before OTP 28, it is an ordinary one. Raises EncodeError.
        """
        address = self.node.address(to)
        return self._signal(
            address,
            partial(self._router.send, self.pid, address, message, priority=priority),
            check=lambda: encode_bare(message),
        )

    def reply(self, sender: Sender, value: Term) -> None:
        """Answer a call (`gen.sender_of` its From). Raises EncodeError. Lost if the node is."""
        self._task.reply(sender, value)

    def alias(self, *, priority: bool = False, once: bool = False) -> Reference:
        """A reference that stands for this process as an address, until `unalias` or its end.

        `priority`: who sends over it with priority is heard before all others (OTP 28). `once`: its
        first message is its last, as for the answer to a request.
        """
        return self._router.alias(self._process, priority=priority, once=once)

    def unalias(self, alias: Reference) -> bool:
        """What is sent to `alias` from now on reaches nobody. False: it was none any more."""
        return self._router.unalias(alias)

    # -- links and monitors ------------------------------------------------------------------------

    def link(self, other: Pid, *, priority: bool = False) -> None:
        """When one of the two ends, the other hears of it: see `trap_exit`.

        `priority`: the EXIT goes before ordinary messages.
        """
        (self._process.urgent_links.add if priority else self._process.urgent_links.discard)(other)
        self._signal(other, partial(self._if_alive, self._router.link, other))

    def unlink(self, other: Pid) -> None:
        """An EXIT of `other` that is not here yet does not come any more."""
        self._signal(other, partial(self._if_alive, self._router.unlink, other))

    def monitor(self, dest: Dest, *, priority: bool = False) -> Reference:
        """Watch a process; `{'DOWN', Ref, process, Pid | {Name, Node}, Reason}` comes, once.

        `priority`: it goes before ordinary messages.
        """
        target = self.node.target(dest)
        ref = self._router.ids.next_ref()
        self._unsent_monitors.add(ref)
        self._signal(
            target, partial(self._if_alive, partial(self._begin_monitor, ref, priority), target)
        )
        return ref

    def demonitor(self, ref: Reference, *, flush: bool = False) -> None:
        """No DOWN of `ref` comes any more; `flush`: one that has come already goes too."""
        self._unsent_monitors.discard(ref)
        self._router.demonitor(ref)
        if flush:
            self.forget((gen.DOWN, ref, ANY, ANY, ANY))

    def exit(self, to: Pid | Reference, reason: Term, *, priority: bool = False) -> None:
        """exit/2: ask `to` (a pid, or an alias of OTP 28) to exit; `kill` cannot be refused.

        A process that ends itself raises `Stop(reason)`. `priority` as for `send`. Raises
        EncodeError.
        """
        self._signal(
            to,
            partial(self._router.exit, self.pid, to, reason, priority=priority),
            check=lambda: encode_bare(reason),
        )

    # -- nodes -------------------------------------------------------------------------------------

    def monitor_nodes(self, on: bool = True) -> None:
        """`{nodeup, Node}` and `{nodedown, Node}` come for every node; twice for who asks twice."""
        self.node.events.monitor_nodes(self._process, on)

    def monitor_node(self, node: str, on: bool = True) -> None:
        """`{nodedown, Node}` comes once, at once if `node` cannot be reached."""
        if on:
            begin = partial(self.node.begin_monitor_node, self._process, node)
            self.node.autoconnect.run(node, begin)
        else:
            self.node.events.monitor_node(self._process, node, False)

    # -- helpers -----------------------------------------------------------------------------------

    def _signal(
        self,
        to: Address | Target,
        action: Callable[[], object],
        *,
        check: Callable[[], object] | None = None,
    ) -> bool:
        return self.node.autoconnect.run(node_of(to), action, check)

    def _begin_monitor(
        self, ref: Reference, priority: bool, process: Process, target: Target
    ) -> None:
        if ref in self._unsent_monitors:
            self._unsent_monitors.discard(ref)
            self._router.monitor(process, target, ref=ref, urgent=priority)

    def _if_alive(self, action: Callable[..., object], other: Any) -> None:
        """A signal that waited for a connection: who sent it may have ended meanwhile."""
        if self._router.table.find(self.pid) is not None:
            action(self._process, other)
