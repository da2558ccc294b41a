"""What the kernel knows of a process and of the machine, read from /proc: the figures behind every
answer about memory, time and load.

Each reader opens one small file and returns plain numbers; a file or a line that is not there (an
older kernel, a process that has ended) reads as zero or None, never as an error. Bytes and
nanoseconds throughout. Source: proc(5).
"""

from __future__ import annotations

import ctypes
import os
import resource
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
_KIB = 1024
# The relay names its thread so (csrc/relay/relay.c).
RELAY_THREAD = "rb-relay"


@dataclass(frozen=True, slots=True)
class Resident:
    """Resident memory in bytes, by what is behind it. `total` is their sum, the RSS."""

    anonymous: int = 0  # heaps and stacks
    files: int = 0  # programs and libraries
    shared: int = 0  # memfds: rings and payload pools

    @property
    def total(self) -> int:
        return self.anonymous + self.files + self.shared

    @property
    def own(self) -> int:
        """Without what it shares with others by memfd."""
        return self.anonymous + self.files


@dataclass(frozen=True, slots=True)
class ThreadTime:
    """How long one thread of this process has been on a processor."""

    name: str
    on_cpu_ns: int


def parse_resident(status: str) -> Resident:
    """The resident parts in the text of /proc/PID/status; zero where a line is missing."""
    fields = _kib_fields(status, ("RssAnon", "RssFile", "RssShmem"))
    return Resident(fields["RssAnon"], fields["RssFile"], fields["RssShmem"])


def resident(os_pid: int | None = None, *, proc: Path = PROC) -> Resident:
    """The memory of a process, by default this one; zeros for one that has ended."""
    return parse_resident(_read(proc / ("self" if os_pid is None else str(os_pid)) / "status"))


def threads(*, proc: Path = PROC) -> list[ThreadTime]:
    """The two threads that do the node's work: the interpreter's first one, and the relay's if it
    runs.
    """
    found = []
    first = str(os.getpid())
    for task in _names(proc / "self" / "task"):
        name = _read(proc / "self" / "task" / task / "comm").strip()
        if task == first or name == RELAY_THREAD:
            spent, *_ = _read(proc / "self" / "task" / task / "schedstat").split() or ["0"]
            found.append(ThreadTime("interpreter" if task == first else name, int(spent)))
    return sorted(found, key=lambda thread: thread.name == RELAY_THREAD)


def cpu_time_ms() -> int:
    """What all threads of this process together have spent on processors."""
    return time.process_time_ns() // 1_000_000


def processors() -> tuple[int, int]:
    """How many processors are online, and how many of them this process may use."""
    return os.cpu_count() or 1, len(os.sched_getaffinity(0))


def descriptors_max() -> int:
    """How many descriptors this process may have open: what bounds connections and workers."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 2**31 - 1


def machine_memory(*, proc: Path = PROC) -> dict[str, int]:
    """Fields of /proc/meminfo, in bytes, under their own names."""
    names = (
        "MemTotal",
        "MemFree",
        "MemAvailable",
        "Buffers",
        "Cached",
        "SwapTotal",
        "SwapFree",
    )
    return _kib_fields(_read(proc / "meminfo"), names)


def load_averages() -> tuple[float, float, float]:
    """Of one, five and fifteen minutes."""
    try:
        return os.getloadavg()
    except OSError:
        return (0.0, 0.0, 0.0)


def os_processes(*, proc: Path = PROC) -> int:
    """How many threads of all processes of the machine there are (proc(5), loadavg)."""
    fields = _read(proc / "loadavg").split()
    return int(fields[3].partition("/")[2]) if len(fields) > 3 else 0


def processor_times(*, proc: Path = PROC) -> dict[int, dict[str, int]]:
    """For each processor, how many clock ticks it has spent how, since the machine started."""
    kinds = ("user", "nice", "kernel", "idle", "wait", "hard_irq", "soft_irq", "steal")
    found = {}
    for line in _read(proc / "stat").splitlines():
        name, *ticks = line.split() or [""]
        if name.startswith("cpu") and name != "cpu":
            found[int(name[3:])] = dict(zip(kinds, map(int, ticks), strict=False))
    return found


def disks(*, proc: Path = PROC) -> list[tuple[str, int, int]]:
    """Mount points of block devices: their place, size in bytes and percent used, as df says."""
    found = {}
    for line in _read(proc / "self" / "mounts").splitlines():
        device, place, *_ = line.split()
        if not device.startswith("/dev/") or device in found:
            continue
        place = place.encode().decode("unicode_escape", "replace")
        try:
            figures = os.statvfs(place)
        except OSError:
            continue
        used = figures.f_blocks - figures.f_bfree
        usable = used + figures.f_bavail
        percent = -(-100 * used // usable) if usable else 0
        found[device] = (place, figures.f_blocks * figures.f_frsize, percent)
    return sorted(found.values())


def _kib_fields(text: str, names: Iterable[str]) -> dict[str, int]:
    found = dict.fromkeys(names, 0)
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name in found:
            found[name] = int(value.split()[0]) * _KIB
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _names(path: Path) -> list[str]:
    try:
        return sorted(os.listdir(path), key=int)
    except OSError:
        return []


class _Mallinfo2(ctypes.Structure):
    """struct mallinfo2 of glibc 2.33: mallinfo(3)."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    )


def malloc() -> tuple[int, int]:
    """Bytes in use and bytes taken from the system by the C library's malloc; zeros for a library
    that does not tell (musl).
    """
    try:
        ask = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return (0, 0)
    ask.restype = _Mallinfo2
    told = ask()
    return (told.uordblks + told.hblkhd, told.arena + told.hblkhd)
