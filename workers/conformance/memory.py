"""Memory that two processes use at once: memfds, their mappings, and single words in them.

Order. The words are read and written through ctypes: one aligned move of 4 or 8 bytes each. On
x86-64 that is enough for everything but one thing: loads are not reordered with loads, stores not
with stores, a store not with an earlier load (Intel SDM volume 3, 9.2.2; AMD64 APM volume 2, 7.2).
What is missing is an order of a store and a LATER load, which a gate needs (gate.h, G0 and G1):
`fence()` has it by a locked instruction, which taking any uncontended lock is. CPython adds no
reordering of its own: each access is a call into C. Other architectures order less, so there the
battery does not start (`check_machine`).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import platform
import threading
from types import TracebackType

PROT_READ, PROT_WRITE, MAP_SHARED = 1, 2, 1
F_ADD_SEALS = 1033
SEAL_SEAL, SEAL_SHRINK, SEAL_GROW, SEAL_FUTURE_WRITE = 1, 2, 4, 16
SIZE_SEALS = SEAL_SEAL | SEAL_SHRINK | SEAL_GROW
SYS_FUTEX, FUTEX_WAIT, FUTEX_WAKE = 202, 0, 1

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.syscall.restype = ctypes.c_long

_lock = threading.Lock()


class WrongMachineError(Exception):
    """The battery's ordering of memory does not hold here, or a call that it needs is missing."""


def check_machine() -> None:
    """Raises WrongMachineError unless this is Linux on x86-64 with pages of 4 KiB."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise WrongMachineError(
            "the battery's ring is ordered by what x86-64 guarantees; "
            f"this is {platform.system()} on {platform.machine()}"
        )
    if os.sysconf("SC_PAGESIZE") != 4096:
        raise WrongMachineError("a link has pages of 4096 bytes; this kernel has larger ones")


def fence() -> None:
    """All stores before it are visible before any load behind it is made."""
    with _lock:
        pass


class Word:
    """One aligned word of shared memory. Positions are 64 bits wide, states 32."""

    __slots__ = ("_cell", "address", "mask")

    def __init__(self, address: int, bits: int) -> None:
        assert address % (bits // 8) == 0
        kind = ctypes.c_uint64 if bits == 64 else ctypes.c_uint32
        self.address = address
        self.mask = (1 << bits) - 1
        self._cell = kind.from_address(address)

    def load(self) -> int:
        """An acquire load."""
        value: int = self._cell.value
        return value

    def store(self, value: int) -> None:
        """A release store."""
        self._cell.value = value & self.mask


class Memory:
    """A mapping of the whole of a descriptor. `close` ends it; words in it are dead then."""

    def __init__(self, fd: int, size: int, *, writable: bool) -> None:
        protection = PROT_READ | PROT_WRITE if writable else PROT_READ
        base = libc.mmap(None, size, protection, MAP_SHARED, fd, 0)
        if base is None or base == ctypes.c_void_p(-1).value:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        self.base: int = base
        self.size = size

    def word(self, at: int, bits: int = 64) -> Word:
        """The word at offset `at`."""
        assert 0 <= at <= self.size - bits // 8
        return Word(self.base + at, bits)

    def read(self, at: int, size: int) -> bytes:
        """A private copy."""
        assert 0 <= at <= self.size - size
        return ctypes.string_at(self.base + at, size)

    def write(self, at: int, data: bytes) -> None:
        assert 0 <= at <= self.size - len(data)
        ctypes.memmove(self.base + at, data, len(data))

    def close(self) -> None:
        if self.base:
            libc.munmap(self.base, self.size)
        self.base = self.size = 0


def memfd(name: str, size: int) -> int:
    """A close-on-exec memfd of `size` bytes that can still be sealed."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    return fd


def seal(fd: int, seals: int) -> None:
    """Add seals; FUTURE_WRITE has to come before SEAL_SEAL, hence one call for all."""
    fcntl.fcntl(fd, F_ADD_SEALS, seals)


def futex_wake(word: Word) -> int:
    """Wake one that sleeps on the word, of whatever process. Returns how many were woken."""
    woken: int = libc.syscall(
        SYS_FUTEX, ctypes.c_void_p(word.address), FUTEX_WAKE, 1, None, None, 0
    )
    return woken


def futex_wait(word: Word, expected: int, timeout_s: float) -> bool:
    """Sleep while the word is `expected`. True when woken, or it was another; False at timeout."""

    class Timespec(ctypes.Structure):
        _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))

    limit = Timespec(int(timeout_s), int(timeout_s % 1 * 1e9))
    done: int = libc.syscall(
        SYS_FUTEX,
        ctypes.c_void_p(word.address),
        FUTEX_WAIT,
        ctypes.c_uint32(expected),
        ctypes.byref(limit),
        None,
        0,
    )
    return done == 0 or ctypes.get_errno() != 110  # ETIMEDOUT


class Descriptors(contextlib.AbstractContextManager["Descriptors"]):
    """Descriptors that are closed together."""

    def __init__(self) -> None:
        self._open: list[int] = []

    def keep(self, fd: int) -> int:
        self._open.append(fd)
        return fd

    def close(self, fd: int) -> None:
        self._open.remove(fd)
        os.close(fd)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        while self._open:
            os.close(self._open.pop())
