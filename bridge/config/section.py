"""What every table of the file is: a typed record in which an unknown key is an error."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

Milliseconds = Annotated[int, Meta(ge=1, le=86_400_000)]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file; a key that it does not know is an error, never ignored."""
