"""What `ringbridge doctor` looks at: each check says what it found and how to mend what is bad.

A check never raises and changes nothing on the machine. It must run where the native parts are not
built yet, so nothing here imports them at the top.
"""

from __future__ import annotations

import ctypes
import fcntl
import importlib
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bridge.config import Config, ConfigError
from bridge.dist.cookie import COOKIE_VARIABLE, find_cookie, users_cookie_file
from bridge.dist.errors import CookieError
from bridge.dist.names import split_node_name
from bridge.ops import certificates, confinement
from bridge.ops.finding import Finding

__all__ = ["Finding", "Patient", "examine"]

KERNEL_MIN = (5, 10)
COMMAND_TIMEOUT_S = 10.0
EPMD_PORT = 4369
F_SEAL_FUTURE_WRITE = 0x10  # linux/fcntl.h; not in Python's fcntl


@dataclass(frozen=True, slots=True)
class Patient:
    """What is examined: the settings, and where the cookie is to be looked for."""

    config: Config | None
    name: str
    cookie_file: Path | None
    environ: Mapping[str, str]


def examine(patient: Patient) -> Iterator[Finding]:
    """All checks, in the order in which one would mend them."""
    yield python()
    yield kernel()
    for name, mend, probe in (
        (
            "memfd with seals",
            "Linux 5.1 or newer, and a seccomp profile that allows memfd_create",
            memfd,
        ),
        ("eventfd", "a seccomp profile that allows eventfd2", _eventfd),
        ("pidfd", "Linux 5.4 or newer, and a seccomp profile that allows pidfd_open", pidfd),
        ("futex", "a seccomp profile that allows futex", futex),
    ):
        yield _ability(name, mend, probe)
    yield compiler()
    yield from built()
    yield from confinement.examine(patient.config)
    yield epmd(patient.environ, patient.config.node.epmd if patient.config else "start")
    yield erlang()
    yield cookie(patient)
    if patient.config is not None:
        yield listen_port(patient.config)
        yield from tls(patient.config, patient.name)
        yield from commands(patient.config)
    yield node_name(patient)


# ---- the machine


def python() -> Finding:
    version = platform.python_version()
    return Finding("Python", sys.version_info >= (3, 11), version, "Install Python 3.11 or newer")


def kernel() -> Finding:
    found = f"{platform.system()} {platform.release()} on {platform.machine()}"
    match = re.match(r"(\d+)\.(\d+)", platform.release())
    ok = (
        platform.system() == "Linux"
        and sys.byteorder == "little"
        and match is not None
        and (int(match[1]), int(match[2])) >= KERNEL_MIN
    )
    return Finding("kernel", ok, found, "The native parts need Linux 5.10 or newer, little endian")


def _ability(name: str, mend: str, probe: Callable[[], None]) -> Finding:
    try:
        probe()
    except (OSError, AttributeError) as error:
        return Finding(name, False, str(error), f"Needs {mend}")
    return Finding(name, True, "works")


def memfd() -> None:
    """Seal a memfd as a link and a payload pool are sealed. Raises OSError."""
    fd = os.memfd_create("ringbridge-doctor", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, 4096)
        seals = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    finally:
        os.close(fd)


def _eventfd() -> None:
    os.close(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))


def pidfd() -> None:
    """Open and use a pidfd of ourselves. Raises OSError."""
    fd = os.pidfd_open(os.getpid())
    try:
        signal.pidfd_send_signal(fd, 0)
    finally:
        os.close(fd)


def futex() -> None:
    """Wake nobody on a futex. Raises OSError where the call is forbidden."""
    number = {"x86_64": 202, "aarch64": 98, "riscv64": 98}.get(platform.machine())
    if number is None:
        return  # every Linux has it; only a sandbox could forbid it, and we cannot ask
    word = ctypes.c_uint32(0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, ctypes.byref(word), 1, 1, None, None, 0) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def compiler() -> Finding:
    for name in ("cc", "gcc", "clang"):
        if path := shutil.which(name):
            _, text = _run([path, "--version"])
            return Finding("C compiler", True, text.splitlines()[0] if text else path, must=False)
    mend = "apt-get install gcc libc6-dev (or clang); only needed to build"
    return Finding("C compiler", False, "none on PATH", mend, must=False)


# ---- what was built


def built() -> Iterator[Finding]:
    """The two extension modules and the shepherd."""
    for title, module in (("term codec", "bridge.etf._codec"), ("relay", "bridge.fabric._core")):
        try:
            found = importlib.import_module(module).__file__ or module
        except ImportError as error:
            yield Finding(title, False, str(error), "Build the native parts: make native")
        else:
            yield Finding(title, True, found)
    yield shepherd()


def shepherd() -> Finding:
    mend = "Build it: make shepherd"
    try:
        from bridge.workers.shepherd import find_shepherd

        path = find_shepherd()
    except (ImportError, OSError) as error:
        return Finding("shepherd", False, str(error), mend)
    return Finding("shepherd", os.access(path, os.X_OK), str(path), mend)


def commands(config: Config) -> Iterator[Finding]:
    """The program of each role."""
    for role in config.roles:
        name = f"role {role}"
        try:
            yield Finding(name, True, " ".join(config.role_argv(role)))
        except ConfigError as error:
            yield Finding(name, False, error.rule, error.mend)


# ---- Erlang


def epmd(environ: Mapping[str, str], if_absent: str) -> Finding:
    """An epmd that answers, or one that could be started, or none as [node] epmd wants it."""
    if if_absent == "none":
        return Finding("epmd", True, 'not asked: [node] epmd is "none"')
    port = epmd_port(environ)
    if port is None:
        text = environ["ERL_EPMD_PORT"]
        return Finding("epmd", False, f"ERL_EPMD_PORT is {text!r}", "Unset it, or give 1 to 65535")
    names = epmd_names(port)
    if names is not None:
        listed = ", ".join(names) or "no node yet"
        return Finding("epmd", True, f"answers on port {port}; registered: {listed}")
    if if_absent == "own":
        return Finding("epmd", True, f"nothing answers on port {port}; serve is it")
    if path := shutil.which("epmd", path=environ.get("PATH")):
        return Finding("epmd", True, f"{path}, not running; serve starts it")
    mend = (
        'Install it (Debian: apt-get install erlang-base), or let serve be it: [node] epmd = "own"'
    )
    return Finding("epmd", False, f"nothing answers on port {port}, no epmd on PATH", mend)


def epmd_port(environ: Mapping[str, str]) -> int | None:
    """Where epmd listens, or None when the variable that says so does not hold a port."""
    text = environ.get("ERL_EPMD_PORT") or str(EPMD_PORT)
    return int(text) if text.isascii() and text.isdecimal() and 0 < int(text) < 65536 else None


def epmd_names(port: int) -> list[str] | None:
    """The names that the epmd of this host knows, or None when none answers."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2.0) as connection:
            connection.sendall(b"\0\1n")  # NAMES_REQ
            text = b""
            while data := connection.recv(4096):
                text += data
    except OSError:
        return None
    return re.findall(r"^name (\S+) at port", text[4:].decode("utf-8", "replace"), re.MULTILINE)


def erlang() -> Finding:
    mend = "Only callers need Erlang or Elixir: apt-get install erlang-base elixir"
    path = shutil.which("erl")
    if path is None:
        return Finding("Erlang", False, "no erl on PATH", mend, must=False)
    expression = 'io:format("~s", [erlang:system_info(otp_release)]), halt().'
    status, text = _run([path, "-noshell", "-eval", expression])
    if status != 0 or not text.isdecimal():
        return Finding("Erlang", False, f"{path} does not run: {text[:80]}", mend, must=False)
    mend = f"OTP {text} is older than 25, the oldest release that the bridge is tested with"
    return Finding("Erlang", int(text) >= 25, f"OTP {text} ({path})", mend, must=False)


def cookie(patient: Patient) -> Finding:
    file = patient.cookie_file
    if file is None and COOKIE_VARIABLE not in patient.environ and patient.config is not None:
        file = patient.config.cookie_path()
    default = users_cookie_file(patient.environ)
    if file is None and COOKIE_VARIABLE not in patient.environ and not default.exists():
        return Finding("cookie", True, f"none yet; serve creates {default}, as erl does")
    try:
        found = find_cookie(cookie_file=file, environ=patient.environ)
    except CookieError as error:
        return Finding(
            "cookie", False, str(error), "It must be the cookie of the cluster, kept private"
        )
    return Finding("cookie", True, f"from {found.source}")


def listen_port(config: Config) -> Finding:
    """Whether the address can be listened on now."""
    where = (config.node.listen, config.node.port)
    family = socket.AF_INET6 if ":" in config.node.listen else socket.AF_INET
    name = "listen address"
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
            probe.listen(1)
    except OSError as error:
        mend = "Give another [node] listen or port, or stop what holds it (ss -ltnp shows it)"
        return Finding(name, False, f"{where[0]} port {where[1]}: {error.strerror}", mend)
    port = "any free port" if where[1] == 0 else f"port {where[1]}"
    return Finding(name, True, f"{where[0]}, {port}")


def tls(config: Config, name: str) -> Iterator[Finding]:
    """Files, key, expiry and names of [tls], as far as there is one."""
    settings = config.tls_config()
    if settings is None:
        return
    try:
        yield from certificates.examine(settings, name)
    except ImportError as error:
        yield Finding("TLS", False, f"not known: {error}", "Build the native parts: make native")


def node_name(patient: Patient) -> Finding:
    """Whether the name is free at epmd."""
    try:
        alive, _ = split_node_name(patient.name)
    except ValueError as error:
        return Finding("node name", False, str(error), "Write it like bridge@127.0.0.1")
    without = patient.config is not None and patient.config.node.epmd == "none"
    port = None if without else epmd_port(patient.environ)
    if port is not None and alive in (epmd_names(port) or []):
        mend = "Fine when that is your running bridge; else choose another --name"
        return Finding(
            "node name", False, f"{patient.name} is registered at epmd", mend, must=False
        )
    return Finding("node name", True, f"{patient.name} is free")


def _run(command: list[str]) -> tuple[int, str]:
    """Exit status and output of a short command; 127 when it cannot be run."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=COMMAND_TIMEOUT_S,
            text=True,
            errors="replace",
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 127, str(error)
    return done.returncode, done.stdout.strip()
