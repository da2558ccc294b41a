"""`ringbridge conformance`: is this executable a worker?"""

from __future__ import annotations

from typing import Annotated

import typer


def conformance(
    command: Annotated[
        list[str] | None, typer.Argument(help="The worker and its arguments, behind --.")
    ] = None,
    rule: Annotated[list[int] | None, typer.Option(help="Only this rule; repeatable.")] = None,
    show: Annotated[bool, typer.Option("--list", help="List the rules and end.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Verdicts as JSON on stdout.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="What it does not offer counts as broken.")
    ] = False,
    jobs: Annotated[int, typer.Option(help="How many rules are tried at once.", min=1)] = 1,
    messages: Annotated[
        bool, typer.Option("--messages", help="A worker that is a process of a node.")
    ] = False,
    links: Annotated[
        bool, typer.Option("--links", help="The same, over the links that it takes.")
    ] = False,
    patience: Annotated[
        float, typer.Option(help="Seconds to wait for what has to come.", min=0.1)
    ] = 10.0,
) -> None:
    """Drive an executable that claims to be a worker, and tell a verdict per rule.

    It serves the job language of docs/workers-conformance.md. The exit status is 0 when no rule is
    broken, 1 when one is, 64 for a wrong call, 69 where this machine cannot run the battery.
    """
    from workers.conformance import __main__ as battery

    if show:
        raise typer.Exit(battery.list_rules(over_messages=messages, links=links))
    try:
        status = battery.examine(
            command or (),
            numbers=rule or (),
            patience_s=patience,
            jobs=jobs,
            strict=strict,
            as_json=json,
            over_messages=messages,
            links=links,
        )
    except battery.WrongCallError as error:
        typer.secho(f"ringbridge: {error}", fg=typer.colors.RED, err=True)
        status = battery.USAGE
    raise typer.Exit(status)
