"""Where control groups for workers can be made, and the end of those that nobody guards any more.

The shepherd makes a worker's groups and removes them (csrc/shepherd/group.c). Two kinds of place:

memory  a directory whose groups have a limit of memory. Version 1: our own group of the memory
        hierarchy. Version 2: our own group, if its groups have the memory controller; or its
        parent, if that was delegated to us as a whole (systemd: Delegate=yes with
        DelegateSubgroup=; cgroup v2 lets processes live only where no controller is handed on).
kill    one of version 2, whose groups have cgroup.kill.

A group is named after its shepherd and the PID namespace that this is a pid of, and its shepherd
holds a lock on it (flock(2)). So whoever comes later can tell which groups nobody guards any more,
and end what is left in them. The lock alone is no proof: who may read the directory may lock it, a
daemon in the group too. So who holds it is looked at: it must be the process that the group is
named after, and stand outside.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import structlog

PREFIX = "ringbridge"
REMOVE_TRIES = 200  # of a millisecond each: what was killed is on its way out
_DELEGATED = ("trusted.delegate", "user.delegate")  # systemd's mark on a group that is ours


@dataclass(frozen=True, slots=True)
class Places:
    """Directories in which groups can be made; of version 2 one directory may serve for both."""

    memory: Path | None = None
    kill: Path | None = None

    def __iter__(self) -> Iterator[Path]:
        return iter(dict.fromkeys(p for p in (self.memory, self.kill) if p is not None))

    def wanted(self, *, memory: bool) -> Places:
        """Those for one worker, each once: a group with a limit of memory can be killed, too."""
        if not memory:
            return Places(kill=self.kill)
        return Places(self.memory, None if self.kill == self.memory else self.kill)


def find(proc: Path = Path("/proc/self")) -> Places:
    """The places of this process. Never raises: where nothing can be made there is none."""
    try:
        own = dict(_own_groups(proc))
    except (OSError, ValueError):
        return Places()
    unified, memory = own.get("cgroup2"), own.get("memory")
    if unified is not None:
        for place in (unified, unified.parent):
            if (place == unified or _delegated(place)) and _hands_on_memory(place):
                return Places(memory=place, kill=place)
    return Places(
        memory=memory if memory is not None and _may_make(memory) else None,
        kill=unified if unified is not None and _may_make(unified) else None,
    )


@cache
def places() -> Places:
    """The places of this process, found once, and swept then."""
    found = find()
    if ended := sweep(found):
        structlog.get_logger("ringbridge.shepherd").warning(
            "what a killed bridge and its killed guards had left was ended",
            groups=ended,
        )
    return found


def name_of(shepherd_pid: int) -> str:
    return f"{PREFIX}-{_pid_namespace()}-{shepherd_pid}"


def are_left(places: Places, shepherd_pid: int) -> bool:
    return any((place / name_of(shepherd_pid)).exists() for place in places)


def end(places: Places, shepherd_pid: int) -> None:
    """Kill what is left in the groups of a shepherd that is gone, and remove them. Blocks for as
    long as the kernel takes over it, 0.2 s at most.
    """
    for place in places:
        _end(place / name_of(shepherd_pid))


def sweep(places: Places) -> list[str]:
    """The same with every group in `places` that nobody guards any more: a bridge and its guards
    were killed at one moment. Returns the names of those in which something still lived.
    """
    ended = []
    for place in places:
        with suppress(OSError):
            for name in os.listdir(place):
                group = place / name
                if not name.startswith(f"{PREFIX}-"):
                    continue
                with _unguarded(group) as abandoned:
                    if abandoned and (group / "cgroup.procs").read_text():
                        ended.append(name)
                    if abandoned:
                        _end(group)
    return ended


def _end(group: Path) -> None:
    with suppress(OSError):
        (group / "cgroup.kill").write_text("1")
    for _ in range(REMOVE_TRIES):
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.001)
        else:
            return


@contextmanager
def _unguarded(group: Path) -> Iterator[bool]:
    """Whether nobody guards it; then we do, meanwhile, so that a shepherd that has just made it
    waits for its end, and makes it once more. (Where a stranger holds the lock it waits for that
    one, and finds the group gone, too.)
    """
    try:
        fd = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield False  # removed meanwhile, or another user's
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield not _held_by_its_shepherd(group, fd)
        else:
            yield True
    finally:
        os.close(fd)


def _held_by_its_shepherd(group: Path, fd: int) -> bool:
    """Who holds the lock on `group`, which is open as `fd`? True also where that cannot be seen."""
    namespace, _, pid = group.name.removeprefix(f"{PREFIX}-").partition("-")
    about = os.fstat(fd)
    # Pids of another namespace, or a /proc of one, are not those that we see; nor need those be
    # that are another user's.
    ours = namespace == str(_pid_namespace()) and about.st_uid == os.geteuid()
    if not ours or os.readlink("/proc/self") != str(os.getpid()):
        return True
    proc = Path("/proc") / pid
    try:
        if f"/{group.name}" in (proc / "cgroup").read_text():
            return False  # one in the group that was given the dead shepherd's number
        return any(_locks(info, about.st_ino) for info in (proc / "fdinfo").iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return False  # it has ended, or is ending
    except OSError:
        return True


def _locks(info: Path, inode: int) -> bool:
    """Does this descriptor hold a lock of flock(2) on the inode? proc(5), /proc/pid/fdinfo."""
    try:
        lines = info.read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):  # closed meanwhile
        return False
    return any(
        line.startswith("lock:") and " FLOCK " in line and f":{inode} " in line for line in lines
    )


def _pid_namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


def _own_groups(proc: Path) -> Iterator[tuple[str, Path]]:
    """("cgroup2", our group) and ("memory", our group), as far as they are mounted."""
    paths: dict[str, str] = {}
    for line in (proc / "cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for name in controllers.split(",") if controllers else ("cgroup2",):
            paths[name] = path
    for line in (proc / "mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        root, point = (_unescaped(field) for field in before.split()[3:5])
        kind, _, options = after.split()[:3]
        controller = "memory" if kind == "cgroup" and "memory" in options.split(",") else kind
        if controller in ("memory", "cgroup2") and controller in paths:
            inside = os.path.relpath(paths[controller], root)
            if not inside.startswith(".."):
                yield controller, Path(point) / inside


def _unescaped(field: str) -> str:
    """A path as proc(5) writes it: a space is \\040."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _may_make(group: Path) -> bool:
    """Groups may be made here and processes of ours moved there."""
    return os.access(group, os.W_OK) and os.access(group / "cgroup.procs", os.W_OK)


def _hands_on_memory(group: Path) -> bool:
    """Do the groups in this one (version 2) have the memory controller, or can they be given it?"""
    if not _may_make(group):
        return False
    control = group / "cgroup.subtree_control"
    try:
        if "memory" in control.read_text().split():
            return True
        if "memory" not in (group / "cgroup.controllers").read_text().split():
            return False
        control.write_text("+memory")  # EBUSY where processes live in it
    except OSError:
        return False
    return True


def _delegated(group: Path) -> bool:
    for attribute in _DELEGATED:
        with suppress(OSError):
            if os.getxattr(group, attribute) == b"1":
                return True
    return False
