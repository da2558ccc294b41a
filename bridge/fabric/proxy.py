"""The worker's end of a link, played by the bridge itself (csrc/include/ringbridge/proxy.h).

Nothing here blocks or waits: `bell` is for the caller's own wait. All of it belongs to one thread.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any

from bridge.fabric import layout
from bridge.fabric._core import ffi, lib
from bridge.fabric.events import Operation
from bridge.fabric.limits import LinkFds

_OP = layout.WORKER_OP.format
_TAKES = {"raw": layout.TAKES_RAW, "term": layout.TAKES_TERM, "parts": layout.TAKES_PARTS}
_WHY_BYTES = 640
_ALL_BYTES = 2**64 - 1


class NoRoom(Exception):
    """The answer does not fit for now: the relay has not given enough back. Try again."""


@dataclass(frozen=True, slots=True)
class Request:
    """One job out of the ring; `payload` is a copy. `deadline_ns` is of CLOCK_MONOTONIC, 0: none.
    `position` names its place in the ring.
    """

    job: int
    position: int
    deadline_ns: int
    opcode: int
    flags: int
    priority: int
    trace_id: bytes
    span_id: bytes
    trace_flags: int
    payload: bytes


class Proxy:
    """One link's other end, until `close`."""

    def __init__(self, fds: LinkFds) -> None:
        """Keeps copies of the descriptors. Raises OSError."""
        why, handle = ffi.new("char[]", _WHY_BYTES), ffi.new("struct rb_proxy **")
        code = lib.rb_proxy_open(ffi.new("int[5]", list(fds)), handle, why, _WHY_BYTES)
        if code < 0:
            raise OSError(-code, f"{ffi.string(why).decode()}: {os.strerror(-code)}")
        self._proxy: Any = handle[0]
        self._request = ffi.new("struct rb_proxy_request *")
        self._answer = ffi.new("struct rb_proxy_answer *")
        self.bell: int = lib.rb_proxy_bell(self._proxy)

    def close(self) -> None:
        """May be repeated. Nobody may wait at the bell any more."""
        if self._proxy is not None:
            proxy, self._proxy = self._proxy, None
            lib.rb_proxy_close(proxy)

    @property
    def closed(self) -> bool:
        return self._proxy is None

    def greet(
        self, kit: str, version: tuple[int, int], role: str, operations: Sequence[Operation]
    ) -> None:
        """Say hello to the relay. Raises ValueError for operations that break a rule."""
        ops = b"".join(
            _OP.pack(op.opcode, reduce(or_, map(_TAKES.__getitem__, op.takes), 0), op.name.encode())
            for op in operations
        )
        why = ffi.new("char[]", _WHY_BYTES)
        number = version[0] << 16 | version[1]
        code = lib.rb_proxy_greet(
            self._proxy, kit.encode(), number, role.encode(), ops, len(operations), why, _WHY_BYTES
        )
        if code < 0:
            raise ValueError(ffi.string(why).decode())

    def park(self) -> None:
        """Before the last look and the wait at the bell: what comes from now on rings."""
        lib.rb_proxy_park(self._proxy)

    def unpark(self) -> None:
        lib.rb_proxy_unpark(self._proxy)

    def take(self) -> Request | None:
        """The next request; None: there is none. Raises OSError when the link is broken."""
        raw = self._request
        code = lib.rb_proxy_take(self._proxy, raw)
        payload = ffi.buffer(raw.payload, raw.payload_bytes)[:] if code > 0 else b""
        # After the copy: the relay's thread says so before it gives the payload's place to others.
        if lib.rb_proxy_control(self._proxy) == layout.CONTROL_STOP:
            return None
        if code < 0:
            raise OSError(-code, "the link of a remote worker is broken")
        if code == 0:
            return None
        return Request(
            raw.job,
            raw.position,
            raw.deadline_ns,
            raw.opcode,
            raw.flags,
            raw.priority,
            bytes(raw.trace_id),
            bytes(raw.span_id),
            raw.trace_flags,
            payload,
        )

    def start(self) -> None:
        """The oldest request that was taken and not started is begun."""
        lib.rb_proxy_start(self._proxy)

    def is_cancelled(self, position: int, job: int) -> bool:
        return bool(lib.rb_proxy_cancelled(self._proxy, position, job))

    def demand(self, position: int, sent: int) -> int:
        """How many parts the job may send beyond those sent."""
        return int(lib.rb_proxy_demand(self._proxy, position, sent))

    def is_empty(self) -> bool:
        """Does nothing lie in the ring that was not taken? To be asked after `is_draining`."""
        return int(lib.rb_proxy_waiting(self._proxy)) <= 0

    def is_draining(self) -> bool:
        """Is nothing more to come, but what lies in the ring? Not of one that was let go of: its
        end is told by other words.
        """
        return int(lib.rb_proxy_control(self._proxy)) == layout.CONTROL_DRAIN

    def answer(
        self,
        job: int,
        status: int,
        payload: bytes = b"",
        *,
        is_term: bool = False,
        code: int = 0,
        run_ns: int = 0,
    ) -> None:
        """Answer the oldest request, or send a part or progress of it. Raises NoRoom, and OSError
        (EMSGSIZE) for what will never fit.
        """
        answer, data = self._answer, ffi.from_buffer(payload)
        answer.job, answer.status, answer.code, answer.run_ns = job, status, code, run_ns
        answer.flags = layout.FLAG_TERM if is_term else 0
        answer.payload, answer.payload_bytes = data, len(payload)
        error = -lib.rb_proxy_answer(self._proxy, answer)
        if error:
            if error == errno.ENOSPC:
                raise NoRoom
            raise OSError(error, os.strerror(error))

    def pulse(self) -> None:
        lib.rb_proxy_pulse(self._proxy)

    def beat(self, *, ready: bool) -> None:
        """The worker has beaten; one that is not ready is given no jobs."""
        lib.rb_proxy_beat(self._proxy, int(not ready))
        lib.rb_proxy_trim(self._proxy, _ALL_BYTES)
