"""What the command line has a running bridge do with the state of its workers."""

from __future__ import annotations

from rich.console import Console

from bridge.etf import Atom
from bridge.ops.asking import Asking
from bridge.workers import registry

REGISTRY = registry.NAMES[0]
STATE_WITHIN_S = 120.0  # a worker saves behind the job that it is in


async def checkpoint(worker: int, bridge: Asking, console: Console) -> None:
    with console.status("waiting for the worker to save"):
        kept = await bridge.get(REGISTRY, (Atom("checkpoint"), worker), within_s=STATE_WITHIN_S)
    console.print(f"worker {worker}: {kept['bytes']:,} bytes are kept ({kept['kind']})")


async def move_state(source: int, target: int, how: str, bridge: Asking, console: Console) -> None:
    request = (Atom("move_state"), source, target, Atom(how))
    with console.status(f"worker {source} finishes what it has"):
        moved = await bridge.get(REGISTRY, request, within_s=STATE_WITHIN_S)
    console.print(
        f"worker {target} has the state of worker {source}: {moved['bytes']:,} bytes; "
        f"nobody worked with it for {moved['paused_ms']} ms"
    )
