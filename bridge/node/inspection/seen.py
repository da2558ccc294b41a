"""One process as tools see it: what the node keeps for it and what its owner tells."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import trio

from bridge.etf import Atom, Pid
from bridge.node.inspection.stacks import current_function, stack_of
from bridge.node.process.details import Details, Mfa, module_atom
from bridge.node.process.mailbox import Mailbox
from bridge.node.process.task import ProcessTask
from bridge.node.signals.addresses import Target
from bridge.node.signals.router import Router
from bridge.node.signals.table import Process

Term = Any
UNDEFINED = Atom("undefined")
_Row = TypeVar("_Row")
_CHECKPOINT_EVERY = 100  # processes, some 5 ms


@dataclass(frozen=True, slots=True)
class Seen:
    """One living process at this moment. `parent`: the supervisor above it, None for the root."""

    process: Process
    details: Details
    parent: Pid | None
    group_leader: Pid
    router: Router

    @property
    def targets(self) -> list[Target]:
        """What it watches: pids, and names at nodes."""
        return self.router.monitors_of(self.process)

    @property
    def pid(self) -> Pid:
        return self.process.pid

    @property
    def module(self) -> Atom:
        return module_atom(self.details.module)

    @property
    def name(self) -> Atom | None:
        """Its registered name. A process of ours may have several, the first in order counts; the
        Elixir alias comes before the name that is kept for Erlang.
        """
        return min(self.process.names, key=lambda name: name.name, default=None)

    @property
    def initial_call(self) -> Mfa:
        """As `proc_lib:translate_initial_call` gives it."""
        if self.process.initial_call is None:
            return (self.module, Atom("init"), 1)
        module, function, arity = self.process.initial_call
        return (module_atom(module), Atom(function), arity)

    @property
    def is_proc_lib(self) -> bool:
        """Whether it is an OTP process: a GenServer, a service, no plain function."""
        return self.process.initial_call is None or self.process.initial_call[1] == "init"

    @property
    def current_function(self) -> Mfa:
        """What its owner says, else where its task stands; one without a task runs what it was
        started with, or handles messages.
        """
        where = self.details.doing or current_function(self._task)
        if where is None and not self.is_proc_lib:
            return self.initial_call
        return where or (self.module, Atom("handle"), 1)

    @property
    def stack(self) -> list[Term]:
        """The calls that it is in, innermost first."""
        return list(stack_of(self._task)) or [(*self.current_function, [])]

    @property
    def messages(self) -> list[Term]:
        """Those in its mailbox."""
        mailbox = getattr(self.process.inbox, "mailbox", None)
        return mailbox.snapshot() if isinstance(mailbox, Mailbox) else []

    @property
    def _task(self) -> trio.lowlevel.Task | None:
        inbox = self.process.inbox
        return inbox.task if isinstance(inbox, ProcessTask) else None

    @property
    def suspended(self) -> bool:
        return bool(getattr(self.process.inbox, "suspended", False))

    @property
    def status(self) -> Atom:
        """`waiting` for a message, `runnable` when one waits for it, or `suspended` by `sys`."""
        if self.suspended:
            return Atom("suspended")
        return Atom("runnable" if self.message_queue_len else "waiting")

    @property
    def message_queue_len(self) -> int:
        return self.details.queue_len + len(getattr(self.process.inbox, "mailbox", ()))

    @property
    def reductions(self) -> int:
        """The work it has done, in the unit that suits it: messages, or what its owner counts."""
        if self.details.handled is not None:
            return self.details.handled
        mailbox = getattr(self.process.inbox, "mailbox", None)
        if isinstance(mailbox, Mailbox):
            return mailbox.statistics().received
        return int(getattr(self.process.inbox, "received", 0))

    @property
    def memory(self) -> int:
        """What the node keeps for it, in bytes, and what its owner says that it has besides.

        The node's part is its entry with names, links and monitors and the slots of its mailbox,
        without the objects that messages and state are made of: those may be shared.
        """
        process, inbox = self.process, self.process.inbox
        kept = (process, process.names, process.links, process.watchers, process.watching, inbox)
        queue = getattr(inbox, "mailbox", None)
        slots = sys.getsizeof(queue) + 8 * len(queue) if queue is not None else 0
        return sum(map(sys.getsizeof, kept)) + slots + self.details.memory_bytes

    @property
    def links(self) -> list[Pid]:
        return list(self.process.links.active())

    @property
    def monitored_by(self) -> list[Pid]:
        return [watcher.pid for watcher in self.process.watchers.values()]

    @property
    def label(self) -> Term:
        return UNDEFINED if self.details.label is None else self.details.label

    @property
    def dictionary(self) -> list[tuple[Term, Term]]:
        """What `proc_lib` would have put there, then what its owner adds."""
        entries: list[tuple[Term, Term]] = []
        if self.is_proc_lib:
            entries.append((Atom("$initial_call"), self.initial_call))
            entries.append((Atom("$ancestors"), [] if self.parent is None else [self.parent]))
        if self.details.label is not None:
            entries.append((Atom("$process_label"), self.details.label))
        return [*entries, *self.details.dictionary]

    @property
    def kind(self) -> Atom:
        """`supervisor` or `worker`, as in a supervision tree."""
        return Atom("supervisor" if self.details.supervisor else "worker")


class Processes:
    """The processes of one node, each seen anew when it is asked for.

    `root` gives the pid of the application's supervisor, the parent of whoever has no other.
    """

    def __init__(self, router: Router, root: Callable[[], Pid | None]) -> None:
        self._router = router
        self._root = root

    def __len__(self) -> int:
        return len(self._router.table)

    def pids(self) -> list[Pid]:
        return [process.pid for process in self._router.table]

    def find(self, target: Term) -> Seen | None:
        """The living process with that pid or registered name."""
        process = self._router.table.find(target)
        return None if process is None else self._see(process)

    def all(self) -> list[Seen]:
        return [self._see(process) for process in self._router.table]

    async def rows(self, make: Callable[[Seen], _Row]) -> list[_Row]:
        """`make` of each process. Others get their turn meanwhile, so one may have ended when the
        list is done.
        """
        rows = []
        for count, process in enumerate(self._router.table):
            if count % _CHECKPOINT_EVERY == 0:
                await trio.lowlevel.checkpoint()
            rows.append(make(self._see(process)))
        return rows

    def registered(self) -> list[Atom]:
        return [Atom(name) for name in self._router.table.registered()]

    def is_local(self, pid: Term) -> bool:
        """Whether `pid` is one that this node, in this life, has made or could make."""
        return isinstance(pid, Pid) and self._router.ids.is_own(pid.node, pid.creation)

    def _see(self, process: Process) -> Seen:
        inbox = process.inbox
        # Not by isinstance of a Protocol, which takes longer than all else here together.
        tell = getattr(inbox, "details", None)
        if tell is not None:
            details = tell()
        else:
            details = _plain_details(getattr(inbox, "module", None) or type(inbox).__name__)
        root = self._root()
        parent = None if process.pid == root else process.parent or root
        leader = process.group_leader or root or process.pid
        return Seen(process, details, parent, leader, self._router)


@functools.lru_cache(maxsize=1000)
def _plain_details(module: str) -> Details:
    return Details(module=module)
