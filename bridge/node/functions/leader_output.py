"""Writing to a group leader by the io protocol, for one process of ours.

The request is `{io_request, From, ReplyAs, {put_chars, unicode, Binary}}`, the answer, to the pid,
`{io_reply, ReplyAs, ok | {error, Reason}}` (dist-protocol.md, 4.2; io_protocol of OTP's stdlib).
"""

from __future__ import annotations

from typing import Any

import trio

from bridge.etf import Atom, Pid, Reference
from bridge.node.calls import ProcessDown
from bridge.node.signals.router import Router
from bridge.node.signals.table import Process

Term = Any
IO_REQUEST, IO_REPLY = Atom("io_request"), Atom("io_reply")
PUT_CHARS, UNICODE = Atom("put_chars"), Atom("unicode")


class _Written:
    """One request that waits for its answer, or for the end of who would give it."""

    def __init__(self) -> None:
        self.ended = trio.Event()
        self.gone: tuple[Term] | None = None

    def down(self, reason: Term) -> None:
        if not self.ended.is_set():
            self.gone = (reason,)
            self.ended.set()


class LeaderOutput:
    """The output of `process`, whose group leader is `leader`."""

    def __init__(self, router: Router, process: Process, leader: Pid) -> None:
        self._router = router
        self._process = process
        self._leader = leader
        self._waiting: dict[Reference, _Written] = {}

    async def put(self, text: str) -> None:
        """Write, and wait for the answer. Raises ProcessDown when the leader has gone."""
        ref = self._router.ids.next_ref()
        written = self._waiting[ref] = _Written()
        self._router.monitor(self._process, self._leader, written.down, ref=ref)
        try:
            self._request(ref, text)
            await written.ended.wait()
        finally:
            del self._waiting[ref]
            self._router.demonitor(ref)
        if written.gone is not None:
            raise ProcessDown(self._leader, written.gone[0])

    def put_nowait(self, text: str) -> None:
        """Write; the answer is nobody's."""
        self._request(self._router.ids.next_ref(), text)

    def take(self, message: Term) -> bool:
        """Whether `message` is the answer to something written here."""
        match message:
            case (Atom("io_reply"), Reference() as ref, _) if ref in self._waiting:
                self._waiting[ref].ended.set()
                return True
            case (Atom("io_reply"), Reference() as ref, _):
                return self._router.ids.is_own(ref.node, ref.creation)
            case _:
                return False

    def _request(self, ref: Reference, text: str) -> None:
        characters = (PUT_CHARS, UNICODE, text.encode("utf-8", "replace"))
        message = (IO_REQUEST, self._process.pid, ref, characters)
        self._router.send(self._process.pid, self._leader, message)
