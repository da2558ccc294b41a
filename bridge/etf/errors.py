"""What the codecs raise, and the bounded repr that such messages and the terms' own reprs use.

Terms come from others and may be huge: nothing here prints more than a few lines, and an integer of
thousands of digits is never turned into text (quadratic, and refused by CPython above 4300 digits).
"""

from reprlib import Repr


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


brief = _Brief().repr


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
            return f"a value of the type {self.value} is no term; docs/terms.md says which are"
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
