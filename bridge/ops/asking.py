"""Asking a running bridge from outside, as one more hidden node."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

from bridge.dist.cookie import Cookie
from bridge.dist.names import split_node_name
from bridge.etf import Atom, Term
from bridge.node import EpmdError, NoConnection, Node, ProcessDown, TlsConfig, open_node
from bridge.ops.errors import NoStatus, Refused

ANSWER_WITHIN_S = 5.0


@dataclass(frozen=True)
class Address:
    """A bridge, and how it is reached; `peers` says where it listens if epmd does not."""

    name: str
    cookie: Cookie
    peers: Mapping[str, str | int] = field(default_factory=dict)
    tls: TlsConfig | None = None


class Asking:
    """A bridge that can be asked."""

    def __init__(self, node: Node, bridge_name: str) -> None:
        self.node = node
        self.name = bridge_name

    async def ask(self, service: str, request: Term, *, within_s: float = ANSWER_WITHIN_S) -> Any:
        """The answer of one of its services, as it is. Raises NoStatus."""
        try:
            return await self.node.call((service, self.name), request, timeout=within_s)
        except NoConnection as error:
            raise NoStatus(_why_none_answers(self.name, error)) from error
        except ProcessDown as error:
            raise NoStatus(f"{self.name} is a node, but no bridge that runs: {error}") from error
        except trio.TooSlowError as error:
            raise NoStatus(f"{self.name} did not answer within {within_s:g} s") from error

    async def get(self, service: str, request: Term, *, within_s: float = ANSWER_WITHIN_S) -> Any:
        """What stands in its {:ok, it}, as JSON knows it; None for :ok.

        Raises NoStatus, Refused.
        """
        match await self.ask(service, request, within_s=within_s):
            case Atom("ok"):
                return None
            case (Atom("ok"), answer):
                return plain(answer)
            case (Atom("error"), (Atom("unauthorized"), why)):
                own = f'admin_nodes = ["ringbridge_*@{split_node_name(self.name)[1]}"]'
                raise Refused(f"{plain(why)}; for this command: {own}, then SIGHUP")
            case (Atom("error"), (Atom(reason), why)):
                raise Refused(str(plain(why)), reason=reason)
            case (Atom("error"), Atom(why)):
                raise Refused(why, reason=why)
            case answer:
                raise NoStatus(f"{self.name} answered something else: {answer!r}")


@asynccontextmanager
async def reach(address: Address) -> AsyncIterator[Asking]:
    """Open a node that asks. Raises NoStatus, TlsError."""
    try:
        _, host = split_node_name(address.name)
    except ValueError as error:
        raise NoStatus(f"{error}; write it like bridge@127.0.0.1") from error
    own_name = f"ringbridge_{os.getpid()}@{host}"
    async with open_node(
        own_name, cookie=address.cookie, listen=False, peers=address.peers, tls=address.tls
    ) as node:
        yield Asking(node, address.name)


def plain(term: Any) -> Any:
    """A term as JSON knows it: atoms and binaries as texts."""
    match term:
        case Atom(name):
            return name
        case bytes():
            return term.decode("utf-8", "replace")
        case Mapping():
            return {str(plain(key)): plain(value) for key, value in term.items()}
        case list() | tuple():
            return [plain(item) for item in term]
        case bool() | int() | float() | None:
            return term
        case _:  # a pid
            return repr(term)


def _why_none_answers(bridge_name: str, error: NoConnection) -> str:
    start = "Start it with `ringbridge serve`, or name the one that runs with --name"
    if isinstance(error.__cause__, EpmdError):
        return (
            f"no bridge answers as {bridge_name}: there is no epmd on its host, so no node can be "
            f"found there. {start}"
        )
    return (
        f"no bridge answers as {bridge_name}: {error.why}. {start}; `ringbridge doctor` lists the "
        "names that epmd knows. A bridge that runs has the same cookie, and its allow list names us"
    )
