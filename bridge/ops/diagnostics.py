"""Diagnostics: the bridge as one map, for `ringbridge status`, `mix ipc.inspect` and people at iex.

GenServer.call({Ringbridge.Diagnostics, node}, :status)    {:ok, map}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bridge.etf import Atom, brief
from bridge.ops.answers import OK, Answering, BadRequest, Term, atom_keys

NAMES = ("Elixir.Ringbridge.Diagnostics", "diagnostics")


class Diagnostics(Answering):
    """Asks `status` anew at every call."""

    module = "Ringbridge.Diagnostics"

    def __init__(self, status: Callable[[], Mapping[str, Any]]) -> None:
        self._status = status

    def answer(self, request: Term) -> Term:
        if request == Atom("status"):
            return (OK, atom_keys(self._status()))
        raise BadRequest(f"the Diagnostics know :status, not {brief(request)}")

    def statistics(self) -> Mapping[str, Any]:
        return self._status()
