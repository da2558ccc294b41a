"""The `ringbridge` command: serve, status, doctor, version. It parses, calls and prints.

The cookie is never an argument: arguments are visible to every user of the machine (ps).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import trio
import typer
from rich.console import Console
from rich.markup import escape

import bridge
from bridge import config as settings
from bridge.config import ConfigError
from bridge.dist.errors import CookieError, EpmdError
from bridge.dist.names import node_name_problem
from bridge.dist.tls import TlsError
from bridge.ops import doctor as examination
from bridge.ops import logs
from bridge.ops.errors import NoStatus, NotBuilt
from bridge.ops.logs import LogFormat, LogLevel
from bridge.ops.new_cookie import find_or_create_cookie

if TYPE_CHECKING:
    from bridge.app import Ready

DEFAULT_CONFIG = Path("ringbridge.toml")
DEFAULT_NAME = "bridge@127.0.0.1"

app = typer.Typer(
    name="ringbridge",
    help="A hidden Erlang node that hands work to native worker processes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", help="The settings (docs/configuration.md).")
]


def _node_name(name: str | None) -> str | None:
    if name is not None and (problem := node_name_problem(name)):
        raise typer.BadParameter(f"{problem}; write it like {DEFAULT_NAME}")
    return name


NameOption = Annotated[
    str | None,
    typer.Option(
        "--name",
        "-n",
        callback=_node_name,
        help="The bridge's node name; else \\[node] name of the settings.",
    ),
]
CookieFileOption = Annotated[
    Path | None,
    typer.Option(
        "--cookie-file",
        help="File with the cluster's cookie, mode 0400. Else RINGBRIDGE_COOKIE, \\[node] "
        "cookie_file, ~/.erlang.cookie.",
    ),
]


def _open_descriptor(fd: int | None) -> int | None:
    """Refuse a descriptor that nobody opened, before the bridge starts."""
    if fd is not None:
        try:
            os.fstat(fd)
        except OSError as error:
            raise typer.BadParameter(f"descriptor {fd}: {error.strerror}") from error
    return fd


@app.command()
def serve(
    config: ConfigOption = DEFAULT_CONFIG,
    name: NameOption = None,
    cookie_file: CookieFileOption = None,
    log_format: Annotated[
        LogFormat, typer.Option(help="auto: console on a terminal, JSON lines otherwise.")
    ] = LogFormat.AUTO,
    log_level: Annotated[LogLevel, typer.Option(help="The least that is logged.")] = LogLevel.INFO,
    ready_fd: Annotated[
        int | None,
        typer.Option(
            min=0,
            callback=_open_descriptor,
            help="Write one JSON line (name, port, os_pid) to this descriptor and close it, once "
            "every name answers.",
        ),
    ] = None,
) -> None:
    """Run the bridge until SIGTERM or SIGINT.

    Workers finish what they have; a second signal skips that.
    """
    logs.set_up(log_format, log_level)
    loaded = settings.load(config)
    with _native_parts():
        from bridge import app as application
    cookie = find_or_create_cookie(
        cookie_file=cookie_file,
        configured_file=loaded.cookie_path(),
        environ=os.environ,
        create=True,
    )
    application.forget_cookie_variable()
    places = [path for path in (cookie_file, *loaded.secrets()) if path and path.exists()]
    trio.run(
        partial(
            application.serve,
            loaded,
            name=name or loaded.node.name,
            cookie=cookie,
            hide=[path.resolve() for path in places],
            ready=_tell(ready_fd),
        )
    )


def _tell(ready_fd: int | None) -> Callable[[Ready], None]:
    """A function that writes to `ready_fd` and closes it."""

    def tell(ready: Ready) -> None:
        if ready_fd is not None:
            with os.fdopen(ready_fd, "w") as out:
                out.write(json.dumps(asdict(ready)) + "\n")

    return tell


@app.command()
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
    """Ask a running bridge for its roles, workers and rates, as one more hidden node."""
    logs.set_up(LogFormat.AUTO, LogLevel.WARNING)
    loaded = settings.load(config) if name is None or config.exists() else None
    with _native_parts():
        from bridge.ops import status_report
    cookie = find_or_create_cookie(
        cookie_file=cookie_file,
        configured_file=loaded.cookie_path() if loaded else None,
        environ=os.environ,
        create=False,
    )
    target = name or (loaded.node.name if loaded else DEFAULT_NAME)
    peers = dict(loaded.node.peers) if loaded else {}
    if loaded and loaded.node.port:
        peers.setdefault(loaded.node.name, f"{_dialled(loaded.node.listen)}:{loaded.node.port}")
    tls = loaded.tls_config() if loaded else None
    report = trio.run(status_report.ask, target, cookie, interval_s, peers, tls)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        status_report.show(report, Console())


def _dialled(listen: str) -> str:
    """The address by which this host reaches what listens on `listen`."""
    match listen:
        case "0.0.0.0":
            return "127.0.0.1"
        case "::":
            return "[::1]"
        case _:
            return f"[{listen}]" if ":" in listen else listen


def _print_whole(console: Console, line: str) -> None:
    """A line that the terminal breaks, not we: paths in it can be copied."""
    console.print(line, soft_wrap=True, highlight=False)


@app.command()
def doctor(
    config: ConfigOption = DEFAULT_CONFIG,
    name: NameOption = None,
    cookie_file: CookieFileOption = None,
) -> None:
    """Look at everything the bridge needs and say how to mend what is missing.

    The exit status is 1 if the bridge cannot run here.
    """
    console = Console()
    loaded = None
    findings = []
    try:
        loaded = settings.load(config)
    except ConfigError as error:
        findings.append(
            examination.Finding(
                "settings", False, f"{error.file}: {error.key}: {error.rule}", error.mend
            )
        )
    patient = examination.Patient(
        config=loaded,
        name=name or (loaded.node.name if loaded else DEFAULT_NAME),
        cookie_file=cookie_file,
        environ=os.environ,
    )
    findings += examination.examine(patient)
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        mark = (
            "[green]ok [/]" if finding.ok else ("[red]BAD[/]" if finding.must else "[yellow]hm [/]")
        )
        _print_whole(console, f"{mark} {escape(finding.name):{width}}  {escape(finding.found)}")
        if not finding.ok:
            _print_whole(console, f"{'':{width + 4}}  [bold]{escape(finding.mend)}[/]")
    broken = sum(not finding.ok and finding.must for finding in findings)
    if broken:
        console.print(
            f"[red]{broken} of {len(findings)} checks must be mended before the bridge can run"
        )
        raise typer.Exit(1)
    console.print("The bridge can run here.")


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"ringbridge {bridge.__version__}")


@contextmanager
def _native_parts() -> Iterator[None]:
    """Around the imports that need them; the other commands work before they are built."""
    try:
        yield
    except ImportError as error:
        raise NotBuilt(f"{error}: build the native parts by `make native`") from error


# What the user can mend: told in one line, without a traceback.
MENDABLE = (ConfigError, CookieError, EpmdError, TlsError, NotBuilt, NoStatus)


def main() -> None:
    """The console script."""
    try:
        app()
    except* MENDABLE as group:
        for error in _leaves(group):
            typer.secho(f"ringbridge: {error}", fg=typer.colors.RED, err=True)
        sys.exit(1)


def _leaves(group: BaseExceptionGroup[Exception]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
