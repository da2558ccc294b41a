"""A bridge with one family of a worker, and a BEAM that calls it: who is there, and what is left.

What is looked at from outside only: processes by the kernel's own list of children, shared memory
by the inodes of its memfds, the bridge's descriptors by their number.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from integration.cluster import ROOT, Cluster, Driver, full

PARTIES = ("beam", "bridge", "shepherd", "init", "worker", "child", "daemon")
BRIDGE_SIDE = PARTIES[1:]
# All of these end together, whichever of them is killed.
TREE = ("shepherd", "init", "worker", "child", "daemon")
LARGE_BYTES = 32 << 20
# What calls itself so, below an init (family.c).
FAMILY = {"rb-family": "worker", "rb-holds": "worker", "rb-said": "worker", "rb-daemon": "daemon"}
# Long enough for a busy machine; what takes long is told, and not failed (docs/failure-matrix.md).
PATIENCE_S = 20.0

SETTINGS = """
[node]
drain_ms = 2_000

[roles.family]
command = ["{family}"]
payload_bytes_max = 67_108_864
max_restarts = 10_000
backoff_min_ms = 1
backoff_max_ms = 20
"""


@dataclass
class Left:
    """What is to be gone when something has died: processes, and the memory that they shared."""

    processes: set[tuple[int, int]] = field(default_factory=set)  # pid, start
    memory: set[int] = field(default_factory=set)  # inodes of memfds

    def remains(self) -> str | None:
        """In words, what is still there."""
        alive = [pid for pid, start in self.processes if start_of(pid) == start]
        if alive:
            return f"processes {alive}"
        holders = [pid for pid in pids() if memfds(pid) & self.memory]
        return f"shared memory, held by {holders}" if holders else None


class Scene:
    """The parties. Whoever is not there is started by `complete`."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._config = cluster.config("chaos", SETTINGS.format(family=build_family(cluster)))
        self._bridge: subprocess.Popen[str] | None = None
        self._beam: subprocess.Popen[str] | None = None
        self._caller: Driver | None = None
        self._tags = 0
        self._bridges = 0

    # ---- who is there

    def complete(self) -> None:
        """Everybody is there, and a job is answered."""
        if self._bridge is None or self._bridge.poll() is not None:
            self._bridges += 1
            self.node = f"chaos{self._bridges}"
            self._bridge = self._cluster.start_bridge(self.node, self._config)
            self._restart_caller()
        if self._beam is None or self._beam.poll() is not None:
            self._restart_caller()
        until(lambda: self.once("hello") == "ok 5", "a job is not answered")
        if not {"child", "daemon"} <= set(self.pids()):  # nobody else would bring them back
            self.signal("worker", signal.SIGKILL)
        until(lambda: set(self.pids()) == set(PARTIES), "the family is not complete")
        until(lambda: self.once("hello") == "ok 5", "a job is not answered")

    def _restart_caller(self) -> None:
        if self._beam is not None and self._beam.poll() is None:
            self._beam.kill()
            self._beam.wait()
        script = str(ROOT / "integration" / "chaos" / "caller.exs")
        name = f"caller{self._bridges}x{self._tags}"
        flags = f"-name {full(name)} -kernel inet_dist_use_interface {{127,0,0,1}}"
        self._beam = self._cluster.spawn(
            ["elixir", "--erl", flags, script, full(self.node)], log="caller", pipes=True
        )
        self._caller = Driver(self._beam, lambda: self._cluster.tail("caller"))
        assert self._caller.expect() == "ready"

    def pids(self) -> dict[str, int]:
        """Every party that is alive now."""
        found: dict[str, int] = {}
        if self._beam is not None and self._beam.poll() is None:
            found["beam"] = self._beam.pid
        if self._bridge is None or self._bridge.poll() is not None:
            return found
        found["bridge"] = self._bridge.pid
        for shepherd in children(self._bridge.pid):
            if name_of(shepherd) != "ringbridge-shep":
                continue
            found["shepherd"] = shepherd
            for init in children(shepherd):
                found["init"] = init
                found |= {
                    FAMILY[name]: pid for pid in children(init) if (name := name_of(pid)) in FAMILY
                }
            for pid in children(found.get("worker", 0)):
                found["child"] = pid
        return found

    def descriptors(self) -> int:
        """Of the bridge."""
        assert self._bridge is not None
        return len(os.listdir(f"/proc/{self._bridge.pid}/fd"))

    def last_words(self) -> str:
        """Of the bridge and the BEAM, as the end of an error message."""
        return self._cluster.tail(self.node) + self._cluster.tail("caller")

    # ---- what is asked

    def once(self, payload: str) -> str:
        assert self._caller is not None
        return self._caller.ask(f"once {payload}")

    def call(self, payload: str) -> str:
        """Begin a call; the tag by which its result is asked for."""
        assert self._caller is not None
        self._tags += 1
        self._caller.ask(f"call t{self._tags} {payload}")
        return f"t{self._tags}"

    def result(self, tag: str) -> str:
        assert self._caller is not None
        return self._caller.ask(f"result {tag} {round(PATIENCE_S * 1000)}")

    def wait_for(self, figure: str, value: int) -> None:
        """A figure that caller.exs asks for."""
        assert self._caller is not None
        caller = self._caller
        until(lambda: int(caller.ask(figure)) == value, f"{figure} is not {value}")

    def wait_for_worker(self, name: str) -> None:
        """What it calls itself tells where it is (family.c)."""
        until(lambda: name_of(self.pids().get("worker", 0)) == name, f"the worker is not {name}")

    # ---- what is done to them

    def signal(self, party: str, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        pid = self.pids().get(party)
        if pid is not None:
            signal_to(pid, number)

    def doomed(self, victims: set[str]) -> Left:
        """What is to be gone once these have been killed."""
        who = self.pids()
        gone = {"beam"} & victims
        if "bridge" in victims:
            gone |= set(BRIDGE_SIDE)
        elif victims & {"shepherd", "init", "worker"}:
            gone |= set(TREE)
        else:
            gone |= victims & {"child", "daemon"}
        left = Left({(pid, start_of(pid)) for name, pid in who.items() if name in gone})
        if "worker" in gone:  # its link's two sides; the role's pool stays with the bridge
            left.memory = memfds(who["worker"])
            if "bridge" not in victims:
                left.memory -= self._pool(who)
        return left

    def _pool(self, who: dict[str, int]) -> set[int]:
        """Descriptor 5 of a worker (csrc/layout.toml)."""
        return {Path(f"/proc/{who['worker']}/fd/5").stat().st_ino}


# ---- what the kernel tells


def pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def start_of(pid: int) -> int:
    """When it began, in ticks since boot: 0 when it is not there, or is a zombie. One whose first
    thread is a zombie and others are not has still its memory, and cannot be waited for.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        if fields[0] == "Z" and len(os.listdir(f"/proc/{pid}/task")) == 1:
            return 0
    except OSError:
        return 0
    return int(fields[19])


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def children(pid: int) -> list[int]:
    found: list[int] = []
    for task in listed(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError):  # the thread has ended
            found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    return [child for child in found if start_of(child)]


def listed(directory: str) -> list[str]:
    """Nothing, where it is gone: a process may end between any two looks at it."""
    try:
        return os.listdir(directory)
    except OSError:
        return []


def memfds(pid: int) -> set[int]:
    """Inodes of all memfds that it holds or maps."""
    found = set()
    with contextlib.suppress(OSError):  # it has ended, or is another user's
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            if "/memfd:" in line:
                found.add(int(line.split()[4]))
    for fd in listed(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):  # closed meanwhile; the others still hold what they hold
            if os.readlink(f"/proc/{pid}/fd/{fd}").startswith("/memfd:"):
                found.add(os.stat(f"/proc/{pid}/fd/{fd}").st_ino)
    return found


def signal_to(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def until(condition: Callable[[], object], what: str, within_s: float = PATIENCE_S) -> float:
    """Look every few ms; how long it took, in seconds."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() > began + within_s:
            raise AssertionError(f"{what} after {within_s:g} s")
        time.sleep(0.003)
    return time.monotonic() - began


def build_family(cluster: Cluster) -> Path:
    made = cluster.directory / "rb-family"
    if not made.exists():
        subprocess.run(
            [
                *("cc", "-std=gnu99", "-O1", "-D_GNU_SOURCE", f"-I{ROOT}/workers/c/include"),
                *("-o", str(made), str(ROOT / "integration" / "chaos" / "family.c")),
                *(str(ROOT / "build" / "libringbridge-worker.a"), "-pthread"),
            ],
            check=True,
        )
    return made
