"""Records of Python and structs of the core, matched by field names: dispatch.h says how.

So a setting or a figure that the core gains needs its field in the record of the same subject, and
no line of code here.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, TypeVar

from bridge.fabric._core import ffi, lib
from bridge.fabric.figures import Rule

_Record = TypeVar("_Record")


class Filled:
    """A struct made from a record; it lives, with all that it points to, as long as this object."""

    def __init__(self, pointer: Any) -> None:
        self.pointer = pointer
        self.kept: list[Any] = []


def filled(struct: str, record: Any, *, but: frozenset[str] = frozenset()) -> Filled:
    """A new `struct` ("struct rb_role_config") with the fields of the dataclass `record`, without
    those named in `but`.

    Raises OverflowError for a number that its field cannot hold, ValueError for a tuple or a text
    that is too long or a word that the core does not know, AttributeError for a field that the
    struct lacks.
    """
    made = Filled(ffi.new(f"{struct} *"))
    _fill(made.pointer, record, but, "", made.kept)
    return made


def record(type_: type[_Record], raw: Any) -> _Record:
    """The fields of the dataclass `type_` read from the struct `raw`, nested ones too.

    A field of type dict[str, int] is an array of the core with a place for each reason, one of
    type dict[Rule, int] with a place for each rule.
    """
    return type_(
        **{
            name: _read(getattr(raw, name), hint)
            for name, hint in _hints(typing.cast(Any, type_)).items()
        }
    )


@cache
def reasons() -> tuple[str, ...]:
    """The names of enum rb_reason in the core's order: "ok", "overloaded", ..."""
    return _names("enum rb_reason", "RB_REASON_", lib.RB_REASONS)


@cache
def rules() -> tuple[str, ...]:
    """The names of enum rb_rule in the core's order: "role_depth", ..."""
    return _names("enum rb_rule", "RB_RULE_", lib.RB_RULES)


def _names(enum: str, prefix: str, count: int) -> tuple[str, ...]:
    names: Mapping[int, str] = ffi.typeof(enum).elements
    return tuple(
        names[number].removeprefix(prefix).lower() for number in sorted(names) if number < count
    )


def _fill(raw: Any, given: Any, but: frozenset[str], subject: str, kept: list[Any]) -> None:
    types = dict(ffi.typeof(raw).item.fields)
    for field in fields(given):
        if field.name in but:
            continue
        if field.name not in types:
            raise AttributeError(f"{ffi.typeof(raw).item.cname} has no field {field.name}")
        _put(raw, field.name, types[field.name].type, getattr(given, field.name), subject, kept)


def _put(raw: Any, name: str, type_: Any, value: Any, subject: str, kept: list[Any]) -> None:
    match value:
        case None:  # stays zero
            pass
        case Enum():
            setattr(raw, name, value.value)
        case str() if type_.kind == "pointer":
            kept.append(ffi.new("char[]", value.encode()))
            setattr(raw, name, kept[-1])
        case str() if type_.kind == "array":
            text = value.encode()
            if len(text) >= type_.length:
                raise ValueError(f"{name}: a text of at most {type_.length - 1} bytes")
            setattr(raw, name, text)
        case str():
            setattr(raw, name, _word(subject, value))
        case tuple():
            _put_array(raw, name, type_, value, subject, kept)
        case _ if is_dataclass(value):
            _fill(ffi.addressof(raw, name), value, frozenset(), name, kept)
        case _:
            setattr(raw, name, value)


def _put_array(
    raw: Any, name: str, type_: Any, values: tuple[Any, ...], subject: str, kept: list[Any]
) -> None:
    if len(values) > type_.length:
        raise ValueError(f"{name}: at most {type_.length} of them, not {len(values)}")
    array = getattr(raw, name)
    for index, value in enumerate(values):
        if is_dataclass(value):
            _fill(ffi.addressof(array, index), value, frozenset(), subject, kept)
        else:
            array[index] = _element(type_.item, subject, name, value)
    setattr(raw, f"{name}_count", len(values))


def _element(type_: Any, subject: str, name: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if type_.kind != "array":
        return _word(subject, value)
    if len(text := value.encode()) >= type_.length or "\0" in value:
        raise ValueError(f"{name}: texts of at most {type_.length - 1} bytes, none of them NUL")
    return text


def _word(subject: str, word: str) -> int:
    constant = f"RB_{subject}_{word}".upper()
    try:
        return int(getattr(lib, constant))
    except AttributeError:
        raise ValueError(f"{subject}: the core has no {constant} for {word!r}") from None


def _read(raw: Any, hint: Any) -> Any:
    if is_dataclass(hint) and isinstance(hint, type):
        return record(hint, raw)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint(raw)
    if typing.get_origin(hint) is dict:
        names = rules() if typing.get_args(hint)[0] is Rule else reasons()
        return dict(zip(names, raw, strict=True))
    return raw


@cache
def _hints(type_: Any) -> dict[str, Any]:
    return typing.get_type_hints(type_)
