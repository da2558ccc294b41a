"""`ringbridge status`: ask the Diagnostics of a running bridge, and show the answer as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import trio
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from bridge.etf import Atom
from bridge.ops.asking import Address, reach
from bridge.ops.diagnostics import NAMES

Report = dict[str, Any]
SILENT_MS = 5_000  # a kit says every 500 ms that its process runs, busy or not


async def ask(address: Address, interval_s: float) -> Report:
    """The status of a bridge, with rates over `interval_s`. Raises NoStatus, TlsError."""
    async with reach(address) as bridge:
        earlier: Report = await bridge.get(NAMES[0], Atom("status"))
        started = trio.current_time()
        await trio.sleep(interval_s)
        report: Report = await bridge.get(NAMES[0], Atom("status"))
        elapsed_s = trio.current_time() - started
    was = {role["name"]: sum(role["answered"].values()) for role in earlier["roles"]}
    for role in report["roles"]:
        answered = sum(role["answered"].values()) - was.get(role["name"], 0)
        role["answers_per_s"] = round(answered / elapsed_s, 1)
    return report


def _running(report: Report, role: str) -> int:
    """Jobs that the role's workers have in hand."""
    return sum(w["in_flight"] or 0 for w in report["workers"] if str(w["role"]) == str(role))


def tables(report: Report) -> Iterator[Table | str]:
    """What a person wants to see first: the node, its roles, its workers, what was answered."""
    relay = report["relay"]
    yield (
        f"[bold]{report['node']}[/] {report['version']}, up {_duration(report['uptime_ms'])}, "
        f"process {report['os_pid']}, connected: {', '.join(report['connections']) or 'nobody'}"
    )
    roles = _table(
        *("roles", "role", "state", "ready", "queued", "running", "answered", "per second"),
        "refused",
    )
    for role in report["roles"]:
        roles.add_row(
            role["name"],
            _coloured(role["state"]),
            *map(str, (role["workers_ready"], role["queued"], _running(report, role["name"]))),
            str(sum(role["answered"].values())),
            f"{role['answers_per_s']:,.0f}",
            str(sum(role["refused"].values())),
        )
    yield roles
    workers = _table(
        *("workers", "id", "role", "state", "process", "kit", "in flight", "done", "restarts"),
    )
    workers.add_column("last error", overflow="fold", max_width=60)
    for worker in report["workers"]:
        workers.add_row(
            str(worker["id"]),
            worker["role"],
            _coloured(worker["state"]),
            *(_or_dash(worker[key]) for key in ("os_pid", "kit", "in_flight", "done", "restarts")),
            _or_dash(worker["last_error"]),
        )
    yield workers
    for role in report["roles"]:
        yield from _noteworthy(role)
    for worker in report["workers"]:
        yield from _noteworthy_worker(worker)
    accepted = f"jobs accepted {relay['accepted']:,}, in flight {relay['in_flight']:,}"
    refused = f"; refused: {_counts(relay['refused'])}" if any(relay["refused"].values()) else ""
    yield f"{accepted}; answered: {_counts(relay['answered']) or 'nothing yet'}{refused}"


def _noteworthy(role: Mapping[str, Any]) -> Iterator[str]:
    """What is not as usual with a role."""
    if role["breaker"] != "closed":
        yield f"{role['name']}: its circuit breaker is [yellow]{role['breaker']}[/]"
    if rules := _counts(role["overloaded_by"]):
        yield f"{role['name']}: jobs told that it is overloaded since its start, by rule: {rules}"
    if role["deferred"]:
        yield f"{role['name']}: {role['deferred']:,} jobs wait outside its queue (deferred)"
    upgrade = role["upgrade"]
    if upgrade is not None and upgrade["state"] != "done":
        progress = f"{upgrade['replaced']} of {upgrade['of']} workers replaced"
        why = f": {escape(upgrade['why'])}" if upgrade["why"] else ""
        yield f"{role['name']}: upgrade {_coloured(upgrade['state'])}, {progress}{why}"


def _noteworthy_worker(worker: Mapping[str, Any]) -> Iterator[str]:
    """The same of a worker."""
    who = f"worker {worker['id']} ({worker['role']})"
    if worker["breaker"] not in (None, "closed"):
        yield f"{who}: its circuit breaker is [yellow]{worker['breaker']}[/]"
    if (worker["silent_ms"] or 0) > SILENT_MS:
        yield (
            f"{who}: [red]no sign of life for {worker['silent_ms'] // 1000} s[/]; "
            f"`ringbridge restart {worker['id']}` replaces it"
        )


def _counts(by_name: Mapping[str, int]) -> str:
    """Those that are not 0."""
    return ", ".join(f"{name} {count:,}" for name, count in by_name.items() if count)


def show(report: Report, console: Console) -> None:
    """Print the tables; where the terminal is too narrow for their names, it breaks the lines."""
    for part in tables(report):
        if isinstance(part, Table):
            whole = Measurement.get(console, console.options.update(width=10_000), part).maximum
            Console(file=console.file, width=max(console.width, whole)).print(part)
        else:
            console.print(part)


def _table(title: str, *columns: str) -> Table:
    """A table that cuts nothing: names are what people copy."""
    table = Table(title=title)
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


def _coloured(state: str) -> str:
    colour = {"ready": "green", "running": "green", "given_up": "red"}.get(state, "yellow")
    return f"[{colour}]{state}[/]"


def _or_dash(value: object) -> str:
    return "-" if value is None else str(value)


def _duration(ms: int) -> str:
    hours, rest = divmod(ms // 1000, 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
