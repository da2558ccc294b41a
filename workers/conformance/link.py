"""A link as the bridge makes it: two sealed memfds, a pool, a socket, an eventfd, a channel.

`LinkPlan` says how it is to be, the wrong ways included: a header can be told to lie.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from bridge.fabric import layout
from workers.conformance.memory import (
    SEAL_FUTURE_WRITE,
    SIZE_SEALS,
    Descriptors,
    Memory,
    memfd,
    seal,
)

BOTH_CRC = layout.FEATURE_CRC_ENVELOPE | layout.FEATURE_CRC_PAYLOAD


def unpack(record: layout.Record, data: bytes) -> dict[str, int | bytes]:
    """The fields of one record by name; a u8 array is bytes."""
    return dict(zip((f.name for f in record.fields), record.format.unpack(data), strict=True))


def pack(record: layout.Record, values: Mapping[str, int | bytes]) -> bytes:
    """One record; what is not named is zero."""
    empty = ((b"" if f.item_bytes == 1 and f.items > 1 else 0) for f in record.fields)
    return record.format.pack(
        *(values.get(f.name, zero) for f, zero in zip(record.fields, empty, strict=True))
    )


@dataclass(frozen=True)
class LinkPlan:
    """Sizes of a link, and what its header says otherwise than it should (`lies`, by field)."""

    slots: int = 64
    result_block_bytes: int = 4096
    result_bytes: int = 1 << 20
    pool_bytes: int = 4 << 20
    pool_block_bytes: int = 4096
    features: int = BOTH_CRC
    worker_id: int = 7
    role: str = "conformance"
    bell: bool = True  # descriptor 6 is there
    channel: bool = True  # descriptor 8 is there
    sealed: bool = True
    lies: Mapping[str, int | bytes] = field(default_factory=dict)
    extra_bytes: Mapping[str, int] = field(default_factory=dict)  # side -> bytes more than told


@dataclass(frozen=True)
class Parts:
    """Where each part lies: whole pages, each part followed by one guard page."""

    requests_at: int
    cancels_at: int
    demands_at: int
    givebacks_at: int
    relay_side_bytes: int
    completions_at: int
    results_at: int
    worker_side_bytes: int

    @classmethod
    def of(cls, plan: LinkPlan) -> Parts:
        def behind(at: int, size: int) -> int:
            page = layout.PAGE_BYTES
            return at + -(-size // page) * page + page

        blocks = plan.result_bytes // plan.result_block_bytes
        requests = behind(layout.AT_POSITIONS, layout.RELAY_POSITIONS.size)
        cancels = behind(requests, plan.slots * layout.REQUEST.size)
        demands = behind(cancels, plan.slots * 8)
        givebacks = behind(demands, plan.slots * layout.DEMAND.size)
        completions = behind(layout.AT_TELEMETRY, layout.TELEMETRY.size)
        results = behind(completions, plan.slots * layout.COMPLETION.size)
        return cls(
            requests_at=requests,
            cancels_at=cancels,
            demands_at=demands,
            givebacks_at=givebacks,
            relay_side_bytes=behind(givebacks, blocks * layout.GIVEBACK.size),
            completions_at=completions,
            results_at=results,
            worker_side_bytes=behind(results, plan.result_bytes),
        )


class Link:
    """Our end, and the descriptors that the worker inherits (`inherited`, number -> ours)."""

    def __init__(self, plan: LinkPlan) -> None:
        self.plan = plan
        self.parts = parts = Parts.of(plan)
        self.blocks = plan.result_bytes // plan.result_block_bytes
        self.nonce = secrets.randbits(64) | 1
        self._descriptors = Descriptors()
        keep = self._descriptors.keep
        more = plan.extra_bytes
        relay_fd = keep(memfd("relay-side", parts.relay_side_bytes + more.get("relay", 0)))
        worker_fd = keep(memfd("worker-side", parts.worker_side_bytes + more.get("worker", 0)))
        self.relay = Memory(relay_fd, parts.relay_side_bytes, writable=True)
        self.worker = Memory(worker_fd, parts.worker_side_bytes, writable=False)
        self.inherited = {layout.FD_RELAY_SIDE: relay_fd, layout.FD_WORKER_SIDE: worker_fd}
        self.pool: Memory | None = None
        if plan.pool_bytes:
            pool_fd = keep(memfd("pool", plan.pool_bytes + more.get("pool", 0)))
            self.pool = Memory(pool_fd, plan.pool_bytes, writable=True)
            self.inherited[layout.FD_POOL] = pool_fd
        self.relay.write(layout.AT_HEADER, pack(layout.RELAY_HEADER, self.header()))
        if plan.sealed:
            self._seal()
        self.bell: socket.socket | None = None
        self.rung_at_bell = False  # by the worker too, in the eventfd's place
        if plan.bell:
            self.bell, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            self.inherited[layout.FD_WAKE_WORKER] = keep(theirs.detach())
        self.wake_relay = keep(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        self.inherited[layout.FD_WAKE_RELAY] = self.wake_relay
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if plan.channel:
            self.inherited[layout.FD_CHANNEL] = keep(theirs.detach())
        else:
            theirs.close()

    def header(self) -> dict[str, int | bytes]:
        """What the relay side's header says: the truth, and then the plan's lies."""
        plan, parts = self.plan, self.parts
        return {
            "magic": layout.RELAY_MAGIC,
            "version": layout.LAYOUT_VERSION,
            "slots": plan.slots,
            "digest": layout.LAYOUT_DIGEST,
            "nonce": self.nonce,
            "features": plan.features,
            "pool_bytes": plan.pool_bytes,
            "result_bytes": plan.result_bytes,
            "result_block_bytes": plan.result_block_bytes,
            "result_blocks": self.blocks,
            "worker_id": plan.worker_id,
            **{f.name: getattr(parts, f.name) for f in _PLACES},
            **plan.lies,
        }

    def _seal(self) -> None:
        seal(self.inherited[layout.FD_RELAY_SIDE], SEAL_FUTURE_WRITE | SIZE_SEALS)
        seal(self.inherited[layout.FD_WORKER_SIDE], SIZE_SEALS)
        if layout.FD_POOL in self.inherited:
            seal(self.inherited[layout.FD_POOL], SEAL_FUTURE_WRITE | SIZE_SEALS)

    def handed_over(self) -> None:
        """The worker has its copies: close what is only its own, so that its death is seen."""
        for number in (layout.FD_WAKE_WORKER, layout.FD_CHANNEL):
            if number in self.inherited:
                self._descriptors.close(self.inherited.pop(number))

    def close(self) -> None:
        for memory in (self.relay, self.worker, self.pool):
            if memory is not None:
                memory.close()
        if self.bell is not None:
            self.bell.close()
        self.channel.close()
        self._descriptors.__exit__(None, None, None)


_PLACES = tuple(f for f in layout.RELAY_HEADER.fields if f.name in Parts.__dataclass_fields__)
