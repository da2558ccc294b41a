"""`ringbridge replay`: a recording of the relay is run again, and held against itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bridge.cli.options import native_parts
from bridge.ops.errors import NoRecording


def replay(
    file: Annotated[Path, typer.Argument(help="What `serve --record` or `Relay(record=)` wrote.")],
) -> None:
    """Run a recording of the relay again, without sockets and workers.

    The exit status is 1 at the first byte that leaves otherwise than it did.
    """
    with native_parts():
        from bridge.fabric import recording
    try:
        run = recording.replay(file)
    except recording.RecordingError as error:
        raise NoRecording(str(error)) from error
    jobs = run.stats
    answers = ", ".join(f"{count} {reason}" for reason, count in jobs.answered.items() if count)
    typer.echo(
        f"{run.rounds} rounds, {run.items} items, {run.bytes} bytes: {jobs.accepted} jobs accepted"
        f" ({answers or 'none answered'}), {jobs.in_flight} in flight at the end"
    )
    if run.end is not recording.RecordEnd.STOPPED:
        typer.echo(f"the recording ended before the relay did: {run.end.words}")
    if run.difference:
        typer.secho(f"the first difference: {run.difference}", fg=typer.colors.RED)
        raise typer.Exit(1)
    typer.echo("the same bytes left")
