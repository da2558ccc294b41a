"""What the command line shows of links between workers."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from bridge.etf import Atom
from bridge.links.link_manager import NAMES
from bridge.ops.asking import Asking

MANAGER = NAMES[0]


async def links(audit: bool, as_json: bool, bridge: Asking, console: Console) -> None:
    """A table of the links that there are, or of what became of them last."""
    found: Any = await bridge.get(MANAGER, Atom("audit" if audit else "list"))
    if as_json:
        print(json.dumps(found, indent=2))
    elif not found:
        console.print("nothing has been asked for" if audit else "there are no links")
    else:
        console.print(_events(found) if audit else _links(found))


async def revoke(link: int, bridge: Asking, console: Console) -> None:
    """End one."""
    await bridge.get(MANAGER, (Atom("revoke"), link))
    console.print(f"link {link} has ended")


def _links(found: list[dict[str, Any]]) -> Table:
    table = Table("link", "worker", "asks", "since")
    for link in found:
        table.add_row(
            str(link["id"]),
            f"{link['from']} ({link['from_role']})",
            f"{link['to']} ({link['to_role']})",
            _time(link["since_ms"]),
        )
    return table


def _events(found: list[dict[str, Any]]) -> Table:
    table = Table("at", "event", "link", "worker", "role asked", "peer", "why")
    for event in found:
        words = ("event", "link", "from", "to_role", "to", "why")
        shown = ["-" if event[word] is None else str(event[word]) for word in words]
        table.add_row(_time(event["at_ms"]), *shown)
    return table


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")
