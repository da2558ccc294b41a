"""Asks a bridge from a BEAM, behind a prelude that a file's tests have in common."""

from __future__ import annotations

from dataclasses import dataclass

from serve_support import Serving, ask

from bridge.testing import Beam


@dataclass(frozen=True)
class Talk:
    """A bridge, and what to ask the BEAM about it: Elixir that runs behind `prelude`, in which the
    bridge's dispatcher is `dispatcher`.
    """

    bridge: Serving
    beam: Beam
    prelude: str

    async def __call__(self, code: str) -> str:
        """The inspected value of the last expression."""
        target = self.bridge.target()
        return await ask(self.beam, f"dispatcher = {target}\n{self.prelude}\n{code}")
