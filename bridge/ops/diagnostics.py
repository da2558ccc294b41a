"""Diagnostics: the bridge as one map, for `ringbridge status`, `mix ipc.inspect` and people at iex.

GenServer.call({Ringbridge.Diagnostics, node}, :status)         {:ok, map}
GenServer.call({Ringbridge.Diagnostics, node}, {:stall, ms})    :ok, after the interpreter stood
still

The second is for proving that a stalled interpreter stalls no job; it is refused unless the bridge
was started with RINGBRIDGE_TEST_STALL=1.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping
from typing import Any

from bridge.etf import Atom, brief
from bridge.ops.answers import OK, Answering, BadRequest, Term, atom_keys

STALL_VARIABLE = "RINGBRIDGE_TEST_STALL"
STALL_MAX_MS = 10_000
NAMES = ("Elixir.Ringbridge.Diagnostics", "diagnostics")


class Diagnostics(Answering):
    """Asks `status` anew at every call."""

    module = "Ringbridge.Diagnostics"

    def __init__(self, status: Callable[[], Mapping[str, Any]]) -> None:
        self._status = status

    def answer(self, request: Term) -> Term:
        if request == Atom("status"):
            return (OK, atom_keys(self._status()))
        match request:
            case (tag, int(ms)) if tag == Atom("stall") and 0 <= ms <= STALL_MAX_MS:
                return _stall(ms)
        raise BadRequest(f"the Diagnostics know :status, not {brief(request)}")

    def statistics(self) -> Mapping[str, Any]:
        return self._status()


def _stall(ms: int) -> Term:
    """Hold the interpreter's lock for `ms`: PyDLL keeps it for a call, time.sleep would not."""
    if os.environ.get(STALL_VARIABLE) != "1":
        raise BadRequest(f"{{:stall, ms}} is for tests: start the bridge with {STALL_VARIABLE}=1")
    ctypes.PyDLL(None).usleep(ms * 1000)
    return OK
