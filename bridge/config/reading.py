"""A file into a Config: read, converted table by table, and held against every rule."""

from __future__ import annotations

import tomllib
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from bridge.config.errors import ConfigError
from bridge.config.rules import broken_rules
from bridge.config.section import Section
from bridge.config.whole import Config
from bridge.config.words import convert, sub_section, unknown_key


def load(file: str | Path) -> Config:
    """Read and check `file`. Raises ConfigError for the first rule that it breaks."""
    path = Path(file).expanduser()
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(
            file=path,
            key="(file)",
            rule=f"it cannot be read: {error.strerror}",
            mend="Give the path of a configuration by --config",
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            file=path, key="(file)", rule="TOML is UTF-8, this file is not", mend="Save it as UTF-8"
        ) from error
    return parse(text, path)


def parse(text: str, file: Path) -> Config:
    """Check the text of a configuration that lies at `file`. Raises ConfigError."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            file=file, key="(syntax)", rule=f"not TOML: {error}", mend="Correct that line"
        ) from error
    return build(raw, file)


def build(raw: Mapping[str, Any], file: Path) -> Config:
    """Check the tables of a configuration that lies at `file`. Raises ConfigError."""
    known = tables()
    for key in raw:
        if key not in known:
            raise unknown_key(file, key, raw[key], known)
    made: dict[str, Any] = {}
    for key, (type_, is_named) in known.items():
        if is_named:
            made[key] = _named(type_, key, raw.get(key, {}), file)
        elif key in raw or key not in _OPTIONAL:
            made[key] = convert(type_, raw.get(key, {}), key, file)
    config = Config(file=file.absolute(), **made)
    for key, value, rule, mend in broken_rules(config):
        raise ConfigError(file=file, key=key, value=value, rule=rule, mend=mend)
    return config


def tables() -> dict[str, tuple[type[Section], bool]]:
    """The file's tables: what each is a record of, and whether it holds such tables under names
    ([roles.<name>]).
    """
    found: dict[str, tuple[type[Section], bool]] = {}
    for name, hint in typing.get_type_hints(Config).items():
        if (type_ := sub_section(Config, name)) is not None:
            found[name] = type_, typing.get_origin(hint) is dict
    return found


def sections() -> Iterator[tuple[str, type[Section]]]:
    """Every table that a file may have, by its heading: "node", "roles.<name>", ..."""

    def below(heading: str, type_: type[Section]) -> Iterator[tuple[str, type[Section]]]:
        yield heading, type_
        for field in type_.__struct_fields__:
            if (inner := sub_section(type_, field)) is not None:
                yield from below(f"{heading}.{field}", inner)

    for name, (type_, is_named) in tables().items():
        yield from below(f"{name}.<name>" if is_named else name, type_)


_OPTIONAL = {field.name for field in msgspec.structs.fields(Config) if field.default is None}


def _named(type_: type[Section], key: str, table: Any, file: Path) -> dict[str, Section]:
    if not isinstance(table, Mapping):
        example = ' with a command, like command = ["my-worker"]' if key == "roles" else ""
        raise ConfigError(
            file=file,
            key=key,
            value=table,
            rule=f"{key} is a table of tables",
            mend=f"Write each {key.removesuffix('s')} as [{key}.<name>]{example}",
        )
    return {name: convert(type_, inner, f"{key}.{name}", file) for name, inner in table.items()}
