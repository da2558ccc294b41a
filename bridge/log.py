"""Log lines of the node: to structlog where the program has configured it, else to `logging`.

So a program that uses the node as a library reads its lines as those of any other library: nothing
on stdout, and without any configuration only warnings and worse, on stderr.
"""

from __future__ import annotations

import logging
from typing import Any

import structlog


class Log:
    """The lines of one part, which `name` tells: an event in words, and fields."""

    def __init__(self, name: str) -> None:
        self._structured = structlog.get_logger(name)
        self._plain = logging.getLogger(name)

    def info(self, event: str, **fields: Any) -> None:
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._write(logging.ERROR, event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        """An error with the traceback of the exception that is being handled."""
        self._write(logging.ERROR, event, {"exc_info": True, **fields})

    def _write(self, level: int, event: str, fields: dict[str, Any]) -> None:
        if structlog.is_configured():
            self._structured.log(level, event, **fields)
        elif self._plain.isEnabledFor(level):
            exc_info = fields.pop("exc_info", None)
            words = [event, *(f"{name}={value!r}" for name, value in fields.items())]
            self._plain.log(level, "%s", " ".join(words), exc_info=exc_info)
