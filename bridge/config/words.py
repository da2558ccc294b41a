"""msgspec's errors in our words: with the whole path of the key, the rule, and how to mend it."""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from bridge.config.errors import ConfigError, shown
from bridge.config.section import Section

_Table = TypeVar("_Table", bound=Section)

_UNKNOWN = re.compile(r"Object contains unknown field `(.*?)`")
_MISSING = re.compile(r"Object missing required field `(.*?)`")
_AT = re.compile(r" - at `\$\.?(.*)`$")
_WORDS = {
    "int": "a whole number",
    "str": "a text in quotes",
    "array": 'a list, like ["program", "argument"]',
    "object": "a table",
    "bool": "true or false",
    "float": "a number with a point",
    "null": "nothing",
}


def convert(type_: type[_Table], table: Any, key: str, file: Path) -> _Table:
    """`table`, which stands at `key` of the file, as a record of `type_`. Raises ConfigError."""
    try:
        return msgspec.convert(table, type_)
    except msgspec.ValidationError as error:
        text = str(error)
        at = match[1] if (match := _AT.search(text)) else ""
        raise _in_section(type_, table, key, at, _AT.sub("", text), file) from error


def unknown_key(file: Path, key: str, value: Any, known: Iterable[str]) -> ConfigError:
    name = key.rpartition(".")[2]
    near = difflib.get_close_matches(name, known := tuple(known), n=1)
    guess = f"Did you mean {near[0]}? " if near else ""
    return ConfigError(
        file=file,
        key=key,
        value=value,
        rule="there is no such key",
        mend=f"{guess}The keys here are: {', '.join(known)}",
    )


def sub_section(type_: type[Section], field: str) -> type[Section] | None:
    """The type of the sub-table that `field` of `type_` is, or None if it is none."""
    hint = typing.get_type_hints(type_).get(field)
    for part in (hint, *typing.get_args(hint)):
        if isinstance(part, type) and issubclass(part, Section):
            return part
    return None


def _in_section(
    type_: type[Section], table: Any, key: str, at: str, text: str, file: Path
) -> ConfigError:
    """The error `text` about `at` (a path below `key`), told of the innermost table that has it."""
    field = re.split(r"[.\[]", at)[0]
    inner = sub_section(type_, field) if field else None
    if inner is not None and isinstance(table, Mapping):
        rest = at[len(field) :].removeprefix(".")
        return _in_section(inner, table.get(field), f"{key}.{field}", rest, text, file)
    if match := _UNKNOWN.search(text):
        name = match[1]
        return unknown_key(file, f"{key}.{name}", table.get(name), type_.__struct_fields__)
    if match := _MISSING.search(text):
        rule = f"the key {match[1]} is missing"
        example = ', for example command = ["build/bin/rb-echo"]' if match[1] == "command" else ""
        mend = f"Add it below [{key}]{example}"
        return ConfigError(file=file, key=f"{key}.{match[1]}", rule=rule, mend=mend)
    return ConfigError(
        file=file,
        key=f"{key}.{at}".rstrip("."),
        value=table.get(field) if isinstance(table, Mapping) else table,
        rule=_rule(type_, field, text),
        mend=_mend(type_, field) if field else f"Write [{key}] and its keys below it",
    )


def _rule(type_: type[Section], field: str, text: str) -> str:
    hint = typing.get_type_hints(type_).get(field)
    if text.startswith("Invalid enum value"):
        while typing.get_origin(hint) is not Literal:  # in a list, perhaps
            hint = typing.get_args(hint)[0]
        return "it must be one of: " + ", ".join(map(shown, typing.get_args(hint)))
    return _in_words(text)


def _in_words(text: str) -> str:
    """msgspec's sentence ("Expected `int` >= 1") in the user's words."""

    def word(match: re.Match[str]) -> str:
        return " or ".join(_WORDS.get(part.strip(), part.strip()) for part in match[1].split("|"))

    text = re.sub(r"`(.*?)`", word, text).replace(">=", "of at least").replace("<=", "of at most")
    text = text.replace("of length of at least 1", "with at least one element")
    return text[:1].lower() + text[1:]


def _mend(type_: type[Section], field: str) -> str:
    default = {f.name: f.default for f in msgspec.structs.fields(type_)}.get(
        field, msgspec.NODEFAULT
    )
    if default is msgspec.NODEFAULT or default is None:
        return "docs/configuration.md describes it"
    return f"The default is {shown(default)}; docs/configuration.md describes it"
