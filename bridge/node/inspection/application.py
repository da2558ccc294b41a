"""The node as an application: its supervisor, which is the parent of every process that has no
other, and the tree below it.

On a BEAM a supervisor starts and restarts its children. Here nurseries do; what stands in the tree
in their place is a process that shows the children, answers `Supervisor.which_children` and
`count_children`, and refuses to change anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bridge import __version__
from bridge.etf import Atom, Pid, charlist
from bridge.node.inspection.seen import Processes, Seen
from bridge.node.process.details import Details, module_atom
from bridge.node.process.direct import DirectProcess
from bridge.node.signals import gen
from bridge.node.signals.gen import Call
from bridge.node.signals.router import Router

Term = Any
_CHANGES = ("start_child", "restart_child", "delete_child", "terminate_child")


@dataclass(frozen=True, slots=True)
class Application:
    """What `application:which_applications` says of the program that the node runs in."""

    name: str
    description: str
    version: str

    @property
    def atom(self) -> Atom:
        return Atom(self.name)

    @property
    def supervisor_name(self) -> Atom:
        return Atom(f"{self.name}_sup")

    def term(self) -> Term:
        return (self.atom, charlist(self.description), charlist(self.version))


RINGBRIDGE = Application("ringbridge", "A hidden Erlang node in Python", __version__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A process below a supervisor, or the place of one: `pid` None while it is being restarted."""

    id: Term
    pid: Pid | None
    kind: Literal["worker", "supervisor"] = "worker"
    module: str


class SupervisorView(DirectProcess):
    """A process that shows what it is the supervisor of.

    `ended` is called when somebody has ended it, not when the node ends.
    """

    def __init__(
        self,
        router: Router,
        *,
        module: str,
        children: Callable[[], Sequence[Child]],
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(router, module=module)
        self._children = children
        self._ended = ended

    def details(self) -> Details:
        return Details(module=self.module, supervisor=True)

    def get_state(self) -> Term:
        return self._which_children()

    def stopped(self, reason: Term) -> None:
        if reason != gen.SHUTDOWN:
            self._ended()

    def handle(self, request: gen.Request) -> None:
        match request:
            case Call(sender, Atom("which_children")):
                self.reply(sender, self._which_children())
            case Call(sender, Atom("count_children")):
                self.reply(sender, self._count_children())
            case Call(sender, (Atom(name), *_)) if name in _CHANGES:
                why = b"this supervisor shows its children; the program starts and stops them"
                self.reply(sender, (gen.ERROR, (Atom("unauthorized"), why)))
            case Call(sender, _):
                self.reply(sender, (gen.ERROR, Atom("not_found")))

    def _which_children(self) -> list[Term]:
        return [
            (
                child.id,
                Atom("restarting") if child.pid is None else child.pid,
                Atom(child.kind),
                [module_atom(child.module)],
            )
            for child in self._children()
        ]

    def _count_children(self) -> list[Term]:
        children = self._children()
        kinds = [child.kind for child in children]
        return [
            (Atom("specs"), len(children)),
            (Atom("active"), sum(child.pid is not None for child in children)),
            (Atom("supervisors"), kinds.count("supervisor")),
            (Atom("workers"), kinds.count("worker")),
        ]


@dataclass(frozen=True, slots=True)
class Branch:
    """A process and those below it."""

    seen: Seen
    below: list[Branch] = field(default_factory=list)

    def __iter__(self) -> Any:
        """This branch and all below it."""
        yield self
        for branch in self.below:
            yield from branch


def tree(processes: Processes) -> Branch | None:
    """All processes of the node in the tree of the application; None before its supervisor runs.

    A process whose parent has ended, or is no process of ours, stands below the root.
    """
    branches = {seen.pid: Branch(seen) for seen in processes.all()}
    root = next((branch for branch in branches.values() if branch.seen.parent is None), None)
    if root is None:
        return None
    for pid, branch in branches.items():
        if branch is not root:
            above = branches.get(branch.seen.parent or pid, root)
            (root if above is branch else above).below.append(branch)
    return root


def children_of_root(processes: Processes) -> list[Child]:
    """Those right below the application's supervisor, named as they are registered."""
    root = tree(processes)
    return [
        Child(
            id=branch.seen.name or branch.seen.details.label or branch.seen.pid,
            pid=branch.seen.pid,
            kind="supervisor" if branch.seen.details.supervisor else "worker",
            module=branch.seen.details.module,
        )
        for branch in (root.below if root else [])
    ]
