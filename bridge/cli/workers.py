"""Commands about the workers of a running bridge: workers, watch, scale, crash-report."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Annotated

import typer

from bridge.cli.asking import RoleArgument, operate
from bridge.cli.options import (
    DEFAULT_CONFIG,
    ConfigOption,
    CookieFileOption,
    NameOption,
)

RoleOrAll = Annotated[
    str | None, typer.Argument(help="A role; without it all of them.", metavar="ROLE")
]


def workers(
    role: RoleOrAll = None,
    as_json: Annotated[bool, typer.Option("--json", help="The whole answer as JSON.")] = False,
    name: NameOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    cookie_file: CookieFileOption = None,
) -> None:
    """Show the workers: state, kit, link, credit, heartbeat, jobs, restarts, last error."""
    operate(name, config, cookie_file, lambda _: partial(_views().workers, role, as_json))


def watch(
    role: RoleOrAll = None,
    name: NameOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    cookie_file: CookieFileOption = None,
) -> None:
    """Show each change of a worker as it happens, until interrupted."""
    try:
        operate(name, config, cookie_file, lambda _: partial(_views().watch, role))
    except* KeyboardInterrupt:
        pass  # that is its end


def scale(
    role: RoleArgument,
    count: Annotated[int, typer.Argument(help="So many workers.", min=1)],
    name: NameOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    cookie_file: CookieFileOption = None,
) -> None:
    """Give a role more or fewer workers. The file stays as it is: the next reload wins.

    Returns when all of them are ready, and those that are too many have finished what they had.
    """
    operate(name, config, cookie_file, lambda _: partial(_views().scale, role, count))


def crash_report(
    worker: Annotated[
        int | None, typer.Argument(help="A worker's id; without it a list.", metavar="ID")
    ] = None,
    name: NameOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    cookie_file: CookieFileOption = None,
) -> None:
    """Show how a worker's life ended that went wrong, and the last 64 KiB that it wrote."""
    operate(name, config, cookie_file, lambda _: partial(_views().crash_report, worker))


LOOKS: list[Callable[..., None]] = [workers, watch]
OPERATIONS: list[Callable[..., None]] = [scale, crash_report]


def _views() -> ModuleType:
    """Imported late: it needs the native parts."""
    from bridge.ops import worker_views

    return worker_views
