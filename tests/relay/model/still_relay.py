"""A relay without a thread: rounds when asked for, time as told, peers and workers played.

What leaves on a peer's socket is decoded by the codec (relay_peer.py), and what a worker finds is
read from its ring by the core's own worker side (ringbridge/lab.h): nothing here knows how the
relay works.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from relay_peer import NODE, SERVICE, STREAMS, Peer

from bridge.fabric._core import ffi, lib
from bridge.fabric.limits import AllowanceLimits, RoleLimits, TenantLimits
from bridge.fabric.structs import filled


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
    demand: int  # parts that it may send in all


@dataclass(frozen=True)
class Event:
    """What came up for the interpreter; `a` and `text` as relay.h says for its kind."""

    kind: int
    worker: int
    a: int = 0
    text: bytes = b""


class Worker:
    """A worker process, played: it greets, starts, completes and dies when it is told to."""

    def __init__(self, relay: StillRelay, role: int, number: int, slots: int) -> None:
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
            cancelled = bool(r.cancelled)
            found.append(Request(r.job, payload, r.deadline_ns, r.opcode, cancelled, r.demand))
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
        config.kept_bytes_max = 1 << 20
        handle = ffi.new("struct rb_relay **")
        check(lib.rb_lab_open(handle, config, now))
        self.handle: Any = handle[0]
        self._peers: list[Peer] = []
        self._workers: list[Worker] = []
        for service, name in ((lib.RB_SERVICE_JOBS, SERVICE), (lib.RB_SERVICE_STREAMS, STREAMS)):
            names = str(name).encode() + b"\0"
            check(lib.rb_relay_install_service(self.handle, service, 1 + service, 0, names))

    def round(self, now: int) -> bool:
        return bool(lib.rb_lab_round(self.handle, now))

    def due(self) -> int:
        return int(lib.rb_lab_due(self.handle))

    def connect(self, name: str) -> Peer:
        self._peers.append(Peer(self, name, len(self._peers) + 1))
        return self._peers[-1]

    def add_role(self, role: int, limits: RoleLimits) -> None:
        config = filled("struct rb_role_config", limits)
        check(lib.rb_relay_add_role(self.handle, role, config.pointer))

    def remove_role(self, role: int) -> int:
        """0, or a negative errno."""
        return int(lib.rb_relay_remove_role(self.handle, role))

    def configure_role(self, role: int, limits: RoleLimits) -> None:
        config = filled("struct rb_role_config", limits)
        check(lib.rb_relay_configure_role(self.handle, role, config.pointer))

    def configure_tenant(self, name: str, limits: TenantLimits | None) -> None:
        config = filled("struct rb_tenant_config", limits).pointer if limits else ffi.NULL
        check(lib.rb_relay_configure_tenant(self.handle, name.encode(), config))

    def configure_allowance(self, kind: int, name: str, limits: AllowanceLimits | None) -> None:
        """`kind`: AccountKind."""
        config = filled("struct rb_allowance_config", limits).pointer if limits else ffi.NULL
        check(lib.rb_relay_configure_allowance(self.handle, kind, name.encode(), config))

    def force_breaker(self, role: int, worker: int, how: int) -> None:
        check(lib.rb_relay_force_breaker(self.handle, role, worker, how))

    def weigh(self, worker: Worker, weight: int) -> None:
        check(lib.rb_relay_weigh_worker(self.handle, worker.number, weight))

    def hire(self, role: int, *, slots: int = 4) -> Worker:
        self._workers.append(Worker(self, role, len(self._workers) + 1, slots))
        return self._workers[-1]

    def hold(self, on: bool) -> None:
        check(lib.rb_relay_hold(self.handle, lib.RB_SERVICE_JOBS, on))

    def set_role_state(self, role: int, state: int) -> None:
        check(lib.rb_relay_set_role_state(self.handle, role, state))

    def drain(self, worker: Worker) -> None:
        check(lib.rb_relay_drain_worker(self.handle, worker.number))

    def events(self) -> list[Event]:
        """What came up since the last look."""
        found, event = [], ffi.new("struct rb_event *")
        while lib.rb_relay_take(self.handle, event):
            text = bytes(ffi.buffer(event.data, event.size)) if event.size else b""
            found.append(Event(event.kind, event.worker, event.a, text))
        return found

    def stats(self) -> dict[str, Any]:
        s = ffi.new("struct rb_relay_stats *")
        lib.rb_relay_read_stats(self.handle, s)
        return {
            "accepted": s.accepted,
            "in_flight": s.in_flight,
            "answered": list(s.answered),
            "refused": list(s.refused),
            "overloaded_by": list(s.overloaded_by),
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
