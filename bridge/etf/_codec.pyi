"""The C codec (csrc/etf)."""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, final

from bridge.etf.limits import Limits
from bridge.etf.terms import Encodable, Term

@final
class Atom:
    """An atom. Not equal to a str; ordered by its text, as in Erlang."""

    __match_args__ = ("name",)
    def __new__(cls, name: str, /) -> Atom: ...
    @property
    def name(self) -> str: ...
    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __lt__(self, other: Atom, /) -> bool: ...
    def __le__(self, other: Atom, /) -> bool: ...
    def __gt__(self, other: Atom, /) -> bool: ...
    def __ge__(self, other: Atom, /) -> bool: ...
    def __reduce__(self) -> tuple[type[Atom], tuple[str]]: ...

class ByValue:
    """Base of Pid, Port and Reference: equal and hashed by type and fields."""

    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...

@final
class TaggedReader:
    """Reads tuples that begin with a number; csrc/etf/tagged.c has the kinds."""

    def __new__(
        cls,
        rows: Mapping[int, tuple[type[Any], tuple[tuple[str, int], ...], Mapping[str, Any], bool]],
        /,
    ) -> TaggedReader: ...
    def read(self, data: bytes, flag: bool, /) -> Any: ...

def encode(
    term: Encodable, /, *, record_ok: bool = False, limits: Limits | None = None
) -> bytes: ...
def encode_bare(
    term: Encodable, /, *, record_ok: bool = False, limits: Limits | None = None
) -> bytes: ...
def decode(
    data: bytes | bytearray | memoryview,
    /,
    *,
    limits: Limits | None = None,
    allow_compressed: bool = False,
    atoms: Sequence[Atom] | None = None,
) -> Term: ...
def decode_bare(
    data: bytes | bytearray | memoryview,
    /,
    offset: int = 0,
    *,
    limits: Limits | None = None,
    atoms: Sequence[Atom] | None = None,
) -> tuple[Term, int]: ...
def canonical(term: object, /, *, limits: Limits | None = None) -> bytes: ...
def bind(
    terms: ModuleType, errors: ModuleType, limits: ModuleType, rare: ModuleType, /
) -> None: ...
