"""Commands about the links between workers in a running bridge: links, revoke-link."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Annotated

import typer

from bridge.cli.asking import operate
from bridge.cli.options import DEFAULT_CONFIG, ConfigOption, CookieFileOption, NameOption


def links(
    audit: Annotated[
        bool, typer.Option("--audit", help="What was granted, refused and ended last.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The whole answer as JSON.")] = False,
    name: NameOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    cookie_file: CookieFileOption = None,
) -> None:
    """Show which worker may ask which, directly."""
    operate(name, config, cookie_file, lambda _: partial(_views().links, audit, as_json))


def revoke_link(
    link: Annotated[int, typer.Argument(help="Its number, as links shows it.")],
    name: NameOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    cookie_file: CookieFileOption = None,
) -> None:
    """End a link for both workers, at once."""
    operate(name, config, cookie_file, lambda _: partial(_views().revoke, link))


LOOKS: list[Callable[..., None]] = [links]
OPERATIONS: list[Callable[..., None]] = [revoke_link]


def _views() -> ModuleType:
    """Imported late: it needs the native parts."""
    from bridge.ops import link_views

    return link_views
