"""A relay without a thread: rounds when asked for, time as told, peers and workers played.

What leaves on a peer's socket is decoded by the codec, and what a worker finds is read from its
ring by the core's own worker side (ringbridge/lab.h): nothing here knows how the relay works.
"""

import socket
from dataclasses import dataclass
from typing import Any

from bridge.etf import Atom, ImproperList, Pid, Reference, Term, decode_bare, encode_bare
from bridge.fabric._core import ffi, lib
from bridge.fabric.limits import RoleLimits
from bridge.fabric.structs import filled

NODE = "bridge@host"
FRAGMENTS, SEND_SENDER, EXIT_PAYLOAD = 0x800000, 0x80000, 0x400000
MONITOR, DEMONITOR, DOWN, ALIAS_SEND = 19, 20, 28, 33
REG_SEND = 6
SERVICE = Atom("job_dispatcher")
MS = 1_000_000


def check(code: int) -> int:
    assert code >= 0, f"errno {-code}"
    return code


@dataclass(frozen=True)
class Request:
    """What lies in a worker's ring."""

    job: int
    payload: bytes
    deadline_ns: int
    opcode: int
    cancelled: bool


@dataclass(frozen=True)
class Received:
    """A signal that left on a socket: its control message, and the message if it carries one."""

    control: tuple[Term, ...]
    message: Term = None


class Peer:
    """The other end of a connection: a node whose processes call."""

    def __init__(self, relay: "StillRelay", name: str, number: int) -> None:
        self.name = name
        self.number = number
        ours, self._sock = socket.socketpair()
        self._sock.setblocking(False)
        self._bytes = b""
        flags = FRAGMENTS | SEND_SENDER | EXIT_PAYLOAD
        handle, text = relay.handle, name.encode()
        check(lib.rb_relay_adopt(handle, number, ours.detach(), text, flags, ffi.NULL, 0))

    def pid(self, process: int) -> Pid:
        return Pid(Atom(self.name), process, 0, 1)

    def ref(self, number: int) -> Reference:
        return Reference(Atom(self.name), 1, (number, 0, 0))

    def _send(self, *terms: Term) -> None:
        body = b"\x83D\x00" + b"".join(encode_bare(term) for term in terms)
        self._sock.sendall(len(body).to_bytes(4) + body)

    def monitor(self, process: int, ref: int) -> None:
        self._send((MONITOR, self.pid(process), SERVICE, self.ref(ref)))

    def demonitor(self, process: int, ref: int) -> None:
        self._send((DEMONITOR, self.pid(process), SERVICE, self.ref(ref)))

    def down(self, process: int, watch: Reference) -> None:
        """A process that the relay watches has ended."""
        watcher = Pid(Atom(NODE), 1, 0, 5)
        self._send((DOWN, self.pid(process), watcher, watch), Atom("killed"))

    def call(self, process: int, ref: int, request: Term) -> None:
        """`gen_server:call`, without the monitor that comes before it."""
        tag = ImproperList((Atom("alias"),), self.ref(ref))
        control = (REG_SEND, self.pid(process), Atom(""), SERVICE)
        self._send(control, (Atom("$gen_call"), (self.pid(process), tag), request))

    def received(self) -> list[Received]:
        """Every whole signal that has left to this node since the last look."""
        if self._sock.fileno() < 0:
            return []
        try:
            while more := self._sock.recv(1 << 16):
                self._bytes += more
        except (BlockingIOError, ConnectionResetError):
            pass
        signals: list[Received] = []
        while len(self._bytes) >= 4:
            size = int.from_bytes(self._bytes[:4])
            if len(self._bytes) < 4 + size:
                break
            body, self._bytes = self._bytes[4 : 4 + size], self._bytes[4 + size :]
            if size == 0:
                continue  # a tick
            assert body[:3] == b"\x83D\x00", body[:3]
            control, used = decode_bare(body[3:])
            assert isinstance(control, tuple)
            rest = body[3 + used :]
            signals.append(Received(control, decode_bare(rest)[0] if rest else None))
        return signals

    def close(self) -> None:
        self._sock.close()


class Worker:
    """A worker process, played: it greets, starts, completes and dies when it is told to."""

    def __init__(self, relay: "StillRelay", role: int, number: int, slots: int) -> None:
        self.number = number
        handle = ffi.new("struct rb_lab_worker **")
        check(lib.rb_lab_hire(relay.handle, role, number, slots, handle))
        self._handle: Any = handle[0]

    def greet(self, role: str) -> None:
        lib.rb_lab_greet(self._handle, role.encode())

    def requests(self) -> list[Request]:
        """Those that it has not released, the oldest first."""
        found = []
        for i in range(check(lib.rb_lab_requests(self._handle))):
            r = ffi.new("struct rb_lab_request *")
            check(lib.rb_lab_request(self._handle, i, r))
            payload = bytes(ffi.buffer(r.payload, r.payload_bytes))
            found.append(Request(r.job, payload, r.deadline_ns, r.opcode, bool(r.cancelled)))
        return found

    def start(self, count: int) -> None:
        lib.rb_lab_start(self._handle, count)

    def complete(self, job: int, status: int, payload: bytes, run_ns: int) -> None:
        kept = ffi.new("uint8_t[]", payload)
        answer = ffi.new("struct rb_lab_answer *")
        answer.job, answer.status, answer.run_ns, answer.code = job, status, run_ns, 7
        answer.payload, answer.payload_bytes = kept, len(payload)
        check(lib.rb_lab_complete(self._handle, answer))

    def release(self, count: int) -> None:
        lib.rb_lab_release(self._handle, count)

    def is_draining(self) -> bool:
        return bool(lib.rb_lab_draining(self._handle))

    def die(self, status: int, signal: int) -> None:
        handle, self._handle = self._handle, None
        lib.rb_lab_die(handle, status, signal, 0)

    @property
    def is_alive(self) -> bool:
        return self._handle is not None


class StillRelay:
    def __init__(self, *, now: int, seed: int = 1) -> None:
        config = ffi.new("struct rb_relay_config *")
        self._name = ffi.new("char[]", NODE.encode())
        config.node, config.creation, config.seed = self._name, 5, seed
        config.tick_ms, config.silence_ms = 10**9, 2 * 10**9
        config.frame_bytes_max, config.signal_bytes_max = 1 << 30, 4 << 20
        config.upward_bytes_max = config.upward_total_max = 4 << 20
        config.outgoing_bytes_max, config.outgoing_low_bytes = 8 << 20, 1 << 18
        config.monitors_max, config.arrival_ms = 1000, 60_000
        handle = ffi.new("struct rb_relay **")
        check(lib.rb_lab_open(handle, config, now))
        self.handle: Any = handle[0]
        self._peers: list[Peer] = []
        self._workers: list[Worker] = []
        self._roles = 0
        check(
            lib.rb_relay_install_service(
                self.handle, lib.RB_SERVICE_JOBS, 1, 0, b"job_dispatcher\0"
            )
        )

    def round(self, now: int) -> bool:
        return bool(lib.rb_lab_round(self.handle, now))

    def due(self) -> int:
        return int(lib.rb_lab_due(self.handle))

    def connect(self, name: str) -> Peer:
        self._peers.append(Peer(self, name, len(self._peers) + 1))
        return self._peers[-1]

    def add_role(self, limits: RoleLimits) -> int:
        config = filled("struct rb_role_config", limits)
        check(lib.rb_relay_add_role(self.handle, self._roles, config.pointer))
        self._roles += 1
        return self._roles - 1

    def configure_role(self, role: int, limits: RoleLimits) -> None:
        config = filled("struct rb_role_config", limits)
        check(lib.rb_relay_configure_role(self.handle, role, config.pointer))

    def hire(self, role: int, *, slots: int = 4) -> Worker:
        self._workers.append(Worker(self, role, len(self._workers) + 1, slots))
        return self._workers[-1]

    def hold(self, on: bool) -> None:
        check(lib.rb_relay_hold(self.handle, lib.RB_SERVICE_JOBS, on))

    def set_role_state(self, role: int, state: int) -> None:
        check(lib.rb_relay_set_role_state(self.handle, role, state))

    def drain(self, worker: Worker) -> None:
        check(lib.rb_relay_drain_worker(self.handle, worker.number))

    def events(self) -> list[tuple[int, int]]:
        """Kind and worker of each event that came up."""
        found, event = [], ffi.new("struct rb_event *")
        while lib.rb_relay_take(self.handle, event):
            found.append((event.kind, event.worker))
        return found

    def stats(self) -> dict[str, Any]:
        s = ffi.new("struct rb_relay_stats *")
        lib.rb_relay_read_stats(self.handle, s)
        return {
            "accepted": s.accepted,
            "in_flight": s.in_flight,
            "answered": list(s.answered),
            "refused": list(s.refused),
        }

    def credit(self, worker: Worker) -> int:
        s = ffi.new("struct rb_worker_stats *")
        check(lib.rb_relay_read_worker(self.handle, worker.number, s))
        return int(s.credit)

    def audit(self) -> None:
        why = ffi.new("char[]", 256)
        assert lib.rb_relay_audit(self.handle, why, 256) == 0, ffi.string(why).decode()

    def close(self) -> None:
        for worker in self._workers:
            if worker.is_alive:
                worker.die(0, 0)
        lib.rb_relay_stop(self.handle)
        self.audit()
        lib.rb_relay_close(self.handle)
        for peer in self._peers:
            peer.close()
