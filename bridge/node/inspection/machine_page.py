"""The pages of LiveDashboard that show the machine and the sockets: figures of the kernel."""

from __future__ import annotations

from typing import Any

from bridge.etf import Atom, charlist
from bridge.node.exports import Exports
from bridge.node.inspection import facts
from bridge.node.inspection.modules import SYSTEM_INFO

Term = Any
ERROR = Atom("error")
_LOAD_SCALE = 256  # of cpu_sup:avg1/0 and its like


def publish(exports: Exports) -> None:
    processors = Processors()

    @exports.function(SYSTEM_INFO)
    def os_mon_callback() -> Term:
        one, five, fifteen = (round(load * _LOAD_SCALE) for load in facts.load_averages())
        return {
            Atom("cpu_avg1"): one,
            Atom("cpu_avg5"): five,
            Atom("cpu_avg15"): fifteen,
            Atom("cpu_nprocs"): facts.os_processes(),
            Atom("cpu_per_core"): processors.since_last_time(),
            Atom("disk"): [
                (charlist(place), size // 1024, percent) for place, size, percent in facts.disks()
            ],
            Atom("system_mem"): machine_memory(),
        }

    @exports.function(SYSTEM_INFO)
    def sockets_callback(search: Term, sort_by: Term, sort_dir: Term, limit: Term) -> Term:
        return ([], 0)

    @exports.function(SYSTEM_INFO)
    def socket_info_callback(port: Term) -> Term:
        return ERROR


class Processors:
    """What each processor did since the last question, in percent, as `cpu_sup:util` tells it."""

    def __init__(self) -> None:
        self._last: dict[int, dict[str, int]] = {}

    def since_last_time(self) -> list[Term]:
        now = facts.processor_times()
        shown = []
        for number, ticks in now.items():
            before = self._last.get(number, {})
            spent = {kind: ticks[kind] - before.get(kind, 0) for kind in ticks}
            total = sum(spent.values()) or 1
            parts = {Atom(kind): 100.0 * part / total for kind, part in spent.items()}
            shown.append((number, parts))
        self._last = now
        return shown


def machine_memory() -> list[tuple[Atom, int]]:
    """As `memsup:get_system_memory_data/0`."""
    memory = facts.machine_memory()
    return [
        (Atom("system_total_memory"), memory["MemTotal"]),
        (Atom("total_memory"), memory["MemTotal"]),
        (Atom("free_memory"), memory["MemFree"]),
        (Atom("available_memory"), memory["MemAvailable"]),
        (Atom("buffered_memory"), memory["Buffers"]),
        (Atom("cached_memory"), memory["Cached"]),
        (Atom("total_swap"), memory["SwapTotal"]),
        (Atom("free_swap"), memory["SwapFree"]),
    ]
