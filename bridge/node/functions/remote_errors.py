"""What a call of a function on another node raises here: one exception per way of not returning."""

from __future__ import annotations

from typing import Any

from bridge.etf import Atom
from bridge.etf.errors import brief

Term = Any


class RemoteException(Exception):
    """A function on `node` raised: RemoteError, RemoteExit or RemoteThrow say how."""

    def __init__(self, node: str, function: str, reason: Term, text: str) -> None:
        super().__init__(f"{function} on {node} {text}")
        self.node = node
        self.function = function
        self.reason = reason


class RemoteError(RemoteException):
    """It raised an error: `reason` is its term (`undef`, `badarg`, an Elixir exception as a map),
    `stack` the stack trace, of `(module, function, arity or arguments, location)`.
    """

    def __init__(self, node: str, function: str, reason: Term, stack: Term) -> None:
        super().__init__(node, function, reason, f"raised {brief(reason)}")
        self.stack = stack


class RemoteExit(RemoteException):
    """It called exit with `reason`."""

    def __init__(self, node: str, function: str, reason: Term) -> None:
        super().__init__(node, function, reason, f"exited with {brief(reason)}")


class RemoteThrow(RemoteException):
    """It threw `reason`, also called `value`."""

    def __init__(self, node: str, function: str, value: Term) -> None:
        super().__init__(node, function, value, f"threw {brief(value)}")
        self.value = value


class SpawnRefused(Exception):
    """`node` made no process: `reason` is its atom, `notsup`, `badopt`, `system_limit`."""

    def __init__(self, node: str, reason: Atom) -> None:
        super().__init__(f"{node} spawned nothing: {brief(reason)}")
        self.node = node
        self.reason = reason


class BadRpc(Exception):
    """What `rpc:call` answers `{badrpc, Reason}` for; `reason` is that term, the cause is behind
    it.
    """

    def __init__(self, node: str, function: str, reason: Term) -> None:
        super().__init__(f"{function} on {node}: badrpc {brief(reason)}")
        self.node = node
        self.function = function
        self.reason = reason
