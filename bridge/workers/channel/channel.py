"""One worker's channel: a task that reads its socket, a task that writes to it.

The worker at the other end is hostile. What it sends is bounded before it is looked at, read at the
pace of pace.py, and its rules are those of docs/channel.md: who breaks one is ended, and
everything else that goes wrong is an answer. The bridge never waits for a worker to read.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import socket
import struct
import termios
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol

import structlog
import trio

from bridge.config import CallbackSettings, CheckpointSettings
from bridge.etf import brief
from bridge.fabric import layout
from bridge.node.log_limit import LogLimit
from bridge.workers.channel import memfds, packets
from bridge.workers.channel.callbacks import Callbacks, OpenCall, answer_bytes
from bridge.workers.channel.pace import Pace
from bridge.workers.channel.packets import BrokenRule, Code, Head, NotHad, Outgoing
from bridge.workers.channel.policy import AtomBudget, CallbackPolicy
from bridge.workers.channel.states import Admitted, States
from bridge.workers.output import LINES_PER_SECOND

TOLD_WITHIN_S = 1.0
LAST_WORDS_S = 5.0  # for what a worker has sent before it ended
UNREAD_BYTES_MAX = 4 << 20  # in memfds in the socket, or one memfd of any size
_TAKEN_LOOK_S = 0.005
_INT = struct.Struct("i")
_DESCRIPTORS_MAX = 8  # that are taken with one packet; the kernel drops what is above
_CREDENTIALS_BYTES = 3 * 4  # struct ucred, unix(7)
_MSG_CMSG_CLOEXEC = 0x4000_0000  # socket(7); Python has no name for it
_OTHERS_WAITING_MAX = 64  # packets for the worker that are no replies to its open requests
_NO_MEMFD_S = 0.1  # until the next try, where the bridge has no descriptor free


class Peers(Protocol):
    """A worker's links to others (bridge/links)."""

    def serve(self) -> None: ...
    def open(self, role: str) -> tuple[int, int]: ...
    def close(self, number: int) -> None: ...
    def over(self) -> None: ...


class Channel:
    """The bridge's end. `run` is its life; `finish` ends it when the worker has ended.

    `broke(rule)` is called once, when the worker breaks a rule; nothing is read after that.
    `said(line)` is called for each of its log lines, those too that are too many for the log.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        worker_id: int,
        role: str,
        settings: Callable[[], CallbackSettings],
        atoms: Callable[[], tuple[str, ...]],
        policy: Callable[[CallbackSettings], CallbackPolicy],
        callbacks: Callbacks,
        states: Callable[[Callable[[Outgoing], None]], States],
        peers: Callable[[Callable[[Outgoing], None]], Peers],
        checkpoints: Callable[[], CheckpointSettings],
        broke: Callable[[str], None],
        said: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._said = said
        sock.setblocking(False)
        # A packet may be empty, and recvmsg() gives nothing then as it does at the end. With this
        # the kernel says of each packet who sent it (unix(7)), and of the end it says nothing.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket = sock
        self._settings = settings
        self._atoms = atoms
        self._make_policy = policy
        self._callbacks = callbacks
        self.states = states(self._send)
        self.peers = peers(self._offer)
        self._checkpoint_settings = checkpoints
        self._broke = broke
        self._policy: tuple[CallbackSettings, CallbackPolicy, AtomBudget] | None = None
        self._open: set[int] = set()  # the worker's requests that have no reply yet
        self._calls: dict[int, trio.CancelScope] = {}
        self._unread_bytes = 0  # in memfds that the worker has been sent, and may not have read
        self._load_id = 0  # of the state that was asked for last
        self._waiting: deque[Outgoing] = deque()
        self._others_waiting = 0
        self._news = trio.Event()
        self._gone = trio.Event()  # the tasks have ended
        self._deaf = False  # the worker's end is closed: nothing can be told to it
        self._scope = trio.CancelScope()
        self._lines = LogLimit()
        self._second, self._lines_passed, self._lines_dropped = 0, 0, 0
        self.counts: Counter[str] = Counter()
        self._log = structlog.get_logger("ringbridge.worker").bind(role=role, worker=worker_id)

    # ---- its life

    async def run(self) -> None:
        """Serve the worker until its end of the socket is closed and all was read, or `finish`."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    nursery.start_soon(self._write)
                    nursery.start_soon(self.states.keep_schedule)
                    await self._read()
                    while self.states.saving:
                        await self._news.wait()
                    nursery.cancel_scope.cancel()
        finally:
            self.states.over()
            self.peers.over()
            self._drop_waiting()
            self._tell_dropped_lines()
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()
            self._gone.set()

    async def finish(self) -> None:
        """The worker has ended: hear its last words, which may be a checkpoint, and close."""
        with trio.move_on_after(LAST_WORDS_S):
            await self._gone.wait()
        self._scope.cancel()
        await self._gone.wait()

    async def leave(self) -> None:
        """The worker is about to be drained: have it save behind its last job, if its role says so.
        It must have been told before it is drained, so this waits for a full socket, a moment.
        """
        settings = self._checkpoint_settings()
        if not (settings.keep and settings.on_drain and self.states.listens):
            return
        with suppress(NotHad):
            self.states.save_before_leaving()
        await self.wait_told()

    async def wait_told(self) -> None:
        """Until what the worker was told is in its socket; for a moment at most."""
        with trio.move_on_after(TOLD_WITHIN_S):
            while self._waiting:
                await self._news.wait()

    def statistics(self) -> Mapping[str, int]:
        """What was said on it, by kind; `refused`: what was not had; `open`: calls that wait."""
        return {**self.counts, "open": len(self._open)}

    # ---- reading

    async def _read(self) -> None:
        pace = Pace(self._settings().packets_per_s)
        try:
            while True:
                while self._others_waiting >= _OTHERS_WAITING_MAX and not self._deaf:
                    await self._news.wait()  # who does not read is not read
                await trio.lowlevel.wait_readable(self._socket)
                packet, fds = self._receive()
                if packet is None:
                    continue
                begin_s = time.thread_time()
                await self._take(packet, fds)
                pace.packets_per_s = self._settings().packets_per_s
                rest_s = pace.spend(trio.current_time(), time.thread_time() - begin_s)
                if rest_s > 0:
                    self.counts["held_back"] += 1
                    await trio.sleep(rest_s)
        except BrokenRule as error:
            self._log.warning("worker broke a rule of its channel", rule=str(error))
            self._broke(str(error))
        except (trio.EndOfChannel, ConnectionError):
            pass  # closed, perhaps with something of ours unread

    def _receive(self) -> tuple[bytes | None, list[int]]:
        """One packet and what came with it; None where there is none after all. Raises EndOfChannel
        behind the last one, BrokenRule.
        """
        space = socket.CMSG_SPACE(_CREDENTIALS_BYTES) + socket.CMSG_SPACE(_DESCRIPTORS_MAX * 4)
        try:
            packet, ancillary, flags, _ = self._socket.recvmsg(
                layout.PACKET_BYTES_MAX, space, socket.MSG_DONTWAIT | _MSG_CMSG_CLOEXEC
            )
        except (BlockingIOError, InterruptedError):
            return None, []
        if not packet and not ancillary:
            raise trio.EndOfChannel
        fds = array.array("i")
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        if flags & socket.MSG_TRUNC:
            memfds.close_strangers(fds)
            raise BrokenRule(f"a packet is longer than {layout.PACKET_BYTES_MAX} bytes")
        if flags & socket.MSG_CTRUNC and len(fds) < _DESCRIPTORS_MAX:
            # The bridge has no descriptor free: not the worker's doing.
            memfds.close_strangers(fds)
            if (held_back := self._lines.due("descriptors")) is not None:
                self._log.error("no descriptor free for a worker's packet", held_back=held_back)
            return self._without_body(packet), []
        return packet, list(fds)

    def _without_body(self, packet: bytes) -> bytes | None:
        """A packet whose descriptor was lost by us: refused, where it wants a reply."""
        head = packets.read_head(packet, 1)
        if head.id and not head.id & layout.PACKET_ID_BRIDGE:
            self._send(packets.refusal(head.id, NotHad(Code.BUSY)))
        return None

    async def _take(self, packet: bytes, fds: list[int]) -> None:
        """One packet. Raises BrokenRule."""
        try:
            head = packets.read_head(packet, len(fds))
            if head.id in self._open and head.kind != layout.PACKET_FORGET:
                raise BrokenRule(f"id {head.id} is open already")
        except BrokenRule:
            memfds.close_strangers(fds)
            raise
        self.counts[_WORDS[head.kind]] += 1
        try:
            body = await self._body(head, packet, fds)
            await self._handle(head, packets.read_body(head, body), len(body))
        except NotHad as error:
            if head.kind == layout.PACKET_CHECKPOINT_SAVE:
                self.states.not_saved(head.id, error)
            self._refuse(head, error)

    async def _body(self, head: Head, packet: bytes, fds: list[int]) -> bytes:
        """The packet's body. Raises BrokenRule, NotHad: then nothing of it was read."""
        if not head.memfd:
            return packet[packets.HEAD_BYTES :]
        (fd,) = fds
        if not memfds.is_sealed(fd):
            memfds.close_strangers(fds)
            raise BrokenRule("a descriptor that is no memfd, or not sealed against changes")
        try:
            most, before = self._settings().bytes_max, 0
            if head.kind == layout.PACKET_CHECKPOINT_SAVE:
                if not self._checkpoint_settings().keep:
                    raise NotHad(Code.UNAVAILABLE, "its role keeps no checkpoints")
                most, before = self._checkpoint_settings().bytes_max, packets.SAVE_HEAD_BYTES
            if head.bytes > most + before:
                raise NotHad(Code.TOO_LARGE, most)
            return await memfds.read(fd, head.bytes)
        except MemoryError:
            raise NotHad(Code.BUSY) from None
        finally:
            os.close(fd)

    async def _handle(self, head: Head, request: packets.Request, size: int) -> None:
        settings, policy, budget = self._rules()
        match request:
            case packets.Send():
                if size > settings.bytes_max:
                    raise NotHad(Code.TOO_LARGE, settings.bytes_max)
                await self._callbacks.send(request, size, policy, budget)
            case packets.Call():
                if len(self._open) >= settings.calls_max:
                    raise NotHad(Code.BUSY)
                if size > settings.bytes_max:
                    raise NotHad(Code.TOO_LARGE, settings.bytes_max)
                call = await self._callbacks.ask(request, size, policy, budget)
                self._open.add(head.id)
                scope = self._calls[head.id] = trio.CancelScope()
                self._nursery.start_soon(self._finish_call, head.id, call, scope)
            case packets.Forget():
                if waiting := self._calls.get(head.id):
                    waiting.cancel()
            case packets.Log():
                self._log_line(head, request)
            case packets.Save():
                admitted = self.states.admit_save(head.id)
                if head.id and admitted.asked is None:
                    self._open.add(head.id)
                self._nursery.start_soon(self._save, head, admitted, request)
            case packets.Load():
                if self._load_id in self._open:  # each is as large as a state
                    raise NotHad(Code.BUSY)
                self._load_id = head.id
                self._open.add(head.id)
                self._nursery.start_soon(self._load, head)
            case packets.Reply():
                self.states.replied(head.id, request)
            case packets.PeerOpen(role):
                self._open_peer(head.id, role)
            case packets.PeerClose(link):
                self.peers.close(link)
                self._send(packets.reply(head.id))

    def _open_peer(self, id_: int, role: str | None) -> None:
        if role is None:
            self.peers.serve()
            self._send(packets.reply(id_))
        else:
            link, descriptor = self.peers.open(role)
            self._send(packets.peer_granted(id_, link, descriptor))

    def _rules(self) -> tuple[CallbackSettings, CallbackPolicy, AtomBudget]:
        """The role's settings of now; the atoms that were spent stay spent."""
        settings = self._settings()
        if self._policy is None:
            self._policy = (settings, self._make_policy(settings), AtomBudget(self._atoms()))
        elif self._policy[0] is not settings:
            self._policy = (settings, self._make_policy(settings), self._policy[2])
        return self._policy

    # ---- what takes its time

    async def _finish_call(self, id_: int, call: OpenCall, scope: trio.CancelScope) -> None:
        try:
            with scope:
                answer = await call.wait()
                self._send(packets.reply(id_, answer_bytes(answer, self._settings().bytes_max)))
        except NotHad as error:
            self.counts["refused"] += 1
            self._send(packets.refusal(id_, error))
        finally:
            del self._calls[id_]
            if scope.cancelled_caught:
                self._open.discard(id_)

    async def _save(self, head: Head, admitted: Admitted, request: packets.Save) -> None:
        try:
            await self.states.save(admitted, request)
            if head.id and admitted.asked is None:
                self._send(packets.reply(head.id))
        except NotHad as error:
            self._refuse(head, error)
        finally:
            self._tell()

    async def _load(self, head: Head) -> None:
        try:
            self._send(packets.reply(head.id, await self.states.load()))
        except NotHad as error:
            self._refuse(head, error)

    # ---- log lines

    def _log_line(self, head: Head, line: packets.Log) -> None:
        self._said(line.text)
        second = int(trio.current_time())
        if second != self._second:
            self._tell_dropped_lines()
            self._second, self._lines_passed = second, 0
        if self._lines_passed >= LINES_PER_SECOND:
            self._lines_dropped += 1
            return
        self._lines_passed += 1
        say = getattr(self._log, line.level)
        say("worker says", line=line.text, **({"job": head.job} if head.job else {}))

    def _tell_dropped_lines(self) -> None:
        dropped, self._lines_dropped = self._lines_dropped, 0
        if dropped:
            self._log.warning("worker's lines were dropped: too many in a second", lines=dropped)

    # ---- writing

    def _refuse(self, head: Head, error: NotHad) -> None:
        self.counts["refused"] += 1
        if head.id and not head.id & layout.PACKET_ID_BRIDGE:
            self._send(packets.refusal(head.id, error))
        elif head.kind == layout.PACKET_SEND and (
            (held_back := self._lines.due("send")) is not None
        ):
            why = brief(error.reason())
            self._log.warning("worker's message not sent", why=why, held_back=held_back)

    def _send(self, packet: Outgoing) -> None:
        """Tell the worker something: at once where there is room, else the writer does it. What
        waits is bounded by the worker's open calls, and by not reading what it says (`_read`).
        """
        if self._gone.is_set() or self._deaf:
            _drop(packet)
            return
        if self._waiting or packet.by_memfd or not self._write_now(packet):
            self._others_waiting += packet.id not in self._open
            self._waiting.append(packet)
            self._tell()
        else:
            _drop(packet)
            self._open.discard(packet.id)

    def _offer(self, packet: Outgoing) -> None:
        """What others have the worker told: bounded too, where it does not read. Raises NotHad."""
        if self._others_waiting >= _OTHERS_WAITING_MAX:
            _drop(packet)
            raise NotHad(Code.BUSY)
        self._send(packet)

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    def _write_now(self, packet: Outgoing, fd: int | None = None) -> bool:
        """False: there is no room."""
        buffers = [packet.head()] if packet.by_memfd else [packet.head(), packet.body]
        fd = packet.descriptor if fd is None else fd
        rights = [] if fd is None else [_rights(fd)]
        try:
            self._socket.sendmsg(buffers, rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            if error.errno in (errno.ENOBUFS, errno.ETOOMANYREFS):
                return False
            self._become_deaf()
        return True

    def _become_deaf(self) -> None:
        """The worker has ended, or closed its end. What it has said before is still read."""
        self._deaf = True
        self._drop_waiting()
        self._open.clear()
        self._others_waiting = 0
        self._tell()

    def _drop_waiting(self) -> None:
        for packet in self._waiting:
            _drop(packet)
        self._waiting.clear()

    async def _write(self) -> None:
        while True:
            while not self._waiting:
                await self._news.wait()
            packet = self._waiting[0]
            if packet.by_memfd:
                await self._wait_taken(len(packet.body))
            try:
                fd = await memfds.make(packet.body) if packet.by_memfd else None
            except OSError as error:
                self._log.error("no memfd for a worker's packet", why=str(error))
                await trio.sleep(_NO_MEMFD_S)
                continue
            try:
                while not self._deaf and not self._write_now(packet, fd):
                    await trio.lowlevel.wait_writable(self._socket)
            finally:
                if fd is not None:
                    os.close(fd)
            if not self._deaf:
                self._unread_bytes += len(packet.body) if packet.by_memfd else 0
                _drop(self._waiting.popleft())
                self._others_waiting -= packet.id not in self._open
                self._open.discard(packet.id)
                self._tell()

    async def _wait_taken(self, size: int) -> None:
        """Until the worker has read what it was given in memfds, or this one fits beside it: what
        lies in a socket costs the socket nothing, but the machine its memory.
        """
        while not self._deaf and self._unread_bytes:
            (unread,) = _INT.unpack(fcntl.ioctl(self._socket, termios.TIOCOUTQ, bytes(_INT.size)))
            if unread == 0:
                self._unread_bytes = 0
            elif self._unread_bytes + size > UNREAD_BYTES_MAX:
                await trio.sleep(_TAKEN_LOOK_S)  # nothing tells of it
            else:
                return


def _drop(packet: Outgoing) -> None:
    """It was sent, or nobody will be: what would have gone along is closed here."""
    if packet.descriptor is not None:
        os.close(packet.descriptor)


def _rights(fd: int) -> tuple[int, int, array.array[int]]:
    return (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))


_WORDS = {
    layout.PACKET_SEND: "sends",
    layout.PACKET_CALL: "calls",
    layout.PACKET_LOG: "lines",
    layout.PACKET_CHECKPOINT_SAVE: "saves",
    layout.PACKET_CHECKPOINT_LOAD: "loads",
    layout.PACKET_PEER_OPEN: "peers",
    layout.PACKET_PEER_CLOSE: "peers",
    layout.PACKET_FORGET: "forgets",
    layout.PACKET_REPLY: "replies",
}
