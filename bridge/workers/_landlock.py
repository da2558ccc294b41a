"""A Landlock ruleset: which files a worker may read and write, above all not the cluster's cookie.

Landlock grants, it cannot deny: what is not below a granted place is closed (landlock(7)). So to
hide a file everything is granted except along the way to it: of each directory on that way, all
entries but the next step. What follows from it:

- The hidden file cannot be read by any name, nor be linked or renamed to where reading is granted.
- What is *created later* directly in a directory on the way (`/`, the home directory) cannot be
  read by that worker; below the directories that were there it can.
- Writing is another matter: kept from a hidden file in the same way, a worker could make no file
  in the home directory. So it is closed only where its role names the places that it may write.
- A process under a ruleset cannot trace one that is not, so the bridge's memory and environment
  (/proc/PID/mem, environ) are closed to workers of the same user too, and their descriptors
  (/proc/PID/fd). (To root's CAP_PERFMON they would be open: csrc/shepherd/confine.c takes it away.)
- From version 6 on (Linux 6.12) it cannot signal one either: not the bridge, not its own guards.

Descriptors that a worker is given are not affected. A worker that runs as root stays able to read
the disk's device, and to change what root may change; only another user is a wall there.
"""

from __future__ import annotations

import ctypes
import errno
import os
import pwd
import stat
import struct
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

# The same numbers on every architecture (asm-generic/unistd.h, 5.13).
_SYS_CREATE_RULESET = 444
_SYS_ADD_RULE = 445

_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = (1 << bit for bit in range(4))
_REMOVE_DIR, _REMOVE_FILE = 1 << 4, 1 << 5
_MAKE = 0x7F << 6  # char, dir, reg, sock, fifo, block, sym
_REFER = 1 << 13  # linking and renaming between directories; from version 2 on, until then denied
_TRUNCATE = 1 << 14  # from version 3 on
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE  # the others are of directories

_SCOPE_ABSTRACT_SOCKETS = 1 << 0  # both from version 6 on
_SCOPE_SIGNALS = 1 << 1

# What every program needs to be loaded and to run, beside its own file.
READ_ALWAYS = (
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/bin",
    "/sbin",
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
    "/etc/localtime",
    "/dev/null",
    "/dev/zero",
    "/dev/random",
    "/dev/urandom",
)
WRITE_ALWAYS = ("/dev/null", "/dev/zero")

_libc = ctypes.CDLL(None, use_errno=True)


def cookie_files(env: Mapping[str, str]) -> set[str]:
    """Where OTP keeps a cookie for this user (erl -setcookie; XDG_CONFIG_HOME since OTP 25)."""
    homes = {env["HOME"]} if env.get("HOME") else set()
    with suppress(KeyError):
        homes.add(pwd.getpwuid(os.geteuid()).pw_dir)
    files = {os.path.join(home, ".erlang.cookie") for home in homes}
    configs = {os.path.join(home, ".config") for home in homes}
    if env.get("XDG_CONFIG_HOME"):
        configs.add(env["XDG_CONFIG_HOME"])
    return files | {os.path.join(config, "erlang", ".erlang.cookie") for config in configs}


def available() -> bool:
    return _version() >= 1


def scopes_signals() -> bool:
    """Whether a ruleset keeps its processes from signalling others."""
    return _version() >= 6


@dataclass(frozen=True, slots=True)
class Rules:
    """What a worker may reach. `read`, `write`: the only places, with all that is below them,
    beside READ_ALWAYS and WRITE_ALWAYS; None: all. `hidden` cannot be read in either case, and
    not be written where `write` is given.
    """

    hidden: frozenset[str] = frozenset()
    read: tuple[str, ...] | None = None
    write: tuple[str, ...] | None = None
    abstract_sockets: bool = True  # may connect to those of others

    def __bool__(self) -> bool:
        return bool(self.hidden) or self.read is not None or self.write is not None


def ruleset(rules: Rules) -> int:
    """A ruleset (a descriptor, yours) that keeps `rules`. The files need not exist.

    Takes about 20 us for each entry of the directories on the way to a hidden file, so call it in a
    thread. Raises: OSError; when this kernel has no Landlock, too.
    """
    version = _version()
    reading = _READ_FILE | (0 if rules.read is None else _READ_DIR | _EXECUTE)
    writing = _REFER if version >= 2 else 0
    if rules.write is not None:
        writing |= _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE
        writing |= _TRUNCATE if version >= 3 else 0
    scoped = _SCOPE_SIGNALS | (0 if rules.abstract_sockets else _SCOPE_ABSTRACT_SOCKETS)
    attributes = struct.pack("=Q", reading | writing)
    if version >= 6:
        attributes += struct.pack("=QQ", 0, scoped)
    made = _syscall(_SYS_CREATE_RULESET, attributes, len(attributes), 0)
    if made < 0:
        raise OSError(-made, os.strerror(-made))
    os.set_inheritable(made, False)
    hidden = {os.path.realpath(file) for file in rules.hidden}
    try:
        if rules.read is None and rules.write is None:
            _grant_below("/", hidden, made, reading | writing)
        else:
            for place in _places(rules.read, READ_ALWAYS):
                _grant_below(place, hidden, made, reading)
            for place in _places(rules.write, WRITE_ALWAYS):
                _grant_below(place, hidden, made, writing)
    except BaseException:
        os.close(made)
        raise
    return made


def _places(named: tuple[str, ...] | None, always: tuple[str, ...]) -> Iterable[str]:
    return ("/",) if named is None else map(os.path.realpath, (*named, *always))


def _grant_below(place: str, hidden: set[str], ruleset: int, rights: int) -> None:
    """Grant `place` and all that is in it, but what is hidden there."""
    on_the_way = {parent for file in hidden for parent in _parents(file)}
    if place not in on_the_way:
        if not any(place == file or place.startswith(file + "/") for file in hidden):
            _grant(place, ruleset, rights)
        return
    prefix = place.rstrip("/") + "/"
    for directory in (d for d in on_the_way if d == place or d.startswith(prefix)):
        # A directory that we may not list hides its entries from the worker as well.
        with suppress(OSError), os.scandir(directory) as entries:
            for entry in entries:
                if entry.path not in hidden | on_the_way and not entry.is_symlink():
                    _grant(entry.path, ruleset, rights)


def _parents(path: str) -> set[str]:
    parents = set()
    while path != "/":
        path = os.path.dirname(path)
        parents.add(path)
    return parents


def _grant(path: str, ruleset: int, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return  # gone meanwhile, or not ours to open: then not the worker's either
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= _OF_FILES
            if rights == 0:
                return
        result = _syscall(
            _SYS_ADD_RULE, ruleset, _RULE_PATH_BENEATH, struct.pack("=Qi", rights, fd), 0
        )
    finally:
        os.close(fd)
    # Kernel-internal objects cannot be granted and need not be (EBADFD); no right, no harm.
    if result < 0 and -result != errno.EBADFD:
        raise OSError(-result, os.strerror(-result), path)


def _version() -> int:
    """Landlock's ABI version; below 1 when there is none."""
    return _syscall(_SYS_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION)


def _syscall(number: int, *arguments: int | bytes | None) -> int:
    """The result, or the negative errno."""
    passed = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *passed)
    return result if result >= 0 else -ctypes.get_errno()
