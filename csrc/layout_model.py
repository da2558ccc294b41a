"""What layout.toml or lane.toml says, checked: from generate_layout.py to layout_bindings.py."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

TYPE_BYTES = {"u8": 1, "u16": 2, "u32": 4, "u64": 8}


@dataclass(frozen=True)
class Field:
    """One field of a record. count is None for a plain integer."""

    name: str
    item: str
    count: int | None
    at: int

    @property
    def bytes(self) -> int:
        return TYPE_BYTES[self.item] * (self.count or 1)


@dataclass(frozen=True)
class Record:
    """One struct that crosses a link."""

    name: str
    size: int
    fields: tuple[Field, ...]

    def with_padding(self) -> Iterator[Field]:
        """The fields, and each hole as a byte array: then no language pads by itself."""
        end = 0
        for field in (*self.fields, None):
            begin = self.size if field is None else field.at
            if begin > end:
                yield Field(name=f"padding_{end}", item="u8", count=begin - end, at=end)
            if field is not None:
                yield field
                end = field.at + field.bytes


@dataclass(frozen=True)
class Constant:
    """A number, or the name of an environment variable."""

    group: str
    name: str
    value: int | str

    @property
    def full_name(self) -> str:
        return f"{self.group}_{self.name}" if self.group else self.name


@dataclass(frozen=True)
class Layout:
    """`prefix` stands before every name of its own: "" for links, "lane_" for lanes."""

    digest: bytes
    constants: tuple[Constant, ...]
    records: tuple[Record, ...]
    prefix: str = ""
