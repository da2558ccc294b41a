"""Logging: structlog to stderr, for people on a terminal and as JSON lines for everything else."""

from __future__ import annotations

import logging
import sys
from enum import Enum
from typing import TextIO

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
        logger_factory=structlog.WriteLoggerFactory(out),
        # Loggers are made at import; what is configured later must reach them.
        cache_logger_on_first_use=False,
    )
