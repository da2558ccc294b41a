"""A BEAM's end of a lane, played by the test's own process with the C client library."""

from __future__ import annotations

import os
from typing import Any

import trio
import trio.lowlevel
from serve_support import Serving, ask

from bridge.etf import decode_bare
from bridge.fabric._core import ffi, lib
from bridge.fabric.lanes import lane_layout
from bridge.testing import Beam

SHARED = 0xFFFFFFFF


class Refused(Exception):
    """What the bridge said in place of a lane."""


async def grant(beam: Beam, bridge: Serving, **changed: str) -> str:
    """What the bridge answers a BEAM that asks for a lane: Elixir of it, without the token."""
    layout = lane_layout()
    wanted = {
        "os_pid": str(os.getpid()),
        "schedulers": "2",
        "version": str(layout.version),
        "digest": f'Base.decode16!("{layout.digest.hex()}", case: :lower)',
    } | changed
    words = ", ".join(f"{key}: {value}" for key, value in wanted.items())
    return await ask(
        beam,
        f"case GenServer.call({bridge.target('Ringbridge.Lanes')}, {{:open, %{{{words}}}}}) do "
        "{:ok, it} -> Base.encode16(it.socket) <> Base.encode16(it.token); other -> other end",
    )


async def granted(beam: Beam, bridge: Serving) -> tuple[bytes, bytes]:
    """The socket and the token of a lane for this process."""
    both = bytes.fromhex((await grant(beam, bridge)).strip('"'))
    return both[:-32], both[-32:]


class LaneEnd:
    """One lane, dialled. Blocking calls are short ones of this host."""

    def __init__(self, socket: bytes, token: bytes) -> None:
        """Raises Refused."""
        fds, why = ffi.new("struct rb_lane_fds *"), ffi.new("char[]", 512)
        if lib.rb_lane_dial(socket, len(socket), token, 60_000, fds, why, 512) < 0:
            raise Refused(ffi.string(why).decode())
        lane = ffi.new("struct rb_lane_client **")
        if lib.rb_lane_attach(lane, fds, why, 512) < 0:
            raise AssertionError(ffi.string(why).decode())
        self._lane = lane[0]
        self.answers: dict[int, tuple[int, bytes]] = {}
        self._take = ffi.callback("rb_lane_take", self._see)

    def _see(self, _: Any, answer: Any) -> int:
        shown = ffi.buffer(answer.bytes, answer.size)[:] if answer.size else b""
        self.answers[answer.number] = (answer.kind, shown)
        return 0

    def send(self, role: bytes, payload: bytes, timeout_ms: int = 60_000) -> int:
        """{submit, Role, Payload}; its number."""
        part = ffi.new("struct iovec *")
        kept = ffi.from_buffer(payload)
        part.iov_base, part.iov_len = kept, len(payload)
        name = ffi.new("uint8_t[]", role)
        request = ffi.new("struct rb_lane_request *")
        request.form, request.parts, request.count = lib.RB_LANE_RAW, part, 1
        request.role, request.role_bytes, request.timeout_ms = name, len(role), timeout_ms
        number = ffi.new("uint64_t *")
        assert lib.rb_lane_claim(self._lane, SHARED, number) == 0
        assert lib.rb_lane_send(self._lane, SHARED, number[0], request) == 0
        return int(number[0])

    async def answer(self, number: int) -> Any:
        """Bytes of an `{ok, Binary}`, else the answer's term."""
        with trio.fail_after(60):
            while number not in self.answers:
                lib.rb_lane_drain(self._lane, self._take, ffi.NULL, 32)
                if number in self.answers or lib.rb_lane_park(self._lane):
                    await trio.lowlevel.checkpoint()
                    continue
                await trio.lowlevel.wait_readable(lib.rb_lane_wake_fd(self._lane))
                lib.rb_lane_hush(self._lane)
        kind, shown = self.answers.pop(number)
        return shown if kind == lib.RB_LANE_ANSWER_RAW else decode_bare(shown)[0]

    async def ended(self) -> None:
        """Wait until the lane has ended, as a BEAM does."""
        with trio.fail_after(60):
            while lib.rb_lane_state(self._lane) == lib.RB_LANE_OPEN:
                lib.rb_lane_drain(self._lane, self._take, ffi.NULL, 32)
                if lib.rb_lane_park(self._lane):
                    await trio.lowlevel.checkpoint()
                    continue
                await trio.lowlevel.wait_readable(lib.rb_lane_wake_fd(self._lane))
                if lib.rb_lane_hush(self._lane) < 0:
                    return

    def lose(self) -> int:
        return int(lib.rb_lane_lose(self._lane, self._take, ffi.NULL))

    def close(self) -> None:
        lib.rb_lane_detach(self._lane)
