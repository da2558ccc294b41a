"""Where a signal goes: a pid, an alias, or a name at a node; and how people write it."""

from __future__ import annotations

from bridge.etf import Atom, Pid, Reference

Target = Pid | tuple[Atom, Atom]  # what is called and monitored
Address = Target | Reference  # an alias is only sent to
Dest = Pid | Reference | str | Atom | tuple[str | Atom, str | Atom]  # a bare name is at our node


def node_of(address: Address) -> str:
    """The name of the node where `address` lives."""
    node = address[1] if isinstance(address, tuple) else address.node
    return node.name


def address_of(dest: Dest, *, here: str) -> Address:
    """What `dest` stands for on the node `here`."""
    match dest:
        case Pid() | Reference():
            return dest
        case (name, node):
            return (_atom(name), _atom(node))
        case name:
            return (_atom(name), Atom(here))


def target_of(dest: Dest, *, here: str) -> Target:
    """The same for what can be called and monitored. Raises ValueError for an alias."""
    address = address_of(dest, here=here)
    if isinstance(address, Reference):
        raise ValueError("an alias is sent to, not called or monitored")
    return address


def _atom(name: str | Atom) -> Atom:
    return name if isinstance(name, Atom) else Atom(name)
