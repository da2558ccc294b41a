"""Decorated handlers of a GenServer: `@call`, `@cast` and `@info`, each for one kind of request.

    @call
    def add(self, amount: int, *, sender: Sender) -> int: ...    # GenServer.call(p, {:add, 5})

    @info("DOWN")
    async def watched_ended(self, ref: Reference, kind: Atom, who: Any, why: Any) -> None: ...

A request is an atom, or a tuple that begins with it; the atom is the method's name or what the
decorator says. Its other elements are the method's parameters, converted to their annotations and
checked (see `conversion`); parameters with a default may be left out. `sender=` is the caller.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_type_hints, overload

from bridge.etf import Atom
from bridge.node.process.conversion import Convert, Mismatch, converter, to_term

Term = Any
Kind = Literal["call", "cast", "info"]
_Method = TypeVar("_Method", bound=Callable[..., Any])
_MARK = "__ringbridge_handles__"


class BadRequest(Exception):
    """A request that no handler takes: the text names the rule."""


@overload
def call(tag: _Method, /) -> _Method: ...
@overload
def call(tag: str, /) -> Callable[[_Method], _Method]: ...
def call(tag: Any, /) -> Any:
    """Answers calls: what the method returns is the reply, NO_REPLY for later."""
    return _mark("call", tag)


@overload
def cast(tag: _Method, /) -> _Method: ...
@overload
def cast(tag: str, /) -> Callable[[_Method], _Method]: ...
def cast(tag: Any, /) -> Any:
    """Takes casts."""
    return _mark("cast", tag)


@overload
def info(tag: _Method, /) -> _Method: ...
@overload
def info(tag: str, /) -> Callable[[_Method], _Method]: ...
def info(tag: Any, /) -> Any:
    """Takes plain messages: sends, DOWN, EXIT."""
    return _mark("info", tag)


def _mark(kind: Kind, tag: Any) -> Any:
    if isinstance(tag, str):

        def mark(method: _Method) -> _Method:
            setattr(method, _MARK, (kind, tag))
            return method

        return mark
    setattr(tag, _MARK, (kind, tag.__name__))
    return tag


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    expected: str
    convert: Convert
    required: bool


@dataclass(frozen=True, slots=True)
class Handler:
    """One decorated method and what it takes."""

    tag: Atom
    method: str
    parameters: tuple[Parameter, ...]
    takes_sender: bool
    is_async: bool

    @property
    def arities(self) -> range:
        return range(sum(p.required for p in self.parameters), len(self.parameters) + 1)

    def __str__(self) -> str:
        if not self.parameters:
            return repr(self.tag)
        shown = [p.name if p.required else f"[{p.name}]" for p in self.parameters]
        return f"{{{self.tag!r}, {', '.join(shown)}}}"

    def arguments(self, given: tuple[Term, ...]) -> list[Any]:
        """Raises BadRequest naming the parameter that a term does not fit."""
        converted = []
        for parameter, term in zip(self.parameters, given, strict=False):
            try:
                converted.append(parameter.convert(term))
            except Mismatch as mismatch:
                raise BadRequest(f"{parameter.name} of {self} is {mismatch}") from None
        return converted


class Handlers:
    """The decorated methods of one class, of one kind."""

    def __init__(self, cls: type, kind: Kind) -> None:
        self._by_tag: dict[tuple[Atom, int], Handler] = {}
        self._tags: dict[Atom, list[Handler]] = {}
        for name, method in inspect.getmembers(cls, inspect.isfunction):
            found_kind, tag = getattr(method, _MARK, ("", ""))
            if found_kind == kind:
                self._add(cls, _handler(cls, name, method, tag))

    def __bool__(self) -> bool:
        return bool(self._by_tag)

    def find(self, request: Term) -> tuple[Handler, list[Any]] | None:
        """The handler of `request` and its arguments; None if no handler has that tag.

        Raises BadRequest when one has, and the request does not fit it.
        """
        if type(request) is Atom:
            tag, given = request, ()
        elif type(request) is tuple and request and type(request[0]) is Atom:
            tag, *rest = request
            given = tuple(rest)
        else:
            return None
        handler = self._by_tag.get((tag, len(given)))
        if handler is not None:
            return handler, handler.arguments(given)
        if known := self._tags.get(tag):
            raise BadRequest(f"the request is {' or '.join(map(str, known))}")
        return None

    def describe(self) -> str:
        """What is handled, for a refusal."""
        return ", ".join(str(each) for handlers in self._tags.values() for each in handlers)

    def _add(self, cls: type, handler: Handler) -> None:
        self._tags.setdefault(handler.tag, []).append(handler)
        for arity in handler.arities:
            if (handler.tag, arity) in self._by_tag:
                raise TypeError(f"{cls.__name__} has two handlers of {handler}")
            self._by_tag[handler.tag, arity] = handler


async def run(server: Any, handler: Handler, arguments: list[Any], sender: Any = None) -> Any:
    """Call the method; what it returns, dataclasses as maps."""
    method = getattr(server, handler.method)
    value = method(*arguments, sender=sender) if handler.takes_sender else method(*arguments)
    return to_term(await value if handler.is_async else value)


def _handler(cls: type, name: str, method: Callable[..., Any], tag: str) -> Handler:
    try:
        hints = get_type_hints(method)
    except NameError as error:
        raise TypeError(f"{cls.__name__}.{name}: its annotations do not resolve: {error}") from None
    parameters, takes_sender = [], False
    for parameter in list(inspect.signature(method).parameters.values())[1:]:
        match parameter.kind:
            case parameter.KEYWORD_ONLY if parameter.name == "sender":
                takes_sender = True
            case parameter.POSITIONAL_ONLY | parameter.POSITIONAL_OR_KEYWORD:
                try:
                    expected, convert = converter(hints.get(parameter.name, Any))
                except TypeError as error:
                    where = f"{cls.__name__}.{name}, {parameter.name}"
                    raise TypeError(f"{where}: {error}") from None
                required = parameter.default is parameter.empty
                parameters.append(Parameter(parameter.name, expected, convert, required))
            case _:
                raise TypeError(f"{cls.__name__}.{name}: a request gives no {parameter}")
    is_async = inspect.iscoroutinefunction(method)
    return Handler(Atom(tag), name, tuple(parameters), takes_sender, is_async)
