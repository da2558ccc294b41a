"""Logging: structlog to stderr, for people on a terminal and as JSON lines for everything else.

A log that cannot be written ends nobody: on a full disk, or when its reader has gone, lines are
lost and counted, and before the first that gets through stands their number.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import TextIO, cast

import structlog


class LogFormat(Enum):
    AUTO = "auto"
    CONSOLE = "console"
    JSON = "json"


class LogLevel(Enum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Lines:
    """What structlog writes each line to, and then flushes: `out`, whose errors stay here.

    `missing(count, why)` is the line that tells of those which were lost.
    """

    def __init__(self, out: TextIO, missing: Callable[[int, str], str]) -> None:
        self._out = out
        self._missing = missing
        self._lost = 0
        self._why = ""

    def write(self, text: str) -> None:
        try:
            if self._lost:
                self._out.write(self._missing(self._lost, self._why))
            self._out.write(text)
            self._out.flush()
        except OSError as error:
            self._lost += 1
            self._why = os.strerror(error.errno or 0)
        else:
            self._lost = 0

    def flush(self) -> None:
        pass


def _missing(is_json: bool, count: int, why: str) -> str:
    event = "log lines are missing here"
    if is_json:
        return json.dumps({"lines": count, "why": why, "event": event, "level": "warning"}) + "\n"
    return f"{event}: {count} ({why})\n"


def set_up(
    format_: LogFormat = LogFormat.AUTO,
    level: LogLevel = LogLevel.INFO,
    *,
    stream: TextIO | None = None,
) -> None:
    """Configure every structlog logger of the process. `stream` is stderr unless given.

    stdout stays free for what a command prints as its result.
    """
    out = stream or sys.stderr
    if format_ is LogFormat.AUTO:
        format_ = LogFormat.CONSOLE if out.isatty() else LogFormat.JSON
    missing = partial(_missing, format_ is LogFormat.JSON)
    renderers: list[structlog.typing.Processor]
    if format_ is LogFormat.CONSOLE:
        # Plain tracebacks: the pretty ones show local variables, and one of them may be a secret.
        renderers = [
            structlog.dev.ConsoleRenderer(
                colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    else:
        renderers = [
            structlog.processors.ExceptionRenderer(
                structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
            ),
            structlog.processors.JSONRenderer(default=str, ensure_ascii=False),
        ]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.name]
        ),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, Lines(out, missing))),
        # Loggers are made at import; what is configured later must reach them.
        cache_logger_on_first_use=False,
    )
