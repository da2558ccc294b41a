"""Stops the worker between two of its instructions: at an access to one word of the link.

A wake-up is lost only in a window of nanoseconds, so trying again and again shows little. A
hardware watchpoint (ptrace, debug registers of x86-64) stops the thread that has just stored its
park word, or just looked at the position; then the bridge's side makes its move: the one
interleaving that a faulty kit does not survive. A worker cannot tell this from being preempted.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from enum import IntEnum

from workers.conformance.jobs import Broke, NotHere
from workers.conformance.memory import libc

PEEKUSER, POKEUSER, CONT, DETACH, SEIZE, INTERRUPT = 3, 6, 7, 17, 0x4206, 0x4207
DEBUG_REGISTERS_AT = 848  # offsetof(struct user, u_debugreg), sys/user.h
WALL = 0x40000000
EVENT_STOP = 128

libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]


class On(IntEnum):
    """What a watchpoint traps (DR7, R/W field)."""

    STORE = 1
    ACCESS = 3


def _ptrace(request: int, tid: int, address: int = 0, data: int = 0) -> None:
    ctypes.set_errno(0)
    if libc.ptrace(request, tid, address, data) < 0 and ctypes.get_errno():
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def address_in(pid: int, memfd: str, at: int) -> int:
    """Where byte `at` of a memfd of ours lies in the worker's memory."""
    with open(f"/proc/{pid}/maps") as maps:
        for line in maps:
            span, _, offset, _, _, *name = line.split(maxsplit=5)
            first, last = (int(end, 16) for end in span.split("-"))
            begin = int(offset, 16)
            if name and name[0].startswith(f"/memfd:{memfd} ") and 0 <= at - begin < last - first:
                return first + at - begin
    raise Broke(f"the worker has not mapped byte {at} of the {memfd}")


class Trap:
    """All threads of a process under watch; `release` lets them go as if nothing had been.

    Raises NotHere where the machine does not allow it.
    """

    def __init__(self, pid: int, patience_s: float) -> None:
        self._patience_s = patience_s
        self._tids: list[int] = []
        self._stopped: set[int] = set()
        try:
            for tid in (int(name) for name in os.listdir(f"/proc/{pid}/task")):
                _ptrace(SEIZE, tid)
                self._tids.append(tid)
        except OSError as error:
            self.release()
            raise NotHere(f"the worker cannot be traced here: {error}") from error

    def watch(self, address: int, size: int, on: On) -> None:
        """From now on any thread stops behind its next access. Only one word at a time."""
        for tid in self._tids:
            self._stop(tid)
            control = 1 | on << 16 | {4: 3, 8: 2}[size] << 18
            try:
                self._set(tid, 7, 0)
                self._set(tid, 0, address)
                self._set(tid, 7, control)
            except OSError as error:
                self.release()
                raise NotHere(f"there are no hardware watchpoints here: {error}") from error

    def wait(self, why: str) -> None:
        """Lets all run until one has made the access that is watched. Raises Broke: none did."""
        until = time.monotonic() + self._patience_s
        for tid in list(self._stopped):
            self._go_on(tid)
        while time.monotonic() < until:
            for tid in self._tids:
                pid, status = os.waitpid(tid, WALL | os.WNOHANG)
                if not pid:
                    continue
                if not os.WIFSTOPPED(status):
                    raise Broke("a thread of the worker ended under watch")
                self._stopped.add(tid)
                if os.WSTOPSIG(status) == signal.SIGTRAP and status >> 16 == 0:
                    return
                self._go_on(tid, 0 if status >> 16 == EVENT_STOP else os.WSTOPSIG(status))
            time.sleep(0.0002)
        raise Broke(why)

    def release(self) -> None:
        """No more watching: the worker runs by itself again."""
        for tid in self._tids:
            try:
                self._stop(tid)
                self._set(tid, 7, 0)
                _ptrace(DETACH, tid)
            except (OSError, Broke):
                continue  # it has ended
        self._tids.clear()
        self._stopped.clear()

    def _set(self, tid: int, register: int, value: int) -> None:
        _ptrace(POKEUSER, tid, DEBUG_REGISTERS_AT + 8 * register, value)

    def _go_on(self, tid: int, signal_number: int = 0) -> None:
        self._stopped.discard(tid)
        _ptrace(CONT, tid, 0, signal_number)

    def _stop(self, tid: int) -> None:
        if tid in self._stopped:
            return
        _ptrace(INTERRUPT, tid)
        _, status = os.waitpid(tid, WALL)
        if not os.WIFSTOPPED(status):
            raise Broke("a thread of the worker ended under watch")
        self._stopped.add(tid)
