"""Options that several commands have, and what they share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from bridge.dist.names import node_name_problem
from bridge.ops.errors import NotBuilt

DEFAULT_CONFIG = Path("ringbridge.toml")
DEFAULT_NAME = "bridge@127.0.0.1"

ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", help="The settings (docs/configuration.md).")
]


def node_name(name: str | None) -> str | None:
    if name is not None and (problem := node_name_problem(name)):
        raise typer.BadParameter(f"{problem}; write it like {DEFAULT_NAME}")
    return name


NameOption = Annotated[
    str | None,
    typer.Option(
        "--name",
        "-n",
        callback=node_name,
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
RecordOption = Annotated[
    Path | None,
    typer.Option(
        "--record",
        help="Write all that the relay hears and says into this new file, payloads included, for "
        "`ringbridge replay` (docs/replay.md).",
    ),
]
RecordMibOption = Annotated[
    int, typer.Option("--record-mib", min=1, help="The file's bound; then the recording ends.")
]


@contextmanager
def native_parts() -> Iterator[None]:
    """Around the imports that need them; the other commands work before they are built."""
    try:
        yield
    except ImportError as error:
        raise NotBuilt(f"{error}: build the native parts by `make native`") from error
