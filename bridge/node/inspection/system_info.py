"""`erlang:system_info/1` of a node that is no BEAM: what it is, what it has, and what bounds it.

* `otp_release` is "27" (decision 0015): peers ask it to know what they may send and what they must
  work around. 27 is the first release without a fault that others work around, and whatever tools
  of 27 ask is answered here.
* `version`, where a BEAM has that of its ERTS, is the bridge's; `machine` and `system_version` say
  that this is Python.
* A limit is the real bound where there is one. There is none for atoms, which are not kept.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable
from typing import Any

from bridge import __version__
from bridge.etf import Atom, charlist
from bridge.node.inspection import facts
from bridge.node.inspection.figures import Figures
from bridge.node.inspection.process_info import WORD_BYTES
from bridge.node.inspection.seen import UNDEFINED, Processes

Term = Any
OTP_RELEASE = "27"
# Ids of pids are counted in 28 bits before they carry into the serial (bridge.node.signals.ids).
PROCESSES_MAX = 1 << 28
# What a BEAM would start with; nothing here fills up, so it only keeps divisions by it harmless.
ATOMS_MAX = 1 << 20
# Signals that wait for one connection before the relay closes it are bounded in bytes, not blocked.
_NO_LIMIT = UNDEFINED


class SystemInfo:
    """Answers one item at a time; `creation` is the node's."""

    def __init__(self, processes: Processes, figures: Figures, *, creation: int) -> None:
        self._processes = processes
        self._figures = figures
        self._creation = creation
        self._readers: dict[Atom, Callable[[], Term]] = {
            Atom(name): read for name, read in self._table().items()
        }

    def get(self, item: Term) -> Term:
        """The value of `erlang:system_info(Item)`. Raises KeyError for what is not answered."""
        match item:
            case Atom():
                return self._readers[item]()
            case (Atom("wordsize"), Atom("internal" | "external")):
                return WORD_BYTES
            case (Atom("allocator_sizes"), list(names)):
                return [(name, self._instances(name)) for name in names]
            case (Atom("allocator_sizes"), Atom() as name):
                return self._instances(name)
            case _:
                raise KeyError(item)

    def banner(self) -> str:
        return (
            f"Ringbridge {__version__} [Python {platform.python_version()}] "
            "[hidden node, no Erlang/OTP]"
        )

    def _table(self) -> dict[str, Callable[[], Term]]:
        return {
            # what it is
            "otp_release": lambda: charlist(OTP_RELEASE),
            "version": lambda: charlist(__version__),
            "system_version": lambda: charlist(self.banner() + "\n"),
            "system_architecture": lambda: charlist(architecture()),
            "machine": lambda: charlist("Python"),
            "emu_flavor": lambda: Atom(sys.implementation.name),
            "emu_type": lambda: Atom("opt"),
            "build_type": lambda: Atom("opt"),
            "creation": lambda: self._creation,
            "endian": lambda: Atom(sys.byteorder),
            "wordsize": lambda: WORD_BYTES,
            "compat_rel": lambda: int(OTP_RELEASE),
            "start_time": lambda: time.monotonic_ns() - self._figures.uptime_ms() * 1_000_000,
            "time_offset": lambda: Atom("volatile"),
            "time_correction": lambda: True,
            "time_warp_mode": lambda: Atom("no_time_warp"),
            "taints": list,
            # processors and threads
            "logical_processors": lambda: facts.processors()[0],
            "logical_processors_online": lambda: facts.processors()[0],
            "logical_processors_available": lambda: facts.processors()[1],
            "schedulers": self._figures.schedulers,
            "schedulers_online": self._figures.schedulers,
            "scheduler_id": lambda: 1,
            "dirty_cpu_schedulers": lambda: 0,
            "dirty_cpu_schedulers_online": lambda: 0,
            "dirty_io_schedulers": lambda: 0,
            "multi_scheduling": lambda: Atom("enabled"),
            "smp_support": lambda: True,
            "threads": lambda: True,
            "thread_pool_size": lambda: 0,
            "kernel_poll": lambda: True,  # trio and the relay wait in epoll
            # counts and bounds
            "process_count": lambda: len(self._processes),
            "process_limit": lambda: PROCESSES_MAX,
            "port_count": lambda: 0,
            "port_limit": facts.descriptors_max,
            "atom_count": lambda: 0,
            "atom_limit": lambda: ATOMS_MAX,
            "ets_count": lambda: 0,
            "ets_limit": lambda: UNDEFINED,
            "dist_buf_busy_limit": lambda: _NO_LIMIT,
            "dist_ctrl": list,
            # memory
            "alloc_util_allocators": lambda: [Atom(a.name) for a in self._figures.allocators()],
        }

    def _instances(self, name: Term) -> Term:
        """As since OTP 23: [{instance, 0, [{mbcs, [{blocks, ...}, {carriers_size, ...}]}]}]."""
        for allocator in self._figures.allocators():
            if Atom(allocator.name) == name:
                blocks = [(name, [(Atom("size"), *[allocator.blocks] * 3)])]
                carriers = (Atom("carriers_size"), *[allocator.carriers] * 3)
                sizes = [(Atom("mbcs"), [(Atom("blocks"), blocks), carriers])]
                return [(Atom("instance"), 0, sizes)]
        return False


def architecture() -> str:
    """As `x86_64-linux`: machine and system."""
    return f"{platform.machine()}-{platform.system().lower()}"
