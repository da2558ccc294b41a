"""One line of the doctor's report."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, and how to mend it. `must`: the bridge cannot run without it."""

    name: str
    ok: bool
    found: str
    mend: str = ""
    must: bool = True
