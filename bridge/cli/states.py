"""Commands about the state of workers in a running bridge: checkpoint, move-state."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import partial
from types import ModuleType
from typing import Annotated

import typer

from bridge.cli.asking import operate
from bridge.cli.options import DEFAULT_CONFIG, ConfigOption, CookieFileOption, NameOption

WorkerArgument = Annotated[int, typer.Argument(help="The worker's id, as status shows it.")]


class How(Enum):
    STOP_AND_COPY = "stop_and_copy"
    PRE_COPY = "pre_copy"
    POST_COPY = "post_copy"


def checkpoint(
    worker: WorkerArgument,
    name: NameOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    cookie_file: CookieFileOption = None,
) -> None:
    """Have one worker save its state, and return when that is kept."""
    operate(name, config, cookie_file, lambda _: partial(_states().checkpoint, worker))


def move_state(
    source: WorkerArgument,
    target: WorkerArgument,
    how: Annotated[How, typer.Option(help="What the target does meanwhile.")] = How.STOP_AND_COPY,
    name: NameOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    cookie_file: CookieFileOption = None,
) -> None:
    """Drain one worker of a role, and give its state to another."""
    operate(
        name,
        config,
        cookie_file,
        lambda _: partial(_states().move_state, source, target, how.value),
    )


OPERATIONS: list[Callable[..., None]] = [checkpoint, move_state]


def _states() -> ModuleType:
    """Imported late: it needs the native parts."""
    from bridge.ops import states

    return states
