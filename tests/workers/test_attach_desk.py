"""An attached worker's way in, and what its command line may say of its end."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from bridge.workers.attach import _OBITUARY, AttachDesk, AttachDriver, AttachGuard


async def obituary(report: bytes) -> bytes:
    """What the relay is told where the command line says this, and goes."""
    ours, theirs = trio.socket.socketpair()
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    guard = AttachGuard(os.getpid(), os.pidfd_open(os.getpid()), trio.SocketStream(ours), write)
    with theirs, trio.fail_after(60):
        await theirs.send(report)
        theirs.shutdown(trio.socket.SHUT_WR)
        await guard.watch()
        await guard.aclose()
    told = os.read(read, 64)
    os.close(read)
    return told


@pytest.mark.parametrize(
    ("report", "status", "by"),
    [(b'{"status": 3, "signal": 0}\n', 3, 0), (b'{"status": 0, "signal": 11}\n', -1, 11)],
)
async def test_an_end_is_passed_on(report: bytes, status: int, by: int) -> None:
    assert _OBITUARY.unpack(await obituary(report))[1:3] == (status, by)


@pytest.mark.parametrize(
    "report",
    [
        b"",
        b"\n",
        b"[]\n",
        b"null\n",
        b"\xff\n",
        b"[" * 250 + b"\n",
        b'{"status": 1}\n',
        b'{"status": 256, "signal": 0}\n',
        b'{"status": 0, "signal": 99}\n',
        b'{"status": Infinity, "signal": 0}\n',
        b'{"status": 0, "signal": 1e999}\n',
        b'{"status": NaN, "signal": 0}\n',
        b'{"status": 0, "signal": 0}' + b" " * 300,
    ],
)
async def test_what_is_no_report_is_as_none(report: bytes) -> None:
    told = await obituary(report)
    assert told == b"" or report.endswith(b" ")


class Relay:
    """As far as a link is needed."""

    def __init__(self) -> None:
        self.links: set[int] = set()
        self.workers: set[int] = set()

    def create_link(self, role: int, worker_id: int, link: object) -> list[int]:
        self.links.add(worker_id)
        return [0, 1, 2, 0, 1]

    def drop_link(self, worker_id: int) -> None:
        self.links.remove(worker_id)

    def add_worker(self, worker_id: int, **fds: int) -> None:
        self.workers.add(worker_id)

    def spare_worker(self, worker_id: int) -> None: ...


def plan() -> Any:
    return SimpleNamespace(id=1, name="work", config=SimpleNamespace(env={}, chaos=False))


async def test_who_has_left_when_its_pid_is_looked_up_is_not_let_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its pid may be another's by then, who would be ended with the worker."""
    ours, theirs = trio.socket.socketpair()
    look_up = os.pidfd_open

    def leave_first(pid: int) -> int:
        theirs.close()
        return look_up(pid)

    monkeypatch.setattr(os, "pidfd_open", leave_first)
    relay: Any = Relay()
    driver = AttachDriver(
        relay,
        trio.SocketStream(ours),
        pid=os.getpid(),
        link=SimpleNamespace(),  # type: ignore[arg-type]
        begin=lambda story: None,
    )
    with pytest.raises(BrokenPipeError):
        await driver.start(7, plan())
    assert not relay.links
    assert not relay.workers


class Full:
    """A listener of a process that has no descriptor left."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...
    def getsockname(self) -> str:
        return str(self.path)

    async def accept(self) -> tuple[socket.socket, object]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


async def test_an_offer_ends_where_no_descriptor_is_free(tmp_path: Path) -> None:
    folder = tmp_path / "ringbridge-offer"
    folder.mkdir()
    desk = AttachDesk(begin=lambda story: None, join=lambda *_: None)
    full: Any = Full(folder / "attach")
    await desk._keep(full, "token", plan())  # its supervisor goes on
    assert not folder.exists()
