"""A node with its inspection, no socket, and its published functions called as rpc would."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from plain_carrier import plain_carrier

from bridge.etf import Atom, decode, encode
from bridge.node import Node, open_node
from bridge.node.functions.caller import Caller
from bridge.node.functions.group_leader import LogOutput, UserOutput
from bridge.node.inspection import Inspection, publish_answers

NAME = "inspected@127.0.0.1"


def atom(name: str) -> Atom:
    return Atom(name)


class Rpc:
    """`await rpc(module, function, *args)`: the result as the caller would decode it."""

    def __init__(self, inspection: Inspection) -> None:
        self.inspection = inspection
        self.node = node = inspection.node
        self.caller = Caller(node.name, node.caller().pid, UserOutput(node.name, LogOutput()))

    async def __call__(self, module: str, function: str, *args: Any) -> Any:
        alias = f"Elixir.{module}" if module[:1].isupper() else module
        entry = self.node.exports.find(Atom(alias), Atom(function), len(args))
        assert entry is not None, f"undef: {module}:{function}/{len(args)}"
        assert entry.kind == "function"
        keywords = {"caller": self.caller} if entry.takes_caller else {}
        result = entry.run(*[decode(encode(arg)) for arg in args], **keywords)
        if inspect.isawaitable(result):
            result = await result
        return decode(encode(result))

    async def spawn(self, module: str, function: str, *args: Any, link: Any = None) -> Any:
        """As `spawn_link(Node, M, F, Args)`; the pid."""
        entry = self.node.exports.find(Atom(module), Atom(function), len(args))
        assert entry is not None
        assert entry.kind == "process"
        return await self.node.spawn(entry.run, *args, link=link)


@asynccontextmanager
async def inspected_node(**options: Any) -> AsyncIterator[Rpc]:
    async with open_node(
        NAME,
        cookie="x" * 20,
        listen=False,
        register=False,
        carrier=plain_carrier,
        application=None,
    ) as node:
        yield Rpc(inspection_of(node, **options))


def inspection_of(node: Node, **options: Any) -> Inspection:
    inspection = Inspection(node, **options)
    publish_answers(inspection)
    return inspection


def keyword(term: Any) -> dict[str, Any]:
    """A list of {Atom, Value} by the atoms' names."""
    return {key.name: value for key, value in term}


def field_map(term: Any) -> dict[str, Any]:
    """A map with atom keys by the atoms' names."""
    return {key.name: value for key, value in term.items()}
