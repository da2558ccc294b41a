"""`ringbridge serve` and `ringbridge doctor`: what runs the bridge on this machine, or would."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated

import trio
import typer
from rich.console import Console
from rich.markup import escape

from bridge import config as settings
from bridge.cli.options import (
    DEFAULT_CONFIG,
    DEFAULT_NAME,
    ConfigOption,
    CookieFileOption,
    NameOption,
    RecordMibOption,
    RecordOption,
    native_parts,
)
from bridge.config import ConfigError
from bridge.dist.cookie import read_cookie_fd
from bridge.ops import doctor as examination
from bridge.ops import logs
from bridge.ops.logs import LogFormat, LogLevel
from bridge.ops.new_cookie import find_or_create_cookie

if TYPE_CHECKING:
    from bridge.app import Ready


def _open_descriptor(fd: int | None) -> int | None:
    """Refuse a descriptor that nobody opened, before the bridge starts."""
    if fd is not None:
        try:
            os.fstat(fd)
        except OSError as error:
            raise typer.BadParameter(f"descriptor {fd}: {error.strerror}") from error
    return fd


def serve(
    config: ConfigOption = DEFAULT_CONFIG,
    name: NameOption = None,
    cookie_file: CookieFileOption = None,
    cookie_fd: Annotated[
        int | None,
        typer.Option(
            min=0,
            callback=_open_descriptor,
            help="Read the cookie from this descriptor, up to its end of file, instead.",
        ),
    ] = None,
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
    record: RecordOption = None,
    record_mib: RecordMibOption = 1024,
) -> None:
    """Run the bridge until SIGTERM or SIGINT.

    Workers finish what they have; a second signal skips that.
    """
    logs.set_up(log_format, log_level)
    if cookie_fd is not None and cookie_file is not None:
        raise typer.BadParameter("give --cookie-fd or --cookie-file, not both")
    loaded = settings.load(config)
    with native_parts():
        from bridge import app as application
        from bridge.fabric.recording import MIB, Recording
    if cookie_fd is not None:
        cookie = read_cookie_fd(cookie_fd)
    else:
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
            record=Recording(record.absolute(), record_mib * MIB) if record else None,
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


def _print_whole(console: Console, line: str) -> None:
    """A line that the terminal breaks, not we: paths in it can be copied."""
    console.print(line, soft_wrap=True, highlight=False)


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
