"""Does what a plan says, to a bridge on this machine and to the wire towards it.

Hooks of workers go by the WorkerRegistry, which lets admin nodes alone do so, in roles that allow
it. The rest needs no help of the bridge's: signals and limits of processes, as their user or root
may set them, and the proxy that the callers go through.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

import trio

from bridge.chaos.lane import Shape
from bridge.chaos.plan import Cut, DiskFull, Hook, Injection, NoFiles, Signal, Suspend, Wire
from bridge.chaos.proxy import Proxy
from bridge.etf import Atom
from bridge.ops.asking import Asking
from bridge.ops.errors import NoStatus, Refused
from bridge.workers import registry

REGISTRY = registry.NAMES[0]
WORKERS_WITHIN_S = 5.0  # one that was ended a moment ago has a successor by then
HOOK_WITHIN_S = 30.0  # a worker that stalls hears of the next hook when it is done
OFF_WITHIN_S = 3.0
_LOOK_S = 0.01


class Injectors:
    """`operator` reaches the bridge by a wire of its own, without the proxy."""

    def __init__(self, operator: Asking, role: str, bridge_pid: int, proxy: Proxy) -> None:
        self._operator = operator
        self._role = role
        self._bridge_pid = bridge_pid
        self._proxy = proxy
        self._hooked: dict[int, str] = {}

    async def switch_off(self) -> None:
        """No hook that was switched on concerns any further job."""
        while self._hooked:
            worker, hook = self._hooked.popitem()
            # It may have ended, and its hook with it; or stall, and hear of it too late for us.
            with suppress(Refused, NoStatus):
                await self._order(worker, hook, 0, 0, within_s=OFF_WITHIN_S)

    async def inject(self, injection: Injection, began: Callable[[str], None]) -> None:
        """Do it, call `began` with what it was, and undo it when its time is over, also when this
        is cancelled. Raises Refused, NoStatus.
        """
        match injection:
            case Hook():
                await self._hook(injection, began)
            case Signal():
                await self._signal(injection, began)
            case Wire():
                await self._wire(injection, began)
            case Cut():
                began(f"cut {self._proxy.cut()} connections")
            case Suspend():
                await self._suspend(injection, began)
            case NoFiles():
                words = "can open nothing"
                await self._limit(resource.RLIMIT_NOFILE, injection.for_ms, words, began)
            case DiskFull():
                # Python ignores SIGXFSZ: what writes gets EFBIG.
                words = "can write no more into any file"
                await self._limit(resource.RLIMIT_FSIZE, injection.for_ms, words, began)

    async def _listed(self) -> list[dict[str, Any]]:
        """The role's workers as the WorkerRegistry has them now."""
        found = await self._operator.get(REGISTRY, (Atom("lookup"), self._role.encode()))
        listed: list[dict[str, Any]] = found["workers"]
        return listed

    async def _workers(self, count: int, but: Collection[int] = ()) -> list[dict[str, Any]]:
        """So many that are ready, or all that are (0), without those of the ids `but`. Raises
        Refused: there are none such.
        """
        give_up = trio.current_time() + WORKERS_WITHIN_S
        while True:
            ready = [
                each
                for each in await self._listed()
                if each["state"] == "ready" and each["id"] not in but
            ]
            if len(ready) >= max(1, count):
                return ready[: count or None]
            if trio.current_time() > give_up:
                raise Refused(f"{self._role} has {len(ready)} workers that are ready, not {count}")
            await trio.sleep(_LOOK_S)

    async def _hook(self, hook: Hook, began: Callable[[str], None]) -> None:
        ids: list[int] = []
        ended: list[int] = []
        wanted = [worker["id"] for worker in await self._workers(hook.workers)]
        while wanted:
            worker = wanted.pop(0)
            try:
                await self._order(worker, hook.hook, hook.value, hook.jobs)
            except Refused as refused:
                if not await self._has_ended(worker, refused):
                    raise
                # It ended before it heard of this, of an earlier hook perhaps: another one, then.
                ended.append(worker)
                (another,) = await self._workers(1, but=[*ids, *ended, *wanted])
                wanted.append(another["id"])
                continue
            self._hooked[worker] = hook.hook
            ids.append(worker)
        began(f"{hook.hook} {hook.value} for {hook.jobs} jobs in workers {ids}")

    async def _has_ended(self, worker: int, refused: Refused) -> bool:
        """Was the order refused because its worker is no more?"""
        return refused.reason == "down" or all(
            each["id"] != worker for each in await self._listed()
        )

    async def _order(
        self, worker: int, hook: str, value: int, jobs: int, within_s: float = HOOK_WITHIN_S
    ) -> None:
        request = (Atom("chaos"), worker, Atom(hook), value, jobs)
        await self._operator.get(REGISTRY, request, within_s=within_s)

    async def _signal(self, order: Signal, began: Callable[[str], None]) -> None:
        number = signal.Signals[f"SIG{order.signal}"]
        pids = [worker["os_pid"] for worker in await self._workers(order.workers)]
        for pid in pids:
            _send(pid, number)
        began(f"SIG{order.signal} to processes {pids}")
        if number == signal.SIGSTOP:
            try:
                await trio.sleep(order.for_ms / 1000)
            finally:
                for pid in pids:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGCONT)

    async def _wire(self, wire: Wire, began: Callable[[str], None]) -> None:
        self._proxy.shape = wire.shape()
        began(f"{wire.shape()} for {wire.for_ms} ms")
        try:
            await trio.sleep(wire.for_ms / 1000)
        finally:
            self._proxy.shape = Shape()

    async def _suspend(self, suspend: Suspend, began: Callable[[str], None]) -> None:
        # Its shepherds and inits too: whoever goes on alone would take the others for hung.
        everybody = [self._bridge_pid, *descendants(self._bridge_pid)]
        for pid in everybody:
            _send(pid, signal.SIGSTOP)
        began(f"the bridge and {len(everybody) - 1} processes of its own stand still")
        try:
            await trio.sleep(suspend.for_ms / 1000)
        finally:
            for pid in reversed(everybody):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    async def _limit(
        self, what: int, for_ms: int, words: str, began: Callable[[str], None]
    ) -> None:
        """A resource of the bridge's process is 0 for a while."""
        pid = self._bridge_pid
        try:
            soft, hard = resource.prlimit(pid, what)
            resource.prlimit(pid, what, (0, hard))
        except (PermissionError, ProcessLookupError) as error:
            raise Refused(f"the limits of process {pid} cannot be set: {error}") from error
        began(f"process {pid} {words} for {for_ms} ms")
        try:
            await trio.sleep(for_ms / 1000)
        finally:
            with suppress(ProcessLookupError):
                resource.prlimit(pid, what, (soft, hard))


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass  # it has ended by itself meanwhile
    except PermissionError as error:
        raise Refused(f"process {pid} is another user's") from error


def descendants(pid: int) -> list[int]:
    """All processes below `pid`, by the kernel's own list of children (proc(5))."""
    found: list[int] = []
    tasks: list[str] = []
    with suppress(OSError):  # the process has ended; it may at any time, so nothing is asked before
        tasks = os.listdir(f"/proc/{pid}/task")
    for task in tasks:
        with suppress(OSError):  # the thread has ended
            for child in map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split()):
                found += [child, *descendants(child)]
    return found
