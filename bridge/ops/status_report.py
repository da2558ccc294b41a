"""`ringbridge status`: ask the Diagnostics of a running bridge, and show the answer as tables."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import trio
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from bridge.dist.cookie import Cookie
from bridge.dist.names import split_node_name
from bridge.etf import Atom, Term
from bridge.node import EpmdError, NoConnection, ProcessDown, TlsConfig, open_node
from bridge.ops.diagnostics import NAMES
from bridge.ops.errors import NoStatus

ANSWER_WITHIN_S = 5.0

Report = dict[str, Any]


async def ask(
    bridge_name: str,
    cookie: Cookie,
    interval_s: float,
    peers: Mapping[str, str | int] | None = None,
    tls: TlsConfig | None = None,
) -> Report:
    """The status of the bridge `bridge_name`, with rates over `interval_s`; `peers` says where it
    listens if epmd does not. Raises NoStatus, TlsError.
    """
    try:
        _, host = split_node_name(bridge_name)
    except ValueError as error:
        raise NoStatus(f"{error}; write it like bridge@127.0.0.1") from error
    own_name = f"ringbridge_status_{os.getpid()}@{host}"
    async with open_node(own_name, cookie=cookie, listen=False, peers=peers, tls=tls) as node:
        try:
            before = await node.call(
                (NAMES[0], bridge_name), Atom("status"), timeout=ANSWER_WITHIN_S
            )
            started = trio.current_time()
            await trio.sleep(interval_s)
            after = await node.call(
                (NAMES[0], bridge_name), Atom("status"), timeout=ANSWER_WITHIN_S
            )
        except NoConnection as error:
            raise NoStatus(_why_none_answers(bridge_name, error)) from error
        except ProcessDown as error:
            raise NoStatus(f"{bridge_name} is a node, but no bridge that runs: {error}") from error
        except trio.TooSlowError as error:
            raise NoStatus(f"{bridge_name} did not answer within {ANSWER_WITHIN_S:g} s") from error
    elapsed_s = trio.current_time() - started
    report: Report = _plain(_result(after))
    earlier: Report = _plain(_result(before))
    was = {role["name"]: role["answered"] for role in earlier["roles"]}
    for role in report["roles"]:
        answered = role["answered"] - was.get(role["name"], 0)
        role["answers_per_s"] = round(answered / elapsed_s, 1)
    return report


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
    roles = _table("roles", "role", "state", "ready", "queued", "running", "answered", "per second")
    for role in report["roles"]:
        roles.add_row(
            role["name"],
            _coloured(role["state"]),
            *map(str, (role["workers_ready"], role["queued"], _running(report, role["name"]))),
            str(role["answered"]),
            f"{role['answers_per_s']:,.0f}",
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
    answered = {key: count for key, count in relay["answered"].items() if count}
    counts = ", ".join(f"{key} {count:,}" for key, count in answered.items()) or "nothing yet"
    accepted = f"jobs accepted {relay['accepted']:,}, in flight {relay['in_flight']:,}"
    yield f"{accepted}; answered: {counts}"


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


def _result(answer: Term) -> Mapping[Term, Term]:
    match answer:
        case (Atom("ok"), Mapping() as status):
            return status
        case _:
            raise NoStatus(f"the answer is not a status: {answer!r}")


def _plain(term: Any) -> Any:
    """A term as JSON knows it: atoms and binaries as texts."""
    match term:
        case Atom(name):
            return name
        case bytes():
            return term.decode("utf-8", "replace")
        case Mapping():
            return {str(_plain(key)): _plain(value) for key, value in term.items()}
        case list() | tuple():
            return [_plain(item) for item in term]
        case bool() | int() | float() | None:
            return term
        case _:  # a pid
            return repr(term)


def _coloured(state: str) -> str:
    colour = {"ready": "green", "running": "green", "given_up": "red"}.get(state, "yellow")
    return f"[{colour}]{state}[/]"


def _or_dash(value: object) -> str:
    return "-" if value is None else str(value)


def _duration(ms: int) -> str:
    hours, rest = divmod(ms // 1000, 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
