"""Terms into the Python values that a signature asks for, or the rule that they break.

| annotation | terms that fit |
|---|---|
| `int`, `bool`, `None`, `bytes`, `Atom`, `Pid`, ... | themselves; true and false are no integers |
| `float` | floats and integers |
| `str` | a binary in UTF-8 |
| `list[T]`, `tuple[A, B]`, `tuple[T, ...]`, `dict[K, V]` | item by item |
| `A | B` | what fits one of them, tried in order |
| `Literal["fast", 1]` | the atom or binary `fast`, the integer 1 |
| a dataclass | a map with its fields as atom (or binary) keys |
| `Any` | every term |
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from bridge.etf import Atom, Map, brief

Term = Any
Convert = Callable[[Term], Any]


class Mismatch(ValueError):
    """A term that does not fit: `expected` says what would."""

    def __init__(self, expected: str, term: Term) -> None:
        super().__init__(f"{expected}, not {brief(term)}")


def converter(annotation: Any) -> tuple[str, Convert]:
    """What an annotation takes, in words, and the function that takes it (raising Mismatch).

    Raises TypeError for an annotation that no term fits.
    """
    if annotation is Any or annotation is object:
        return "any term", _as_it_is
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in _GENERIC:
        return _GENERIC[origin](arguments)
    if annotation in (list, tuple, dict):
        return _instances(f"a {annotation.__name__}", dict if annotation is dict else annotation)
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        if annotation.__module__.startswith("bridge.etf"):
            return _instances(f"a {annotation.__name__}", annotation)
        return _dataclass(annotation)
    if isinstance(annotation, type):
        return _instances(f"a {annotation.__name__}", annotation)
    raise TypeError(f"no term fits the annotation {annotation!r}")


def _as_it_is(term: Term) -> Any:
    return term


def _instances(expected: str, cls: type) -> tuple[str, Convert]:
    def convert(term: Term) -> Any:
        if not isinstance(term, cls):
            raise Mismatch(expected, term)
        return term

    return expected, convert


def _exactly(expected: str, cls: type) -> tuple[str, Convert]:
    def convert(term: Term) -> Any:
        if type(term) is not cls:
            raise Mismatch(expected, term)
        return term

    return expected, convert


def _float(term: Term) -> Any:
    if type(term) is int or type(term) is float:
        return float(term)
    raise Mismatch("a number", term)


def _str(term: Term) -> Any:
    if type(term) is bytes:
        try:
            return term.decode()
        except UnicodeDecodeError:
            pass
    raise Mismatch("a binary in UTF-8", term)


_SCALARS: dict[Any, tuple[str, Convert]] = {
    int: _exactly("an integer", int),
    bool: _exactly("a boolean", bool),
    bytes: _exactly("a binary", bytes),
    Atom: _exactly("an atom", Atom),
    None: _exactly("nil", type(None)),
    type(None): _exactly("nil", type(None)),
    float: ("a number", _float),
    str: ("a binary in UTF-8", _str),
}


def _list(arguments: tuple[Any, ...]) -> tuple[str, Convert]:
    what, item = converter(arguments[0])
    expected = f"a list of {what}"

    def convert(term: Term) -> Any:
        if type(term) is not list:
            raise Mismatch(expected, term)
        return [item(each) for each in term]

    return expected, convert


def _tuple(arguments: tuple[Any, ...]) -> tuple[str, Convert]:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        what, item = converter(arguments[0])
        expected = f"a tuple of {what}"

        def convert(term: Term) -> Any:
            if type(term) is not tuple:
                raise Mismatch(expected, term)
            return tuple(map(item, term))

        return expected, convert
    parts = [converter(argument) for argument in arguments]
    expected = "{" + ", ".join(what for what, _ in parts) + "}"

    def convert_each(term: Term) -> Any:
        if type(term) is not tuple or len(term) != len(parts):
            raise Mismatch(expected, term)
        return tuple(item(each) for (_, item), each in zip(parts, term, strict=True))

    return expected, convert_each


def _dict(arguments: tuple[Any, ...]) -> tuple[str, Convert]:
    (key_what, key), (value_what, value) = map(converter, arguments)
    expected = f"a map of {key_what} to {value_what}"
    if arguments[0] is str:
        key_what, key = "a name", _key_name

    def convert(term: Term) -> Any:
        if not isinstance(term, dict | Map):
            raise Mismatch(expected, term)
        return {key(each): value(item) for each, item in term.items()}

    return expected, convert


def _key_name(term: Term) -> str:
    """Keys are atoms in maps that programs write, binaries in those from outside."""
    name: str = term.name if type(term) is Atom else _str(term)
    return name


def _union(arguments: tuple[Any, ...]) -> tuple[str, Convert]:
    parts = [converter(argument) for argument in arguments]
    expected = " or ".join(what for what, _ in parts)

    def convert(term: Term) -> Any:
        for _, item in parts:
            try:
                return item(term)
            except Mismatch:
                continue
        raise Mismatch(expected, term)

    return expected, convert


def _literal(arguments: tuple[Any, ...]) -> tuple[str, Convert]:
    expected = "one of " + ", ".join(map(str, arguments))

    def convert(term: Term) -> Any:
        found = term
        if type(term) is Atom:
            found = term.name
        elif type(term) is bytes:
            found = term.decode("utf-8", "replace")
        for argument in arguments:
            if type(found) is type(argument) and found == argument:
                return argument
        raise Mismatch(expected, term)

    return expected, convert


def _dataclass(cls: type) -> tuple[str, Convert]:
    hints = get_type_hints(cls)
    fields = {field.name: converter(hints[field.name]) for field in dataclasses.fields(cls)}
    required = {
        field.name
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    expected = f"a map with the keys {', '.join(fields)}"

    def convert(term: Term) -> Any:
        if not isinstance(term, dict | Map):
            raise Mismatch(expected, term)
        values = {_key_name(key): item for key, item in term.items()}
        if not required <= values.keys() <= fields.keys():
            raise Mismatch(expected, term)
        return cls(**{name: fields[name][1](item) for name, item in values.items()})

    return expected, convert


_GENERIC: dict[Any, Callable[[tuple[Any, ...]], tuple[str, Convert]]] = {
    list: _list,
    tuple: _tuple,
    dict: _dict,
    Union: _union,
    types.UnionType: _union,
    Literal: _literal,
}


def to_term(value: Any) -> Term:
    """A dataclass as a map with atom keys, also within lists, tuples and maps; others as is."""
    if dataclasses.is_dataclass(value) and not type(value).__module__.startswith("bridge.etf"):
        return {
            Atom(field.name): to_term(getattr(value, field.name))
            for field in dataclasses.fields(value)
        }
    if type(value) is list:
        return [to_term(item) for item in value]
    if type(value) is tuple:
        return tuple(to_term(item) for item in value)
    if type(value) is dict:
        return {key: to_term(item) for key, item in value.items()}
    return value
