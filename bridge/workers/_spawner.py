"""The thread that starts shepherds, and lives as long as the bridge.

A shepherd asks the kernel for a signal at its parent's death (PR_SET_PDEATHSIG), and for the kernel
the parent is the *thread* that forked (prctl(2)). A pool thread that is let go after a while would
send that signal to every shepherd it ever started. So one thread starts them all and never ends.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import trio

from bridge.workers._shepherd_protocol import SOCKET_FD


@dataclass(frozen=True, slots=True)
class Child:
    """A shepherd's process. The pidfd belongs to whoever asked for the start."""

    pid: int
    pidfd: int


class _Spawner:
    """A queue and its thread. It belongs to one process: a forked copy has no thread."""

    def __init__(self) -> None:
        self.owner_pid = os.getpid()
        self._orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        # A daemon: it must not keep a bridge alive that has nothing else to do.
        threading.Thread(target=self._run, name="ringbridge-spawner", daemon=True).start()

    def _run(self) -> None:
        while True:
            self._orders.get()()

    async def spawn(self, program: Path, sock_fd: int) -> Child:
        token = trio.lowlevel.current_trio_token()
        done = trio.Event()
        outcome: list[Child | OSError] = []

        def order() -> None:
            try:
                outcome.append(_posix_spawn(program, sock_fd))
            except OSError as error:
                outcome.append(error)
            try:
                token.run_sync_soon(done.set)
            except trio.RunFinishedError:
                # Nobody is left to take it; with the socket closed by then it ends by itself.
                _forget(outcome[0])

        self._orders.put(order)
        # Not to be cancelled: it takes a millisecond, and someone has to own what it yields.
        with trio.CancelScope(shield=True):
            await done.wait()
        if isinstance(outcome[0], OSError):
            raise outcome[0]
        return outcome[0]


def _posix_spawn(program: Path, sock_fd: int) -> Child:
    """Start the shepherd with its socket as descriptor 3, nothing on 0 to 2, and clean signals.

    Python's descriptors are close-on-exec; what others left open is closed by the shepherd itself.
    """
    null = os.fsencode(os.devnull)
    pid = os.posix_spawn(
        program,
        [program.name],
        {},
        file_actions=[
            # The socket first: its own number may be one of 0 to 2.
            (os.POSIX_SPAWN_DUP2, sock_fd, SOCKET_FD),
            *((os.POSIX_SPAWN_OPEN, fd, null, os.O_RDWR, 0) for fd in range(SOCKET_FD)),
        ],
        setsigmask=[],
        setsigdef=list(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}),
    )
    try:
        # Our child and not reaped: the number is still its own.
        return Child(pid, os.pidfd_open(pid))
    except OSError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def _forget(outcome: Child | OSError) -> None:
    if isinstance(outcome, Child):
        os.close(outcome.pidfd)


_spawner: _Spawner | None = None
_spawner_lock = threading.Lock()


async def spawn(program: Path, sock_fd: int) -> Child:
    """Start `program` as a shepherd on `sock_fd` (borrowed).

    Raises: OSError. Cancellation does not interrupt it.
    """
    global _spawner
    with _spawner_lock:
        if _spawner is None or _spawner.owner_pid != os.getpid():
            _spawner = _Spawner()
        spawner = _spawner
    return await spawner.spawn(program, sock_fd)
