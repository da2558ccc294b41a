"""What lies between two configurations, key by key, and which of it a running bridge cannot take.

Everything else takes effect at once, or with the next connection or worker (docs/operations.md says
which is which).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from bridge.config.errors import ConfigError
from bridge.config.reading import build
from bridge.config.section import Section
from bridge.config.whole import Config

_RESTART = "Restart the bridge for it, or leave it as it is"
# Pattern of a key, the rule, the way out.
_FIXED = [
    (r"node\.name", "a node keeps its name: it stands in every pid and reference of it", _RESTART),
    (r"node\.(listen|port)", "the door stands where peers were told", _RESTART),
    (r"node\.epmd", "how the node is found was settled when it was registered", _RESTART),
    (r"node\.cookie_file", "the cookie is read once, at the start", _RESTART),
    (r"node\.atom_cache", "what the node offers is settled when it starts", _RESTART),
    (r"tls", "the node is under TLS for life, or never", _RESTART),
    (
        r"tls\.(cert|key)",
        "workers that run are kept from reading the key at its old place, not at a new one",
        "Put the new files where the old ones were, or restart the bridge",
    ),
    (
        r"roles\.(.*)\.pool_bytes",
        "a role keeps its pool: its memory is sealed, and every worker has mapped it",
        "Restart the bridge for it, or take the role out, reload, and put it in again",
    ),
    (r"checkpoints\..*", "the file is open, and holds what workers keep", _RESTART),
    (r"metrics\.listen", "the listener stands where it was opened", _RESTART),
]


@dataclass(frozen=True, slots=True)
class Change:
    """One key whose value is another. A whole table that came has `was` None, one that went has
    `now` None.
    """

    key: str
    was: Any
    now: Any


def changes(old: Config, new: Config) -> list[Change]:
    """Every key that differs, in the order of the file; a role that came or went is one change."""
    return [
        change
        for name in Config.__struct_fields__
        if name != "file"
        for change in _between(name, getattr(old, name), getattr(new, name))
    ]


def refused(old: Config, new: Config) -> list[ConfigError]:
    """What of `changes` a running bridge cannot take."""
    errors = []
    for change in changes(old, new):
        is_table = change.was is None or change.now is None
        for pattern, rule, mend in _FIXED:
            if re.fullmatch(pattern, change.key) and (is_table or change.key != "tls"):
                errors.append(
                    ConfigError(
                        file=new.file,
                        key=change.key,
                        value=None if isinstance(change.now, Section) else change.now,
                        rule=f"it cannot change while the bridge runs ({rule})",
                        mend=mend,
                    )
                )
    return errors


def with_value(config: Config, key: str, value: Any) -> Config:
    """`config` with another value at `key` ("roles.echo.depth_max"); None stands for the default.

    Raises ConfigError, as for a file that says so.
    """
    whole = {name: getattr(config, name) for name in Config.__struct_fields__ if name != "file"}
    raw = {name: v for name, v in msgspec.to_builtins(whole).items() if v is not None}
    table, name = _place(raw, key, config)
    if value is None:
        table.pop(name, None)
    else:
        table[name] = value
    return build(raw, config.file)


def _between(key: str, old: Any, new: Any) -> Iterator[Change]:
    if isinstance(old, Section) and isinstance(new, Section):
        for field in old.__struct_fields__:
            yield from _between(f"{key}.{field}", getattr(old, field), getattr(new, field))
    elif _is_named(old) or _is_named(new):
        for name in dict.fromkeys((*old, *new)):
            yield from _between(f"{key}.{name}", old.get(name), new.get(name))
    elif old != new:
        yield Change(key, old, new)


def _is_named(value: Any) -> bool:
    """A table of tables, such as [roles]."""
    return isinstance(value, Mapping) and any(isinstance(v, Section) for v in value.values())


def _place(raw: dict[str, Any], key: str, config: Config) -> tuple[dict[str, Any], str]:
    """The table that has `key`'s last part. The names of roles may have dots."""
    table, rest, seen = raw, key, ""
    while True:
        # The longest name that is there; else what stands before the first dot.
        here = max(
            (n for n, v in table.items() if isinstance(v, dict) and rest.startswith(f"{n}.")),
            key=len,
            default=rest.partition(".")[0],
        )
        if rest == here:
            return table, rest
        seen = f"{seen}.{here}".lstrip(".")
        inner = table.get(here)
        if table is raw.get("roles") and inner is None:
            raise ConfigError(
                file=config.file,
                key=key,
                rule=f"there is no role {here}",
                mend=f"The roles are: {', '.join(table)}; a role is added by a file and a reload",
            )
        if inner is not None and not isinstance(inner, dict):
            raise ConfigError(
                file=config.file, key=key, rule=f"{seen} is no table", mend=f"Give {seen} whole"
            )
        table, rest = table.setdefault(here, {}), rest[len(here) + 1 :]
