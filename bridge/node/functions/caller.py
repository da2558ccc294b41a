"""`Caller`: what an exported function may know of who called it, and where its output goes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from bridge.etf import Pid


class Output(Protocol):
    """Where a function's output goes: a group leader, or what stands for one."""

    async def put(self, text: str) -> None:
        """Write, and wait until it is written. Raises ProcessDown when nobody is there to do it."""

    def put_nowait(self, text: str) -> None:
        """Write without waiting; lost if nobody is there."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who called: the node whose connection the request came over, and the pid it names."""

    node: str
    pid: Pid
    _output: Output = field(repr=False)

    async def print(self, text: str) -> None:
        """Write to the caller's group leader: in iex and shells it appears where they are.

        Raises ProcessDown when that has gone. Only from an async function.
        """
        await self._output.put(text)

    def print_nowait(self, text: str) -> None:
        """The same without waiting for it to be written."""
        self._output.put_nowait(text)
