"""Diagnostics: the bridge as one map, for `ringbridge status`, `mix ipc.inspect` and people at iex.

GenServer.call({Ringbridge.Diagnostics, node}, :status)         {:ok, map}
GenServer.call({Ringbridge.Diagnostics, node}, {:stall, path})  :ok, after the interpreter stood
still

The second is for proving that a stalled interpreter stalls no job; it is refused unless the bridge
was started with RINGBRIDGE_TEST_STALL=1. `path` names a FIFO: the interpreter stands still from
when a writer has opened it to when none has it open any more.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping
from typing import Any

from bridge.etf import Atom, brief
from bridge.ops.answers import OK, Answering, BadRequest, Term, atom_keys

STALL_VARIABLE = "RINGBRIDGE_TEST_STALL"
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
            case (tag, bytes(path)) if tag == Atom("stall"):
                return _stall(path)
        raise BadRequest(f"the Diagnostics know :status, not {brief(request)}")

    def statistics(self) -> Mapping[str, Any]:
        return self._status()


def _stall(path: bytes) -> Term:
    """Hold the interpreter's lock: PyDLL keeps it for a call, os.open and os.read would not."""
    if os.environ.get(STALL_VARIABLE) != "1":
        raise BadRequest(f"{{:stall, path}} is for tests: start the bridge with {STALL_VARIABLE}=1")
    libc = ctypes.PyDLL(None, use_errno=True)
    fifo = libc.open(path, os.O_RDONLY | os.O_CLOEXEC)
    if fifo < 0:
        raise BadRequest(f"{brief(path)}: {os.strerror(ctypes.get_errno())}")
    libc.read(fifo, ctypes.create_string_buffer(1), 1)
    os.close(fifo)
    return OK
