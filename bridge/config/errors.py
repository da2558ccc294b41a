"""ConfigError, and how a value is shown in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class ConfigError(Exception):
    """One rule that the configuration breaks. str() of it is ready to be shown to the user."""

    def __init__(
        self, *, file: Path | str, key: str, rule: str, mend: str, value: Any = None
    ) -> None:
        self.file, self.key, self.value, self.rule, self.mend = str(file), key, value, rule, mend
        given = "" if value is None else f" = {shown(value)}"
        super().__init__(f"{file}: {key}{given}: {rule}. {mend}")


def shown(value: Any) -> str:
    """A value as TOML would spell it, shortened; a table is not repeated."""
    if isinstance(value, Mapping):
        return "{...}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        text = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    elif isinstance(value, (list, tuple)):
        text = "[" + ", ".join(shown(item) for item in value) + "]"
    else:
        text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."
