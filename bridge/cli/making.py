"""`ringbridge new`: what a user begins with."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from bridge.ops import new_worker

app = typer.Typer(help="Begin something of your own.", no_args_is_help=True)


@app.callback()
def new() -> None:
    """Begin something of your own."""


@app.command()
def worker(
    lang: Annotated[str, typer.Option(help="The kit's language: c, python, ...")],
    role: Annotated[str, typer.Option(help="The role that it will serve.")],
    into: Annotated[
        Path | None, typer.Option(help="The folder to write; else one with the role's name.")
    ] = None,
    settings_only: Annotated[
        bool, typer.Option(help="Print the role's table for ringbridge.toml, and nothing else.")
    ] = False,
) -> None:
    """Write a worker that runs, from the kit's template, and say what to do with it."""
    made = new_worker.create(lang, role, into or Path(role))
    if settings_only:
        typer.echo(made.settings(), nl=False)
        return
    typer.echo(f"{made.folder} has a worker for the role {made.role}.\n")
    if made.build:
        there = shlex.quote(str(made.folder))
        typer.echo(f"Build it:\n\n    cd {there} && {shlex.join(made.build)}\n")
    table = "".join(f"    {line}\n" for line in made.settings().splitlines())
    typer.echo(f"Put this into ringbridge.toml, then `ringbridge serve` or `reload`:\n\n{table}")
    call = f'GenServer.call({{Ringbridge.JobDispatcher, bridge}}, {{:submit, :{role}, "hello"}})'
    typer.echo(f'It answers {{:ok, "HELLO"}} to\n\n    {call}')
