"""`ringbridge chaos`: trouble on purpose (docs/chaos.md)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import trio
import typer
from rich.console import Console

from bridge.chaos.detour import open_detour
from bridge.chaos.lane import Shape
from bridge.cli.asking import bridge_address
from bridge.cli.options import (
    DEFAULT_CONFIG,
    DEFAULT_NAME,
    ConfigOption,
    CookieFileOption,
    NameOption,
    native_parts,
    node_name,
)
from bridge.dist.epmd_client import EpmdClient
from bridge.ops import logs
from bridge.ops.errors import Refused
from bridge.ops.logs import LogFormat, LogLevel

app = typer.Typer(help="Trouble on purpose.", no_args_is_help=True)


@app.callback()
def chaos() -> None:
    """Trouble on purpose, to see what callers see of it."""


@app.command()
def run(
    plan: Annotated[Path, typer.Argument(help="The plan (docs/chaos.md).")],
    name: NameOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    cookie_file: CookieFileOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="The report as JSON.")] = False,
) -> None:
    """Make the trouble of a plan in a running bridge of this machine, and judge what callers saw.

    The exit status is 0 when the plan's hypothesis held, and 1 when it did not.
    """
    from bridge.chaos import measures, showing
    from bridge.chaos import plan as plans

    wanted = plans.read(plan)
    address = bridge_address(name, config, cookie_file)
    with native_parts():
        from bridge.chaos import experiment
    host = address.name.partition("@")[2]
    report = trio.run(experiment.run, wanted, address, f"chaos_{os.getpid()}@{host}")
    if as_json:
        typer.echo(json.dumps(measures.plain(report), indent=2))
    else:
        showing.show(report, Console())
    if not report.held:
        raise typer.Exit(1)


@app.command()
def proxy(
    name: Annotated[
        str, typer.Argument(help="The node to stand before.", callback=node_name)
    ] = DEFAULT_NAME,
    epmd_port: Annotated[
        int, typer.Option("--epmd", min=0, max=65535, help="Where its own epmd listens; 0: any.")
    ] = 0,
    listen: Annotated[
        int, typer.Option(min=0, max=65535, help="Where the proxy listens; 0: any free port.")
    ] = 0,
    delay_ms: Annotated[float, typer.Option(min=0, help="On each way.")] = 0,
    jitter_ms: Annotated[float, typer.Option(min=0, help="Up to so much more.")] = 0,
    bytes_per_s: Annotated[int, typer.Option(min=0, help="On each way; 0: no limit.")] = 0,
    piece_bytes: Annotated[int, typer.Option(min=0, help="None is longer; 0: no limit.")] = 0,
    cut_after_bytes: Annotated[
        int, typer.Option(min=0, help="Reset a connection after so many on one way; 0: never.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
) -> None:
    """Stand before a node, and make the wire to it slow, narrow, choppy or short, until Ctrl-C.

    Callers that start with ERL_EPMD_PORT set to the port that this prints come through the proxy;
    all others reach the node as before.
    """
    logs.set_up(LogFormat.AUTO, LogLevel.WARNING)
    shape = Shape(delay_ms, jitter_ms, bytes_per_s, piece_bytes, cut_after_bytes)

    async def stand() -> None:
        epmd = EpmdClient.from_environ(os.environ, if_absent="fail")
        async with open_detour(
            name, epmd, shape, epmd_port=epmd_port, proxy_port=listen, seed=seed
        ) as detour:
            typer.echo(f"{name} by way of port {detour.proxy.port}: ", nl=False)
            typer.echo(f"start callers with ERL_EPMD_PORT={detour.epmd_port}")
            await trio.sleep_forever()

    try:
        trio.run(stand)
    except* OSError as group:
        raise Refused(f"the proxy cannot listen: {group.exceptions[0]}") from group
    except* KeyboardInterrupt:
        pass
