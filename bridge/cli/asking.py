"""Commands that ask a running bridge, as one more hidden node: status, and what changes it.

The bridge does what changes it for nodes that [node] admin_nodes names only; ours is called
ringbridge_PID, on the bridge's host.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import trio
import typer
from rich.console import Console

from bridge import config as settings
from bridge.cli.options import (
    DEFAULT_CONFIG,
    DEFAULT_NAME,
    ConfigOption,
    CookieFileOption,
    NameOption,
    native_parts,
)
from bridge.ops import logs
from bridge.ops.errors import Refused
from bridge.ops.logs import LogFormat, LogLevel
from bridge.ops.new_cookie import find_or_create_cookie

if TYPE_CHECKING:
    from bridge.ops.asking import Address

RoleArgument = Annotated[str, typer.Argument(help="The role's name.", metavar="ROLE")]


def status(
    name: NameOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    cookie_file: CookieFileOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="The whole answer as JSON.")] = False,
    interval_s: Annotated[
        float,
        typer.Option("--interval", min=0.05, max=60, help="Seconds over which rates are taken."),
    ] = 0.5,
) -> None:
    """Ask a running bridge for its roles, workers and rates."""
    address = bridge_address(name, config, cookie_file)
    from bridge.ops import status_report

    report = trio.run(status_report.ask, address, interval_s)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        status_report.show(report, Console())


def reload(
    name: NameOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    cookie_file: CookieFileOption = None,
) -> None:
    """Have the bridge read its settings and certificates again, as SIGHUP does.

    All of the file is taken over, or nothing; what is refused says why.
    """
    operate(name, config, cookie_file, lambda operations: operations.reload)


def configure(
    key: Annotated[str, typer.Argument(help="The key, as roles.echo.depth_max.")],
    value: Annotated[
        str, typer.Argument(help='As in TOML: 100, "reject", ["a", "b"]; default: its default.')
    ],
    name: NameOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    cookie_file: CookieFileOption = None,
) -> None:
    """Change one setting of the running bridge. The file stays as it is: the next reload wins."""
    parsed = _toml_value(value)
    operate(name, config, cookie_file, lambda ops: partial(ops.configure, key, parsed))


def drain(
    role: Annotated[
        str | None, typer.Argument(help="A role; without it, and without --worker, all of them.")
    ] = None,
    worker: Annotated[
        int | None, typer.Option("--worker", help="One worker, by the id that status shows.")
    ] = None,
    name: NameOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    cookie_file: CookieFileOption = None,
) -> None:
    """No new jobs for a role, or for the whole node; what waits and what runs is finished.

    Returns when nothing waits or runs any more. With --worker: that one finishes what it has and
    ends, the others take over.
    """
    if role is not None and worker is not None:
        raise typer.BadParameter("give a role or --worker, not both")
    operate(name, config, cookie_file, lambda ops: partial(ops.drain, role, worker))


def resume(
    role: Annotated[str | None, typer.Argument(help="A role; without it all of them.")] = None,
    name: NameOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    cookie_file: CookieFileOption = None,
) -> None:
    """Take jobs again for what was drained."""
    operate(name, config, cookie_file, lambda ops: partial(ops.resume, role))


def restart(
    worker: Annotated[int, typer.Argument(help="The worker's id, as status shows it.")],
    name: NameOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    cookie_file: CookieFileOption = None,
) -> None:
    """Let one worker finish what it has and start it again; also one that was given up."""
    operate(name, config, cookie_file, lambda ops: partial(ops.restart, worker))


def upgrade(
    role: RoleArgument,
    command: Annotated[
        list[str] | None,
        typer.Argument(help="The new program and its arguments, after --; without: as it is now."),
    ] = None,
    name: NameOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    cookie_file: CookieFileOption = None,
) -> None:
    """Replace a role's workers one after the other, with no job lost or run twice.

    Shows how far it is, and returns when all are replaced. If a new worker fails, everything goes
    back to the old program, and the exit status is 1.
    """
    operate(name, config, cookie_file, lambda ops: partial(ops.upgrade, role, command or None))


def breaker(
    target: Annotated[str, typer.Argument(help="A role, or the id of a worker.")],
    how: Annotated[str, typer.Argument(help="open, close, or auto: by what it sees.")],
    name: NameOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    cookie_file: CookieFileOption = None,
) -> None:
    """Hold a circuit breaker open or closed, or let it go."""
    if how not in ("open", "close", "auto"):
        raise typer.BadParameter("HOW is open, close or auto")
    operate(name, config, cookie_file, lambda ops: partial(ops.breaker, target, how))


def record(
    how: Annotated[str, typer.Argument(help="status, or stop: then `replay` can run it.")],
    name: NameOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    cookie_file: CookieFileOption = None,
) -> None:
    """Look at the recording that `serve --record` began, or end it."""
    if how not in ("status", "stop"):
        raise typer.BadParameter("HOW is status or stop")
    operate(name, config, cookie_file, lambda ops: partial(ops.record, how))


OPERATIONS: list[Callable[..., None]] = [
    reload,
    configure,
    drain,
    resume,
    restart,
    upgrade,
    breaker,
    record,
]


def operate(
    name: str | None,
    config: Path,
    cookie_file: Path | None,
    choose: Callable[[Any], Callable[..., Any]],
) -> None:
    """Run one of the functions of bridge.ops.operations, or of a module like it, against the
    bridge.
    """
    address = bridge_address(name, config, cookie_file)
    from bridge.ops import operations

    trio.run(operations.against, address, choose(operations), Console())


def bridge_address(name: str | None, config: Path, cookie_file: Path | None) -> Address:
    """The bridge that the options and the settings name, and how it is reached."""
    logs.set_up(LogFormat.AUTO, LogLevel.WARNING)
    loaded = settings.load(config) if name is None or config.exists() else None
    with native_parts():
        from bridge.ops.asking import Address
    cookie = find_or_create_cookie(
        cookie_file=cookie_file,
        configured_file=loaded.cookie_path() if loaded else None,
        environ=os.environ,
        create=False,
    )
    peers = dict(loaded.node.peers) if loaded else {}
    if loaded and loaded.node.port:
        peers.setdefault(loaded.node.name, f"{_dialled(loaded.node.listen)}:{loaded.node.port}")
    return Address(
        name=name or (loaded.node.name if loaded else DEFAULT_NAME),
        cookie=cookie,
        peers=peers,
        tls=loaded.tls_config() if loaded else None,
    )


def _dialled(listen: str) -> str:
    """The address by which this host reaches what listens on `listen`."""
    match listen:
        case "0.0.0.0":
            return "127.0.0.1"
        case "::":
            return "[::1]"
        case _:
            return f"[{listen}]" if ":" in listen else listen


def _toml_value(text: str) -> Any:
    """`text` as TOML reads it; a bare word is a text, `default` stands for the default."""
    if text == "default":
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        if text[:1] in "\"'[{":
            raise Refused(f"{text}: that is not a value of TOML") from None
        return text
