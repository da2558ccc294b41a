"""How a slot of a remote worker comes to life, and who stands for its process here."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

import structlog
import trio

from bridge.fabric import layout
from bridge.fabric.proxy import Proxy
from bridge.fabric.relay import LinkConfig, LinkFds
from bridge.workers import handshake_driver
from bridge.workers.handshake_driver import RolePlan, Started
from bridge.workers.remote.linked import LinkedSlot, Offers, copies_of
from bridge.workers.remote.slot import Desk, Slot


class Links(handshake_driver.Links, Protocol):
    """The relay, as far as it is needed here."""

    def unguarded_worker(self, worker_id: int) -> None: ...


class RemoteGuard:
    """In place of a shepherd: there is no process here that it could end."""

    pid = None

    def __init__(self, desk: Desk, slot: Slot | LinkedSlot) -> None:
        self._desk = desk
        self._slot = slot

    async def stop(self, grace_s: float | None = None) -> None:
        """Its life is to end though the worker goes on: the whole registration ends with it, as
        nobody else can end what the worker does there.
        """
        self._desk.stopped_by(self._slot)

    async def used(self) -> None:
        """Nobody here has counted."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self._slot.die(-1, 9, "the bridge has let go of it")
        await self._slot.over.wait()


class RemoteDriver:
    """Brings a slot to life: link, greeting, task; in place of a HandshakeDriver."""

    def __init__(
        self,
        relay: Links,
        desk: Desk,
        index: int,
        *,
        link: LinkConfig,
        offers: Offers | None,
        begin: Callable[[Callable[[], Awaitable[None]]], None],
    ) -> None:
        self.link = link
        self._relay = relay
        self._desk = desk
        self._index = index
        self._offers = offers
        self._begin = begin

    async def start(self, worker_id: int, plan: RolePlan) -> Started:
        """As HandshakeDriver.start. Raises OSError with nothing left behind; the registration is
        over then.
        """
        if self._desk.over:
            raise OSError("its process has gone")
        try:
            slot = self._make_slot(worker_id, plan)
        except Exception as error:
            if not isinstance(error, OSError):  # a bug of ours: what it said was checked
                log = structlog.get_logger("ringbridge.remote")
                log.exception("a slot could not be started", role=plan.name)
            self._desk.slot_failed(f"one of its slots could not be started: {error}")
            raise OSError(str(error)) from error
        self._desk.slot_started(slot)
        self._begin(slot.run)
        return Started(RemoteGuard(self._desk, slot), None)

    def _make_slot(self, worker_id: int, plan: RolePlan) -> Slot | LinkedSlot:
        offers = self._offers if self._desk.may_link(self._index) else None
        fds = self._relay.create_link(plan.id, worker_id, self.link)
        with contextlib.ExitStack() as undo:
            undo.callback(self._relay.drop_link, worker_id)
            # Offered, it is greeted by who gets it. Not `if offers`: false while none is out.
            played = offers is None
            end = self._played(fds, plan.name, undo) if played else copies_of(fds, undo)
            obituary, obituary_end = _pipe(undo)
            stderr, stderr_end = _pipe(undo)
            os.set_blocking(stderr_end, False)
            self._relay.add_worker(
                worker_id, pidfd=-1, obituary_fd=obituary, stdout_fd=-1, stderr_fd=stderr
            )
            undo.pop_all()
        if isinstance(end, Proxy):
            return Slot(self._desk, self._index, end, obituary_end, stderr_end)
        assert offers is not None
        return LinkedSlot(
            self._desk,
            self._index,
            worker_id,
            end,
            obituary_end,
            stderr_end,
            offers=offers,
            patience_s=plan.config.start_ms / 2000,
            fetched=partial(self._relay.unguarded_worker, worker_id),
            greet=partial(self._greet, plan.name),
        )

    def _played(self, fds: LinkFds, role: str, undo: contextlib.ExitStack) -> Proxy:
        proxy = Proxy(fds)
        undo.callback(proxy.close)
        self._greet(role, proxy)
        return proxy

    def _greet(self, role: str, proxy: Proxy) -> None:
        hello = self._desk.hello
        proxy.greet(hello.kit, hello.kit_version, role, hello.operations)


def same_layout(version: int, digest: bytes) -> bool:
    """Does a VM know links as the bridge does? Then it is offered one; else it is not tried."""
    return version == layout.LAYOUT_VERSION and digest == layout.LAYOUT_DIGEST


def _pipe(undo: contextlib.ExitStack) -> tuple[int, int]:
    read, write = os.pipe2(os.O_CLOEXEC)
    undo.callback(os.close, read)
    undo.callback(os.close, write)
    return read, write
