"""How the battery waits for the worker and wakes it (the labels are those of ringbridge/gate.h).

Each side announces that it waits in its own park word (sequence << 2 | way) and looks again; who
publishes looks there and rings once a parking: bumps its doorbell and wakes in the announced way.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Callable
from typing import TypeVar

from bridge.fabric import layout
from workers.conformance.link import Link
from workers.conformance.memory import fence, futex_wait, futex_wake
from workers.conformance.process import Worker

T = TypeVar("T")
WAY, PARKED_SEQUENCE = 3, 4


class Gate:
    """Both halves of the bridge's side: `ring` wakes the worker, `wait` waits for it."""

    def __init__(self, link: Link, worker: Worker) -> None:
        ours, theirs = layout.RELAY_POSITIONS, layout.WORKER_POSITIONS
        base = layout.AT_POSITIONS
        self._worker = worker
        self._link = link
        self._bell = link.bell
        self._eventfd = link.wake_relay
        self.our_park = link.relay.word(base + ours.at("park"), 32)
        self.our_doorbell = link.relay.word(base + ours.at("doorbell"), 32)
        self.their_park = link.worker.word(base + theirs.at("park"), 32)
        self.their_doorbell = link.worker.word(base + theirs.at("doorbell"), 32)
        self._woken = 0
        self._sequence = 0
        self.wakes = 0  # system calls spent on the worker

    # --- waking the worker -----------------------------------------------------------------------

    def ring(self) -> int:
        """To be called after what it waits for was stored (G0). Returns the way, 0: it is awake."""
        fence()  # G0 before G1
        park = self.their_park.load()  # G1
        if park & WAY == layout.PARK_AWAKE or park == self._woken:
            return 0
        self._woken = park
        self.ring_anyhow(park & WAY)
        return park & WAY

    def ring_anyhow(self, way: int) -> None:
        """Ring, whether the worker is parked or not."""
        self.our_doorbell.store(self.our_doorbell.load() + 1)  # G2
        self.wakes += 1
        if way == layout.PARK_FUTEX:
            futex_wake(self.our_doorbell)
        elif way == layout.PARK_EVENTFD and self._bell is not None:
            # A full socket is a bell that still rings; one without its other end rings for nobody.
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                self._bell.send(b"\0", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        elif way == layout.PARK_SIGNAL and not self._worker.has_ended():
            self._worker.signal(layout.WAKE_SIGNAL)

    def parked_way(self) -> int:
        """In which way the worker waits; 0: it does not."""
        return self.their_park.load() & WAY

    # --- waiting for the worker ------------------------------------------------------------------

    def wait(
        self, ready: Callable[[], T], timeout_s: float, way: int = layout.PARK_EVENTFD
    ) -> T | None:
        """The first value of `ready` that is not false; None at the timeout or the worker's end.

        Parks as the bridge does, so a worker that does not ring is found out: what it publishes
        without ringing is not looked at before the timeout.
        """
        until = time.monotonic() + timeout_s
        while True:
            bell = self.their_doorbell.load()  # G3
            self._sequence += 1
            self.our_park.store(self._sequence * PARKED_SEQUENCE | way)  # G4
            fence()
            found = ready()  # G5
            if not found:
                rung = self._sleep(way, bell, until - time.monotonic())
                if rung:
                    found = ready()
            self.our_park.store(self._sequence * PARKED_SEQUENCE)  # G6
            if found:
                return found
            if self._worker.has_ended():
                return ready() or None
            if time.monotonic() >= until:
                return None

    def _sleep(self, way: int, bell: int, timeout_s: float) -> bool:
        """False when nobody rang in time."""
        if timeout_s <= 0:
            return False
        if way == layout.PARK_FUTEX:
            return futex_wait(self.their_doorbell, bell, timeout_s)
        sources: list[int | socket.socket] = [self._eventfd, self._worker.pidfd]
        if self._link.rung_at_bell and self._bell is not None:
            sources.append(self._bell)
        found = select.select(sources, [], [], timeout_s)[0]
        self.rings()
        return bool(found)

    def rings(self) -> int:
        """Takes the rings out of our eventfd, and out of our end of the socket where the worker may
        ring there (a refusal of the link is always rung at the eventfd); how many there were.
        """
        rings = self._rings_at_bell()
        with contextlib.suppress(BlockingIOError):
            rings += os.eventfd_read(self._eventfd)
        return rings

    def _rings_at_bell(self) -> int:
        if not self._link.rung_at_bell or self._bell is None:
            return 0
        try:
            rings = self._bell.recv(4096, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        if not rings:
            self._link.rung_at_bell = False  # it has hung up
        return len(rings)
