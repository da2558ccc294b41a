"""One packet with its descriptors to a shepherd, and from it. Nobody else is listened to."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence

import trio

from bridge.workers import _shepherd_protocol as protocol
from bridge.workers._shepherd_protocol import RemoteProtocolError

FDS_MAX = 8
_CREDENTIALS = struct.Struct("=iII")  # struct ucred: pid, uid, gid
_CONTROL_BYTES = socket.CMSG_SPACE(FDS_MAX * 4) + socket.CMSG_SPACE(_CREDENTIALS.size)


def pair() -> tuple[socket.socket, socket.socket]:
    """Ours, never waiting, and the shepherd's. Each end learns from the kernel who has sent a
    packet.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    ours.setblocking(False)
    return ours, theirs


async def send(sock: socket.socket, packet: bytes, fds: Sequence[int]) -> None:
    """Send one packet. Cancelled: it was not sent."""
    await trio.lowlevel.checkpoint_if_cancelled()
    while True:
        try:
            socket.send_fds(sock, [packet], fds) if fds else sock.send(packet)
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return


async def receive(sock: socket.socket, sender: int) -> tuple[bytes, list[int]]:
    """Receive one packet and its descriptors; b"" at end of file. Cancelled: it was not taken.

    Raises: RemoteProtocolError when it is not from the process `sender`.
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    reset_seen = False
    while True:
        try:
            packet, control, _, _ = sock.recvmsg(
                protocol.MESSAGE_MAX, _CONTROL_BYTES, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            await trio.lowlevel.wait_readable(sock)
        except ConnectionResetError:
            # A shepherd that ends with commands of ours unread makes the kernel report this first,
            # once, before the packets that it sent (unix(7) queues survive the sender).
            if reset_seen:
                return b"", []
            reset_seen = True
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()
            fds, came_from = _read_control(control)
            if packet and came_from != sender:
                for fd in fds:
                    os.close(fd)
                raise RemoteProtocolError(
                    f"a packet from process {came_from}, the shepherd is {sender}"
                )
            return packet, fds


def close(sock: socket.socket) -> None:
    """May be repeated."""
    if sock.fileno() >= 0:
        trio.lowlevel.notify_closing(sock)
        sock.close()


def _read_control(control: Sequence[tuple[int, int, bytes]]) -> tuple[list[int], int | None]:
    fds: list[int] = []
    sender = None
    for level, kind, data in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            count = len(data) // 4
            fds += struct.unpack(f"={count}i", data[: count * 4])
        elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            sender = _CREDENTIALS.unpack(data)[0]
    return fds, sender
