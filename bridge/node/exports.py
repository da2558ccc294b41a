"""`Exports`: the table of Python functions that other nodes may run, under module and function
names.

What `rpc`, `erpc` and `Node.spawn` of other nodes reach is exactly what a program has put in such a
table; any other module, function or arity is `undef`, as on a BEAM that lacks it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from bridge.etf import Atom

Term = Any
Class = Literal["error", "exit", "throw"]
_Function = TypeVar("_Function", bound=Callable[..., Any])

ARITY_MAX = 255  # of a BEAM's functions
_ALIAS_PREFIX = "Elixir."


class Raise(Exception):
    """Raised by an exported function: the caller sees exactly `error`, `exit` or `throw` of
    `reason`.

    `stack` is the stack trace of an error, Erlang terms such as `(module, function, arity, [])`; by
    default the one entry of the function that was called.
    """

    def __init__(self, kind: Class, reason: Term, *, stack: list[Term] | None = None) -> None:
        if kind not in ("error", "exit", "throw"):
            raise ValueError(f"an exception is an error, an exit or a throw, not {kind!r}")
        super().__init__(kind, reason)
        self.kind = kind
        self.reason = reason
        self.stack = stack


@dataclass(frozen=True, slots=True)
class Published:
    """One entry. `arities` are those that its parameters allow; a process does not count its
    handle.
    """

    module: Atom
    name: Atom
    arities: range
    run: Callable[..., Any]
    kind: Literal["function", "process"]
    admin: bool
    takes_caller: bool
    is_async: bool


class Exports:
    """The functions that a node publishes; `open_node(..., exports=)` takes one."""

    def __init__(self) -> None:
        self._entries: dict[tuple[Atom, Atom, int], Published] = {}
        self._modules: dict[Atom, int] = {}

    def function(
        self, module: str | Atom, name: str | Atom | None = None, *, admin: bool = False
    ) -> Callable[[_Function], _Function]:
        """Publish a function, plain or async; `name` is its own if none is given.

        A `module` written with a capital is an Elixir alias, "MyApp.Math" as in Elixir; an Atom is
        taken as it is. The arity is that of the signature: a parameter with a default makes two,
        `*args` any. A keyword-only parameter `caller` gets the `Caller`. A plain function runs
        where the request is read and holds up everything else: it must be short. `admin`: only
        nodes that the policy lets do so may call it.

        Raises ValueError for a name and arity that is taken, TypeError for a signature that no
        Erlang call fits.
        """
        return self._publish("function", module, name, admin)

    def process(
        self, module: str | Atom, name: str | Atom | None = None, *, admin: bool = False
    ) -> Callable[[_Function], _Function]:
        """Publish an async function that runs as a process of its own: `async def fn(me, *args)`.

        `me` is the process it runs in; otherwise as `function`.
        """
        return self._publish("process", module, name, admin)

    def find(self, module: Term, name: Term, arity: int) -> Published | None:
        """What is published under exactly that module, name and arity."""
        if type(module) is not Atom or type(name) is not Atom:  # nil, true and false are no modules
            return None
        return self._entries.get((module, name, arity))

    def has_module(self, module: Term) -> bool:
        """Whether anything is published under `module`."""
        return type(module) is Atom and module in self._modules

    def modules(self) -> list[Atom]:
        """The modules with something published, sorted by name."""
        return sorted(self._modules, key=lambda module: module.name)

    def merge(self, other: Exports) -> None:
        """Publish everything of `other` too. Raises ValueError, and takes nothing, if both have an
        entry.
        """
        if taken := self._entries.keys() & other._entries.keys():
            raise ValueError(f"published already: {_spelt(*sorted(taken, key=str)[0])}")
        for key, entry in other._entries.items():
            self._put(key, entry)

    def fill(self, other: Exports) -> None:
        """Publish what `other` has and this table has not: what is here already stays."""
        for key, entry in other._entries.items():
            if key not in self._entries:
                self._put(key, entry)

    def __iter__(self) -> Iterator[tuple[Atom, Atom, int]]:
        """Module, function and arity of everything published."""
        return iter(tuple(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def _publish(
        self,
        kind: Literal["function", "process"],
        module: str | Atom,
        name: str | Atom | None,
        admin: bool,
    ) -> Callable[[_Function], _Function]:
        def publish(run: _Function) -> _Function:
            entry = _describe(
                kind, module_atom(module), function_atom(name or run.__name__), run, admin
            )
            keys = [(entry.module, entry.name, arity) for arity in entry.arities]
            if taken := [key for key in keys if key in self._entries]:
                raise ValueError(f"published already: {_spelt(*taken[0])}")
            for key in keys:
                self._put(key, entry)
            return run

        return publish

    def _put(self, key: tuple[Atom, Atom, int], entry: Published) -> None:
        self._entries[key] = entry
        self._modules[key[0]] = self._modules.get(key[0], 0) + 1


def module_atom(module: str | Atom) -> Atom:
    """The atom of a module: "MyApp.Math" is Elixir's alias, "lists" and an Atom are themselves."""
    if isinstance(module, Atom):
        return module
    is_alias = module[:1].isupper() and not module.startswith(_ALIAS_PREFIX)
    return Atom(_ALIAS_PREFIX + module if is_alias else module)


def function_atom(name: str | Atom) -> Atom:
    return name if isinstance(name, Atom) else Atom(name)


def _spelt(module: Atom, name: Atom, arity: int) -> str:
    return f"{module.name}:{name.name}/{arity}"


def _describe(
    kind: Literal["function", "process"],
    module: Atom,
    name: Atom,
    run: Callable[..., Any],
    admin: bool,
) -> Published:
    is_async = inspect.iscoroutinefunction(run)
    if kind == "process" and not is_async:
        raise TypeError(f"{name.name}: a process is an async function")
    fewest = most = 0
    takes_caller = False
    for parameter in inspect.signature(run).parameters.values():
        match parameter.kind:
            case parameter.POSITIONAL_ONLY | parameter.POSITIONAL_OR_KEYWORD:
                most += 1
                fewest += parameter.default is parameter.empty
            case parameter.VAR_POSITIONAL:
                most = ARITY_MAX + 1
            case parameter.KEYWORD_ONLY if parameter.name == "caller":
                takes_caller = True
            case parameter.KEYWORD_ONLY if parameter.default is parameter.empty:
                raise TypeError(f"{name.name}: an Erlang call gives no {parameter.name}=")
    if kind == "process":
        if most == 0:
            raise TypeError(f"{name.name}: a process takes its handle first")
        fewest, most = max(fewest - 1, 0), most - 1
    arities = range(fewest, min(most, ARITY_MAX) + 1)
    return Published(module, name, arities, run, kind, admin, takes_caller, is_async)
