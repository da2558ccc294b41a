"""What the command line has a running bridge do, with what it says of it. One function a verb."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio
from rich.console import Console

from bridge.etf import Atom, Term
from bridge.ops import diagnostics
from bridge.ops.asking import Address, Asking, reach
from bridge.ops.errors import Refused
from bridge.workers import registry

LOOK_EVERY_S = 0.2
REGISTRY = registry.NAMES[0]

Verb = Callable[[Asking, Console], Awaitable[None]]


async def against(address: Address, verb: Verb, console: Console) -> None:
    """Run one of the verbs below. Raises NoStatus, Refused, TlsError."""
    async with reach(address) as bridge:
        await verb(bridge, console)


async def reload(bridge: Asking, console: Console) -> None:
    _tell_changes(await bridge.get(REGISTRY, Atom("reload")), console)


async def configure(key: str, value: Any, bridge: Asking, console: Console) -> None:
    request = (Atom("configure"), key.encode(), _term(value))
    _tell_changes(await bridge.get(REGISTRY, request), console)


async def drain(role: str | None, worker: int | None, bridge: Asking, console: Console) -> None:
    if worker is not None:
        await bridge.get(REGISTRY, (Atom("drain"), worker))
        console.print(f"worker {worker} finishes what it has, and ends")
        return
    request = Atom("drain_node") if role is None else (Atom("drain_role"), role.encode())
    await bridge.get(REGISTRY, request)
    with console.status("no new jobs; what waits and runs is finished") as line:
        while left := await _left(bridge, role):
            line.update(f"no new jobs; still waiting or running: {left}")
            await trio.sleep(LOOK_EVERY_S)
    console.print(f"{role or 'every role'} is drained; `ringbridge resume` takes jobs again")


async def resume(role: str | None, bridge: Asking, console: Console) -> None:
    request = Atom("resume_node") if role is None else (Atom("resume_role"), role.encode())
    await bridge.get(REGISTRY, request)
    console.print(f"{role or 'every role'} takes jobs again")


async def restart(worker: int, bridge: Asking, console: Console) -> None:
    await bridge.get(REGISTRY, (Atom("restart"), worker))
    console.print(f"worker {worker} finishes what it has, and starts again under another id")


async def attach(role: str, offers: list[dict[str, Any]], bridge: Asking, console: Console) -> None:
    """A place in the role, for `offers`: where to come and what to show there."""
    offers.append(await bridge.get(REGISTRY, (Atom("attach"), role.encode())))


async def breaker(target: str, how: str, bridge: Asking, console: Console) -> None:
    subject: Term = int(target) if target.isdecimal() else target.encode()
    await bridge.get(REGISTRY, (Atom("breaker"), subject, Atom(how)))
    by = "goes by what it sees again" if how == "auto" else f"is held {how.replace('se', 'sed')}"
    console.print(f"the breaker of {target} {by}")
    if how == "close" and not isinstance(subject, int):
        workers = (await bridge.get(REGISTRY, (Atom("lookup"), subject)))["workers"]
        for each in workers:
            if each["breaker"] in ("open", "half_open", "held_open"):
                console.print(
                    f"worker {each['id']} has one of its own, {each['breaker']}: "
                    f"`ringbridge breaker {each['id']} close`"
                )


async def record(how: str, bridge: Asking, console: Console) -> None:
    """Stop it, and wait for its file; or say how far it is."""
    request = (Atom("record"), Atom(how))
    told: Any = await bridge.get(REGISTRY, request)
    while how == "stop" and told["state"] != "done":
        await trio.sleep(LOOK_EVERY_S)
        told = await bridge.get(REGISTRY, (Atom("record"), Atom("status")))
    why = f", {told['ended']}" if told["state"] != "recording" else ""
    console.print(f"{told['state']}{why}: {told['bytes']} bytes")


async def upgrade(
    role: str, command: Sequence[str] | None, bridge: Asking, console: Console
) -> None:
    program = () if command is None else ([part.encode() for part in command],)
    await bridge.get(REGISTRY, (Atom("upgrade"), role.encode(), *program))
    with console.status(f"{role}: the first new worker starts") as line:
        while True:
            seen = (await bridge.get(REGISTRY, (Atom("lookup"), role.encode())))["upgrade"]
            words = f"{role}: {seen['replaced']} of {seen['of']} workers replaced"
            match seen["state"]:
                case "done":
                    console.print(words)
                    return
                case "waiting":
                    line.update(f"{role}: waits for another role's upgrade")
                case "running":
                    line.update(words)
                case "rolling_back":
                    line.update(f"{words}; going back: {seen['why']}")
                case "rolled_back":
                    raise Refused(f"{role} is as it was before: {seen['why']}")
                case other:
                    raise Refused(f"{role}: the upgrade ended ({other}); {words}")
            await trio.sleep(LOOK_EVERY_S)


async def _left(bridge: Asking, role: str | None) -> int:
    """Jobs that wait or run, of a role or of all."""
    status = await bridge.get(diagnostics.NAMES[0], Atom("status"))
    roles = [each for each in status["roles"] if role in (None, each["name"])]
    return sum(each["accepted"] - sum(each["answered"].values()) for each in roles)


def _tell_changes(changes: list[dict[str, Any]], console: Console) -> None:
    for change in changes:
        words = f"{change['key']}: {_shown(change['was'])} -> {_shown(change['now'])}"
        console.print(words, markup=False, highlight=False, soft_wrap=True)
    if not changes:
        console.print("nothing has changed: the bridge runs by these settings already")


def _shown(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case _:
            return str(value)


def _term(value: Any) -> Any:
    """A value of TOML as the bridge takes it."""
    match value:
        case str():
            return value.encode()
        case list():
            return [_term(item) for item in value]
        case dict():
            return {key.encode(): _term(item) for key, item in value.items()}
        case _:
            return value
