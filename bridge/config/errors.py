"""ConfigError, and how a value is shown in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class ConfigError(Exception):
    """One rule that the configuration breaks. str() of it is ready to be shown to the user;
    `words` is the same without the file, for what did not come from there.
    """

    def __init__(
        self, *, file: Path | str, key: str, rule: str, mend: str, value: Any = None
    ) -> None:
        self.file, self.key, self.value, self.rule, self.mend = str(file), key, value, rule, mend
        given = "" if value is None else f" = {shown(value)}"
        self.words = f"{key}{given}: {rule}. {mend}"
        super().__init__(f"{file}: {self.words}")


class ConfigErrors(ConfigError):
    """Several of them, each on a line of its own."""

    def __init__(self, errors: Sequence[ConfigError]) -> None:
        first = errors[0]
        super().__init__(
            file=first.file, key=first.key, value=first.value, rule=first.rule, mend=first.mend
        )
        self.words = "\n".join(error.words for error in errors)
        self.args = ("\n".join(map(str, errors)),)


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
