"""The `ringbridge` command. It parses, calls and prints.

The cookie is never an argument: arguments are visible to every user of the machine (ps).

serving     serve, doctor: what runs the bridge on this machine, or would
replaying   replay: runs a recording of the relay again
checking    conformance: holds an executable to the rules of a worker
making      new: writes a worker to begin with
troubling   chaos: trouble on purpose
workers     workers, watch, scale, crash-report
states      checkpoint, move-state
linking     links, revoke-link
asking      status, and what changes a running bridge: reload, configure, drain, upgrade, ...
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import typer

import bridge
from bridge.cli import (
    asking,
    attaching,
    checking,
    linking,
    making,
    replaying,
    serving,
    states,
    troubling,
    workers,
)
from bridge.config import ConfigError
from bridge.dist.errors import CookieError, EpmdError
from bridge.dist.tls import TlsError
from bridge.ops.errors import NoRecording, NoStatus, NotBuilt, Refused

app = typer.Typer(
    name="ringbridge",
    help="A hidden Erlang node that hands work to native worker processes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (serving.serve, serving.doctor, replaying.replay, checking.conformance):
    app.command(rich_help_panel="On this machine")(command)
app.add_typer(making.app, name="new", rich_help_panel="On this machine")
app.add_typer(troubling.app, name="chaos", rich_help_panel="On this machine")
app.command(rich_help_panel="A running bridge")(asking.status)
for look in (*workers.LOOKS, *linking.LOOKS):
    app.command(rich_help_panel="A running bridge")(look)
for operation in (
    *asking.OPERATIONS,
    *workers.OPERATIONS,
    *states.OPERATIONS,
    *linking.OPERATIONS,
    attaching.attach,
):
    app.command(rich_help_panel="A running bridge, for admin_nodes")(operation)


@app.command(rich_help_panel="On this machine")
def version() -> None:
    """Print the version."""
    typer.echo(f"ringbridge {bridge.__version__}")


# What the user can mend: told in one line, without a traceback.
MENDABLE = (ConfigError, CookieError, EpmdError, TlsError, NotBuilt, NoRecording, NoStatus, Refused)


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
