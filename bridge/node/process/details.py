"""What the owner of a process tells tools about it: observer, LiveDashboard, process_info.

The node itself knows a process' links, monitors, names and mailbox. What only its owner knows (what
it is doing, what it stands for) the owner says by a method `details` of its inbox, which takes
nothing, gives a Details of this moment, and never blocks or raises.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bridge.etf import Atom

Term = Any
Mfa = tuple[Atom, Atom, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """All but `module` may be left out.

    `doing`: the function it is in. `queue_len`: what waits for it elsewhere than in its mailbox.
    `handled`: its work so far, shown as reductions; None: the messages that it has received.
    `memory_bytes`: memory of its own beside what the node keeps for it. `supervisor`: processes
    name it as their parent.
    """

    module: str
    doing: Mfa | None = None
    label: Term = None
    queue_len: int = 0
    handled: int | None = None
    memory_bytes: int = 0
    dictionary: Sequence[tuple[Term, Term]] = ()
    supervisor: bool = False


def module_atom(name: str) -> Atom:
    """The module that stands for a Python class: an Elixir alias if it looks like one."""
    is_alias = name[:1].isupper() and not name.startswith("Elixir.")
    return Atom(f"Elixir.{name}" if is_alias else name)
