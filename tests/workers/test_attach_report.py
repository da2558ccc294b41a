"""What the command line of an attached worker may say of its end, and what is made of it."""

from __future__ import annotations

import os

import pytest
import trio

from bridge.workers.attach import _OBITUARY, AttachGuard


async def obituary(report: bytes) -> bytes:
    """What the relay is told where the command line says this, and goes."""
    ours, theirs = trio.socket.socketpair()
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    guard = AttachGuard(os.getpid(), os.pidfd_open(os.getpid()), trio.SocketStream(ours), write)
    with theirs, trio.fail_after(10):
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
