"""The answers of one node to the tools that look at nodes: observer, LiveDashboard, etop, iex.

`Inspection(node, ...)` puts the application's supervisor into the process table and has `exports`,
the table of functions that those tools call; docs/inspection.md says who asks what.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bridge import __version__
from bridge.etf import Atom, Pid
from bridge.node.exports import Exports
from bridge.node.inspection import appmon, bifs, dashboard, elixir, observer, otp
from bridge.node.inspection.application import (
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
RINGBRIDGE = Application("ringbridge", "A hidden Erlang node in Python", __version__)


class Inspection:
    """`application`: what the program is called among the applications of a node.

    `traffic` gives bytes received and sent over all connections; `exports` is the table that is
    added to, by default one of its own. Raises ValueError when the name of the application's
    supervisor is taken, or something is published already.
    """

    def __init__(
        self,
        node: Node,
        *,
        application: Application = RINGBRIDGE,
        traffic: Callable[[], tuple[int, int]] = lambda: (0, 0),
        exports: Exports | None = None,
    ) -> None:
        self.node = node
        self.application = application
        self.processes = Processes(node.router, lambda: self.root)
        self.figures = Figures(self.processes, traffic)
        self.system = SystemInfo(self.processes, self.figures, creation=node.creation)
        self._supervisor: SupervisorView | None = None
        self._start_supervisor()
        self.exports = exports if exports is not None else Exports()
        self.modules = Modules(self.exports)
        self.modules.publish(self.exports)
        for caller in (bifs, otp, observer, appmon, dashboard, elixir):
            caller.publish(self.exports, self)

    @property
    def root(self) -> Pid:
        """The application's supervisor. It starts again when somebody has ended it."""
        assert self._supervisor is not None
        if self.node.router.table.find(self._supervisor.pid) is None:
            self._start_supervisor()
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
        )
        self._supervisor.start((self.application.supervisor_name,))
