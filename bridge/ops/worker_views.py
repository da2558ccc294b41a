"""What the command line shows of workers: as they are, as they change, and how one ended."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import trio
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bridge.etf import Atom, Term
from bridge.node import GenServer
from bridge.ops.asking import Asking, plain
from bridge.ops.errors import NoStatus, Refused
from bridge.workers import registry

REGISTRY = registry.NAMES[0]
# Heading, and how it is made of a worker.
COLUMNS: dict[str, Callable[[Mapping[str, Any]], object]] = {
    "id": lambda w: w["id"],
    "role": lambda w: f"{w['role']} {w['index']}",
    "state": lambda w: w["state"],
    "process": lambda w: w["remote"]["node"] if w["remote"] else w["os_pid"],
    "kit": lambda w: w["kit"] and f"{w['kit']} {w['kit_version']}",
    "layout": lambda w: w["layout_version"],
    "link": lambda w: w["link"] and f"{w['link']['slots']} x {_bytes(w['link']['result_bytes'])}",
    "credit": lambda w: w["credit"],
    "running": lambda w: w["in_flight"],
    "done": lambda w: w["done"],
    "lost": lambda w: w["lost"],
    "silent": lambda w: None if w["silent_ms"] is None else f"{w['silent_ms']} ms",
    "restarts": lambda w: w["restarts"],
}


async def workers(role: str | None, as_json: bool, bridge: Asking, console: Console) -> None:
    """A table of all, or of those of a role."""
    found = await _workers(role, bridge)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    console.print(_table(found))
    for worker in found:
        if worker["last_error"]:
            console.print(f"worker {worker['id']}: {escape(worker['last_error'])}")


async def scale(role: str, count: int, bridge: Asking, console: Console) -> None:
    """So many workers; returns when as many are ready."""
    await bridge.get(REGISTRY, (Atom("scale"), role.encode(), count))
    with console.status(f"{role}: towards {count} workers") as line:
        while True:
            found = await _workers(role, bridge)
            ready = sum(worker["state"] == "ready" for worker in found)
            if ready == len(found) == count:
                console.print(f"{role} has {count} workers; the next reload goes by the file again")
                return
            gone = next((w for w in found if w["state"] in ("given_up", "finished")), None)
            if gone is not None:
                why = gone["last_error"]
                raise Refused(f"worker {gone['id']} of {role} is {gone['state']}: {why}")
            line.update(f"{role}: {ready} of {count} workers ready, {len(found)} there")
            await trio.sleep(0.2)


async def watch(role: str | None, bridge: Asking, console: Console) -> None:
    """A line for each change, until it is interrupted or the bridge goes."""
    watcher = _Watcher(role, console)
    pid = await bridge.node.start(watcher)
    monitor = await bridge.node.monitor((REGISTRY, bridge.name))
    watcher.show(plain(await _watched(bridge, pid)))
    down = await monitor.wait()
    raise NoStatus(f"{bridge.name} has gone: {plain(down.reason)}")


async def crash_report(worker: int | None, bridge: Asking, console: Console) -> None:
    """The report of one life, or a list of those that there are."""
    if worker is None:
        reports: Any = await bridge.get(REGISTRY, Atom("crash_reports"))
        for report in reports:
            words = f"{report['at']}  worker {report['worker']} ({report['role']}): {report['why']}"
            console.print(words, markup=False, highlight=False, soft_wrap=True)
        if not reports:
            console.print("no worker has crashed since the bridge started")
        return
    report = await bridge.get(REGISTRY, (Atom("crash_report"), worker))
    output = report.pop("output")
    report["usage"] = _used(report["usage"])
    for key, value in report.items():
        shown = "-" if value in (None, []) else value
        console.print(f"{key:17}{shown}", markup=False, highlight=False, soft_wrap=True)
    console.rule("what it wrote last", align="left")
    console.out(output, highlight=False)


def _used(usage: Mapping[str, int] | None) -> str | None:
    """What a life has used, in one line."""
    if usage is None:
        return None
    return (
        f"{usage['user_us'] / 1e6:.3f} s user, {usage['system_us'] / 1e6:.3f} s system, "
        f"{usage['rss_max_kib'] / 1024:.1f} MiB at most, "
        f"{usage['minor_faults']} and {usage['major_faults']} page faults, "
        f"{usage['switches_voluntary']} and {usage['switches_involuntary']} switches"
    )


class _Watcher(GenServer):
    """Prints what it is told."""

    def __init__(self, role: str | None, console: Console) -> None:
        self._role = role
        self._console = console

    async def handle_info(self, message: Term) -> None:
        match message:
            case (Atom("ringbridge_workers"), _, Atom("missed")):
                self._console.print("some changes were too many to be told")
            case (Atom("ringbridge_workers"), _, list() as found):
                self.show(plain(found))

    def show(self, found: Iterable[Mapping[str, Any]]) -> None:
        for worker in found:
            if self._role in (None, worker["role"]):
                process = worker["os_pid"] or "-"
                words = (
                    f"worker {worker['id']:>4}  {worker['role']} {worker['index']}  "
                    f"{worker['state']:<10}  process {process}  {worker['last_error'] or ''}"
                )
                self._console.print(words.rstrip(), markup=False, soft_wrap=True)


async def _watched(bridge: Asking, pid: Any) -> Any:
    """Have the process told of changes; all workers as they are now. Raises NoStatus, Refused."""
    match await bridge.ask(REGISTRY, (Atom("watch"), pid)):
        case (Atom("ok"), _, found):
            return found
        case (Atom("error"), (Atom(_), why)):
            raise Refused(str(plain(why)))
        case other:
            raise NoStatus(f"{bridge.name} answered something else: {other!r}")


async def _workers(role: str | None, bridge: Asking) -> list[dict[str, Any]]:
    if role is None:
        found: Any = await bridge.get(REGISTRY, Atom("list"))
    else:
        found = (await bridge.get(REGISTRY, (Atom("lookup"), role.encode())))["workers"]
    return list(found)


def _table(found: Iterable[Mapping[str, Any]]) -> Table:
    table = Table(title="workers")
    for heading in COLUMNS:
        table.add_column(heading, no_wrap=True)
    for worker in found:
        cells = (make(worker) for make in COLUMNS.values())
        table.add_row(*("-" if cell is None else escape(str(cell)) for cell in cells))
    return table


def _bytes(count: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:g} {unit}"
    return f"{count} B"
