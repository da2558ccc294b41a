"""Bodies in sealed memfds: what a worker sends is looked at before a byte of it is read.

A descriptor from a worker can be anything: a pipe that never ends, a file whose reads or whose
close() blocks. Only one that is sealed against every change, and of the size that was announced, is
read; the others are closed in a thread, as closing a socket may wait for its peer.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Sequence
from threading import Thread

import trio

from bridge.workers.channel.packets import BrokenRule

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
_IN_THREAD_BYTES = 1 << 20  # above this, reading and writing is left to a thread


def is_sealed(fd: int) -> bool:
    """Is it a memfd that nobody can change any more?"""
    try:
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALS == SEALS
    except OSError:  # EINVAL: not a memfd
        return False


async def read(fd: int, size: int) -> bytes:
    """The `size` bytes of a memfd that is sealed. It stays the caller's. Raises BrokenRule."""
    about = os.fstat(fd)
    if not stat.S_ISREG(about.st_mode) or about.st_size != size:
        raise BrokenRule(f"a memfd of {about.st_size} bytes, announced as {size}")
    if size <= _IN_THREAD_BYTES:
        return _read_all(fd, size)
    return await trio.to_thread.run_sync(_read_all, fd, size)


def _read_all(fd: int, size: int) -> bytes:
    parts, at = [], 0
    while at < size:
        part = os.pread(fd, min(size - at, 1 << 30), at)
        if not part:  # it is sealed, and was so long
            raise OSError("a sealed memfd ended early")
        parts.append(part)
        at += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def make(body: bytes) -> int:
    """A sealed memfd with `body` in it. Raises OSError."""
    fd = os.memfd_create("ringbridge body", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        if len(body) <= _IN_THREAD_BYTES:
            _write_all(fd, body)
        else:
            await trio.to_thread.run_sync(_write_all, fd, body)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _write_all(fd: int, body: bytes) -> None:
    view, at = memoryview(body), 0
    while at < len(view):
        at += os.write(fd, view[at:])


def close_strangers(fds: Sequence[int]) -> None:
    """Close descriptors of which nothing is known, in a thread that nobody waits for."""
    if fds:
        Thread(target=_close_all, args=(list(fds),), daemon=True).start()


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
