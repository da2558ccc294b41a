"""The bounds of both codecs, in one frozen value (docs/terms.md, "What is refused")."""

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one encode or decode; each 1 to 2**32 - 1, a count where no unit is in the name.

    Make one and keep it: the C codec remembers the last `Limits` it was given, and reads a new one
    field by field.
    """

    depth_max: int = 10_000
    """Containers inside containers."""
    terms_max: int = 10_000_000
    """Terms in all: one, and the elements of every container (a map entry counts two)."""
    key_depth_max: int = 100
    """Containers inside containers in a key that no dict can hold, and in canonical()."""
    integer_bytes_max: int = 524_280
    """Bytes of an integer's magnitude."""
    inflated_bytes_max: int = 64 * 2**20
    """Bytes that COMPRESSED data may declare."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is not int or not 1 <= value < 2**32:
                raise ValueError(f"Limits.{field.name} must be 1..2**32-1, not {value!r}")


DEFAULT_LIMITS = Limits()
