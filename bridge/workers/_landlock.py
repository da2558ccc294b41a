"""A Landlock ruleset under which a worker can read every file but some: the cluster's cookie.

Landlock grants, it cannot deny: what is not below a granted place may not be read (landlock(7)).
So everything is granted except along the way to a hidden file: of each directory on that way, all
entries but the next step. What follows from it:

- The hidden file cannot be read by any name, nor be linked or renamed to where reading is granted.
- What is *created later* directly in a directory on the way (`/`, the home directory) cannot be
  read by that worker; below the directories that were there it can.
- A process under a ruleset cannot trace one that is not, so the bridge's memory and environment
  (/proc/PID/mem, environ) are closed to workers of the same user too. (To root's CAP_PERFMON they
  would be open: csrc/shepherd/exec.c takes it away.)

Descriptors that a worker is given are not affected. A worker that runs as root stays able to read
the disk's device; only another user is a wall there.
"""

from __future__ import annotations

import ctypes
import errno
import os
import pwd
import struct
from collections.abc import Iterable, Mapping
from contextlib import suppress

# The same numbers on every architecture (asm-generic/unistd.h, 5.13).
_SYS_CREATE_RULESET = 444
_SYS_ADD_RULE = 445

_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
_READ_FILE = 1 << 2
_REFER = 1 << 13  # linking and renaming between directories; from version 2 on, until then denied

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


def ruleset_hiding(files: Iterable[str]) -> int:
    """A ruleset (a descriptor, yours) that grants reading everything but `files`.

    The files need not exist. Takes about 20 us for each entry of the directories on the way, so
    call it in a thread. Raises: OSError; when this kernel has no Landlock, too.
    """
    rights = _READ_FILE | (_REFER if _version() >= 2 else 0)
    ruleset = _syscall(_SYS_CREATE_RULESET, struct.pack("=Q", rights), 8, 0)
    if ruleset < 0:
        raise OSError(-ruleset, os.strerror(-ruleset))
    os.set_inheritable(ruleset, False)
    try:
        _grant_all_but({os.path.realpath(file) for file in files}, ruleset, rights)
    except BaseException:
        os.close(ruleset)
        raise
    return ruleset


def _grant_all_but(hidden: set[str], ruleset: int, rights: int) -> None:
    on_the_way = {parent for file in hidden for parent in _parents(file)}
    if not on_the_way:
        _grant("/", ruleset, rights)
    for directory in on_the_way:
        # A directory that we may not list hides its entries from the worker as well.
        with suppress(OSError), os.scandir(directory) as entries:
            for entry in entries:
                if entry.path not in hidden | on_the_way and not entry.is_symlink():
                    is_directory = entry.is_dir(follow_symlinks=False)  # a file takes no REFER
                    _grant(entry.path, ruleset, rights if is_directory else _READ_FILE)


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
