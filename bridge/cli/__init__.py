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
from collections.abc import Iterable, Iterator
from importlib import import_module

import typer

import bridge

HERE = "On this machine"
LOOKS = "A running bridge"
OPERATIONS = "A running bridge, for admin_nodes"

# The commands in the order of the help: a module of this package, and the panel that lists it. The
# function has the command's name, or the module an `app` of that name.
COMMANDS = {
    "serve": ("serving", HERE),
    "doctor": ("serving", HERE),
    "replay": ("replaying", HERE),
    "conformance": ("checking", HERE),
    "status": ("asking", LOOKS),
    "workers": ("workers", LOOKS),
    "watch": ("workers", LOOKS),
    "links": ("linking", LOOKS),
    "reload": ("asking", OPERATIONS),
    "configure": ("asking", OPERATIONS),
    "drain": ("asking", OPERATIONS),
    "resume": ("asking", OPERATIONS),
    "restart": ("asking", OPERATIONS),
    "upgrade": ("asking", OPERATIONS),
    "breaker": ("asking", OPERATIONS),
    "record": ("asking", OPERATIONS),
    "scale": ("workers", OPERATIONS),
    "crash-report": ("workers", OPERATIONS),
    "checkpoint": ("states", OPERATIONS),
    "move-state": ("states", OPERATIONS),
    "revoke-link": ("linking", OPERATIONS),
    "attach": ("attaching", OPERATIONS),
    "version": ("", HERE),
}
GROUPS = {"new": ("making", HERE), "chaos": ("troubling", HERE)}


def version() -> None:
    """Print the version."""
    typer.echo(f"ringbridge {bridge.__version__}")


def command_line(names: Iterable[str]) -> typer.Typer:
    """The program with the commands of these names.

    What typer makes of a command's parameters, and what its module imports, is most of the time
    that a start takes: whoever asks for one command waits for no other.
    """
    app = typer.Typer(
        name="ringbridge",
        help="A hidden Erlang node that hands work to native worker processes.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(_program)
    for name in names:
        module, panel = COMMANDS.get(name) or GROUPS[name]
        home = import_module(f"bridge.cli.{module}" if module else __name__)
        if name in GROUPS:
            app.add_typer(home.app, name=name, rich_help_panel=panel)
        else:
            function = getattr(home, name.replace("-", "_"))
            app.command(name, rich_help_panel=panel)(function)
    return app


def _program() -> None:
    """With it typer takes even a single command for one of several."""


def main() -> None:
    """The console script."""
    every = [*COMMANDS, *GROUPS]
    app = command_line(sys.argv[1:2] if sys.argv[1:2] in [[name] for name in every] else every)
    try:
        app()
    except* _mendable() as group:
        for error in _leaves(group):
            typer.secho(f"ringbridge: {error}", fg=typer.colors.RED, err=True)
        sys.exit(1)


def _mendable() -> tuple[type[Exception], ...]:
    """What the user can mend: told in one line, without a traceback."""
    from bridge.config import ConfigError
    from bridge.dist.errors import CookieError, EpmdError
    from bridge.dist.tls import TlsError
    from bridge.ops.errors import NoRecording, NoStatus, NotBuilt, Refused

    own = (NotBuilt, NoRecording, NoStatus, Refused)
    return (ConfigError, CookieError, EpmdError, TlsError, *own)


def _leaves(group: BaseExceptionGroup[Exception]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
