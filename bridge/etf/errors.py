"""What the codecs raise, and the bounded repr that such messages and the terms' own reprs use.

Terms come from others and may be huge: nothing here prints more than a few lines, and an integer of
thousands of digits is never turned into text (quadratic, and refused by CPython above 4300 digits).
"""

from reprlib import Repr

_BRIEF_MAX = 2000  # characters: a tree of a few levels multiplies what its leaves may have


class _Brief(Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 4
        self.maxtuple = self.maxlist = self.maxdict = 8
        self.maxstring = self.maxother = 96

    def repr_int(self, x: int, level: int) -> str:
        bits = x.bit_length()
        return repr(x) if bits <= 128 else f"<integer of {bits} bits>"

    def repr_bytes(self, x: bytes, level: int) -> str:
        return repr(x) if len(x) <= 64 else f"{x[:64]!r}... ({len(x)} bytes)"


_repr = _Brief().repr


def brief(term: object) -> str:
    """`term` as a text of bounded length, whatever it is."""
    text = _repr(term)
    return text if len(text) <= _BRIEF_MAX else f"{text[:_BRIEF_MAX]}..."


class CodecError(ValueError):
    """A rule of docs/terms.md is broken. `rule` is its name there, `value` what broke it."""

    rule: str
    value: object


class EncodeError(CodecError):
    """The term cannot be sent: it has no form on the wire, or is above a limit."""

    def __init__(self, rule: str, value: object = None) -> None:
        super().__init__(rule, value)
        self.rule = rule
        self.value = value

    def __str__(self) -> str:
        if self.rule == "type":
            name = self.value if isinstance(self.value, str) else brief(self.value)
            return f"a value of the type {name} is no term; docs/terms.md says which are"
        return f"cannot encode, rule {self.rule}: {brief(self.value)} (docs/terms.md, Errors)"


class DecodeError(CodecError):
    """The bytes are no term. `offset` is where the tag of the offending term stands."""

    def __init__(self, rule: str, offset: int, value: object = None) -> None:
        super().__init__(rule, offset, value)
        self.rule = rule
        self.offset = offset
        self.value = value

    def __str__(self) -> str:
        return (
            f"cannot decode at byte {self.offset}, rule {self.rule}: "
            f"{brief(self.value)} (docs/terms.md, Errors)"
        )
