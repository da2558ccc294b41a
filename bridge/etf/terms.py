"""The Erlang terms that Python has no type for (docs/terms.md): frozen, hashable, by value."""

import re
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, final, overload

from bridge.etf._codec import Atom, ByValue, canonical
from bridge.etf.errors import EncodeError, brief
from bridge.etf.limits import Limits

__all__ = [
    "Atom",
    "BitString",
    "Encodable",
    "Export",
    "Fun",
    "ImproperList",
    "Map",
    "Pid",
    "Port",
    "Record",
    "Reference",
    "Term",
    "charlist",
]

_Default = TypeVar("_Default")

_PLAIN_ATOM = re.compile(r"[a-z_][A-Za-z0-9_@]*[?!]?", re.ASCII)
_ALIAS_ATOM = re.compile(r"Elixir(\.[A-Z][A-Za-z0-9_]*)+", re.ASCII)


def _atom_repr(name: str) -> str:
    """What Atom's repr shows, as Elixir: :ok, Ringbridge.JobDispatcher, :"with blanks"."""
    if _ALIAS_ATOM.fullmatch(name):
        return name.removeprefix("Elixir.")
    if _PLAIN_ATOM.fullmatch(name):
        return f":{name}"
    quoted = "".join('\\"' if character == '"' else repr(character)[1:-1] for character in name)
    return f':"{quoted}"'


def _check_unsigned(owner: object, bits: int, **numbers: int) -> None:
    for name, number in numbers.items():
        if type(number) is not int or not 0 <= number < 1 << bits:
            raise ValueError(
                f"{type(owner).__name__}.{name} must be 0..2**{bits}-1, not {brief(number)}"
            )


def _check_atoms(owner: object, *atoms: Atom) -> None:
    for atom in atoms:
        if type(atom) is not Atom:
            raise TypeError(f"{type(owner).__name__} takes an Atom here, not {brief(atom)}")


@final
@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Pid(ByValue):
    """A process. Two pids are the same when all four fields are."""

    node: Atom
    id: int
    serial: int
    creation: int

    def __post_init__(self) -> None:
        _check_atoms(self, self.node)
        _check_unsigned(self, 32, id=self.id, serial=self.serial, creation=self.creation)

    def __repr__(self) -> str:
        return f"#PID<{self.node}.{self.id}.{self.serial} creation {self.creation}>"


@final
@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Port(ByValue):
    """A port. Ids have 64 bits since OTP 24."""

    node: Atom
    id: int
    creation: int

    def __post_init__(self) -> None:
        _check_atoms(self, self.node)
        _check_unsigned(self, 64, id=self.id)
        _check_unsigned(self, 32, creation=self.creation)

    def __repr__(self) -> str:
        return f"#Port<{self.node}.{self.id} creation {self.creation}>"


@final
@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Reference(ByValue):
    """A reference, monitor or alias. `words`: its 1 to 5 numbers as the wire has them."""

    node: Atom
    creation: int
    words: tuple[int, ...]

    def __post_init__(self) -> None:
        _check_atoms(self, self.node)
        _check_unsigned(self, 32, creation=self.creation)
        if type(self.words) is not tuple or not 1 <= len(self.words) <= 5:
            raise ValueError(f"Reference.words must be a tuple of 1..5, not {brief(self.words)}")
        for word in self.words:
            _check_unsigned(self, 32, words=word)

    def __repr__(self) -> str:
        numbers = ".".join(map(str, self.words))
        return f"#Reference<{self.node}.{numbers} creation {self.creation}>"


@final
@dataclass(frozen=True, slots=True, repr=False)
class Fun:
    """A local fun of some BEAM. Opaque: `raw`, the whole NEW_FUN_EXT with its tag, is what is sent.

    Made by decoding only; the other fields show what it is.
    """

    raw: bytes
    module: Atom
    arity: int
    uniq: bytes
    index: int
    old_index: int
    old_uniq: int
    pid: Pid

    def __repr__(self) -> str:
        return f"#Function<{self.index}.{self.old_uniq}/{self.arity} in {self.module}>"


@final
@dataclass(frozen=True, slots=True, repr=False)
class Export:
    """`fun module:function/arity`."""

    module: Atom
    function: Atom
    arity: int

    def __post_init__(self) -> None:
        _check_atoms(self, self.module, self.function)
        _check_unsigned(self, 8, arity=self.arity)

    def __repr__(self) -> str:
        return f"&{self.module!r}.{self.function}/{self.arity}"


@final
@dataclass(frozen=True, slots=True, repr=False)
class ImproperList:
    """`[elements | tail]` whose tail is no list."""

    elements: "tuple[Term, ...]"
    tail: "Term"

    def __post_init__(self) -> None:
        if type(self.elements) is not tuple or not self.elements:
            raise ValueError("ImproperList.elements must be a tuple of at least one")
        if isinstance(self.tail, list | ImproperList):
            raise ValueError("ImproperList.tail must be no list; such a term is one longer list")

    def __repr__(self) -> str:
        return f"[{brief(list(self.elements))[1:-1]} | {brief(self.tail)}]"


@final
@dataclass(frozen=True, slots=True, repr=False)
class BitString:
    """A bitstring of no whole number of bytes.

    The last byte of `data` counts with its top `bits` bits (1 to 7); the others are zero.
    """

    data: bytes
    bits: int

    def __post_init__(self) -> None:
        if type(self.data) is not bytes or not self.data:
            raise ValueError("BitString.data must be bytes, at least one")
        if type(self.bits) is not int or not 1 <= self.bits <= 7:
            raise ValueError(f"BitString.bits must be 1..7 (else it is bytes), not {self.bits!r}")
        if self.data[-1] & 0xFF >> self.bits:
            raise ValueError("BitString.data must be zero below its bits")

    def __repr__(self) -> str:
        *whole, last = self.data[:17] if len(self.data) <= 17 else self.data[:16] + self.data[-1:]
        parts = [str(byte) for byte in whole]
        if len(self.data) > 17:
            parts.append(f"... {len(self.data) - 17} bytes ...")
        return f"<<{', '.join([*parts, f'{last >> 8 - self.bits}::{self.bits}'])}>>"


@final
@dataclass(frozen=True, slots=True, repr=False)
class Record:
    """A native record of OTP 29. Send it to such nodes only: older ones close the connection."""

    module: Atom
    name: Atom
    flags: int
    fields: tuple[Atom, ...]
    values: "tuple[Term, ...]"

    def __post_init__(self) -> None:
        _check_atoms(self, self.module, self.name, *self.fields)
        _check_unsigned(self, 8, flags=self.flags)
        if type(self.fields) is not tuple or type(self.values) is not tuple:
            raise TypeError("Record.fields and Record.values must be tuples")
        if len(self.fields) != len(self.values):
            raise ValueError("Record.fields and Record.values must be of one length")

    @property
    def exported(self) -> bool:
        return self.flags == 1

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{field}: {brief(value)}"
            for field, value in list(zip(self.fields, self.values, strict=True))[:8]
        )
        return f"#{self.module}:{self.name}{{{shown}{', ...' if len(self.fields) > 8 else ''}}}"


# What is in a Map already was bounded when it came in; only a term that holds itself must end.
_OWN = Limits(terms_max=2**32 - 1, key_depth_max=10_000, integer_bytes_max=2**32 - 1)


def _same(term: object) -> bytes:
    return canonical(term, limits=_OWN)


@final
class Map:
    """A map with Erlang's keys: 1, 1.0 and True are three keys, lists may be keys. Immutable.

    A Mapping in all but name: Mapping's own `__eq__` would compare as Python does.
    """

    __slots__ = ("_index",)
    # canonical bytes of the key -> (key, value); the C codec reads and writes this slot
    _index: "dict[bytes, tuple[Term, Term]]"

    def __init__(self, entries: "Mapping[Any, Any] | Iterable[tuple[Any, Any]] | Map" = ()) -> None:
        """Of entries with the same key the last stays. EncodeError for a key that is no term."""
        pairs = entries.items() if isinstance(entries, Mapping | Map) else entries
        object.__setattr__(self, "_index", {_same(key): (key, value) for key, value in pairs})

    @classmethod
    def from_index(cls, index: "dict[bytes, tuple[Term, Term]]") -> "Map":
        """The Map of entries whose keys are their canonical bytes already; keeps `index`."""
        made = cls()
        object.__setattr__(made, "_index", index)
        return made

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Map is immutable")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a Map is immutable")

    def __getitem__(self, key: "Term") -> "Term":
        try:
            return self._index[_same(key)][1]
        except KeyError:
            raise KeyError(key) from None

    @overload
    def get(self, key: "Term") -> "Term": ...
    @overload
    def get(self, key: "Term", default: _Default) -> "Term | _Default": ...
    def get(self, key: "Term", default: object = None) -> object:
        entry = self._index.get(_same(key))
        return default if entry is None else entry[1]

    def __contains__(self, key: object) -> bool:
        try:
            return _same(key) in self._index
        except EncodeError:  # no term at all
            return False

    def __iter__(self) -> "Iterator[Term]":
        return (key for key, _ in self._index.values())

    def __len__(self) -> int:
        return len(self._index)

    def items(self) -> "ItemsView[Term, Term]":
        return ItemsView(self)

    def keys(self) -> "KeysView[Term]":
        return KeysView(self)

    def values(self) -> "ValuesView[Term]":
        return ValuesView(self)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, dict):
            other = Map(other)
        if not isinstance(other, Map):
            return NotImplemented
        if self._index.keys() != other._index.keys():
            return False
        return all(
            value is (its := other._index[key][1]) or _same(value) == _same(its)
            for key, (_, value) in self._index.items()
        )

    def __hash__(self) -> int:
        return hash(frozenset(self._index))

    def __reduce__(self) -> "tuple[type[Map], tuple[list[tuple[Term, Term]]]]":
        return Map, (list(self._index.values()),)

    def __repr__(self) -> str:
        entries = list(self._index.values())[:8]
        shown = ", ".join(f"{brief(key)} => {brief(value)}" for key, value in entries)
        return f"%{{{shown}{', ...' if len(self) > 8 else ''}}}"


Term: TypeAlias = (
    bool
    | int
    | float
    | bytes
    | Atom
    | Pid
    | Port
    | Reference
    | Fun
    | Export
    | BitString
    | ImproperList
    | Record
    | Map
    | tuple["Term", ...]
    | list["Term"]
    | dict["Term", "Term"]
    | None
)
"""What decoding gives."""

Encodable: TypeAlias = (
    Term | str | bytearray | memoryview | tuple[Any, ...] | list[Any] | dict[Any, Any]
)
"""What encoding takes. Element types are open: list and dict are invariant for a type checker."""


def charlist(text: str) -> list[int]:
    """The list of code points that Erlang calls a string: charlist("ab") == [97, 98]."""
    return [ord(character) for character in text]
