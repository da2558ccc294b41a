"""What the answers to tools are made of: one node, its processes, figures and modules, and the
application that it is to observer.

`answers` publishes the functions that those tools call; docs/inspection.md says who asks what.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bridge.etf import Atom, Pid
from bridge.node.carrier import Carrier
from bridge.node.inspection.application import (
    RINGBRIDGE,
    Application,
    SupervisorView,
    children_of_root,
)
from bridge.node.inspection.figures import Figures
from bridge.node.inspection.modules import Modules
from bridge.node.inspection.process_info import badarg
from bridge.node.inspection.seen import Processes
from bridge.node.inspection.system_info import SystemInfo
from bridge.node.node import Node

Term = Any


def traffic_of(carrier: Carrier) -> tuple[int, int]:
    """Bytes received and sent so far, by a carrier that counts them as the relay does."""
    read = getattr(carrier, "stats", None)
    if read is None:
        return (0, 0)
    figures = read()
    return (figures.bytes_in, figures.bytes_out)


class Inspection:
    """`application`: what the program is called among the applications of a node.

    `traffic` gives bytes received and sent over all connections. The application's supervisor goes
    into the process table: raises ValueError when its name is taken.
    """

    def __init__(
        self,
        node: Node,
        *,
        application: Application = RINGBRIDGE,
        traffic: Callable[[], tuple[int, int]] = lambda: (0, 0),
    ) -> None:
        self.node = node
        self.application = application
        self.processes = Processes(node.router, lambda: self.root)
        self.figures = Figures(self.processes, traffic)
        self.system = SystemInfo(self.processes, self.figures, creation=node.creation)
        self.modules = Modules(node.exports)
        self._start_supervisor()

    @property
    def root(self) -> Pid:
        """The application's supervisor. It starts again when somebody has ended it."""
        return self._supervisor.pid

    def nodes(self, which: Term) -> list[Atom]:
        """`erlang:nodes/1`: to a hidden node every node that it knows is a hidden one."""
        kinds = which if isinstance(which, list) else [which]
        found: set[str] = set()
        for kind in kinds:
            match kind:
                case Atom("connected" | "hidden" | "known"):
                    found.update(self.node.connected())
                case Atom("visible"):
                    pass
                case Atom("this"):
                    found.add(self.node.name)
                case _:
                    raise badarg()
            if kind == Atom("known"):
                found.add(self.node.name)
        return [Atom(name) for name in sorted(found)]

    def _start_supervisor(self) -> None:
        self._supervisor = SupervisorView(
            self.node.router,
            module=self.application.supervisor_name.name,
            children=lambda: children_of_root(self.processes),
            ended=self._start_supervisor,
        )
        self._supervisor.start((self.application.supervisor_name,))
