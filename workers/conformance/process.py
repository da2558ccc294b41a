"""The worker under test as a process: started on a link's descriptors, watched, waited for."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import resource
import select
import signal
import struct
from collections.abc import Mapping, Sequence

from bridge.fabric import layout
from workers.conformance.memory import libc

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_FILTER = 1, 38, 22, 2
KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONPATH", "TMPDIR")
SANITIZERS = ("ASAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS")
OUTPUT_BYTES = 64 << 10
FILE_BYTES_MAX = 256 << 20  # what floods its output ends, before the memory does


class Worker:
    """A started process. `close` kills what is left of it, its process group included."""

    def __init__(self, argv: Sequence[str], pid: int, stdout: int, stderr: int) -> None:
        self.argv = tuple(argv)
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self._stdout, self._stderr = stdout, stderr
        self._status: int | None = None

    @classmethod
    def start(
        cls,
        argv: Sequence[str],
        inherited: Mapping[int, int],
        environment: Mapping[str, str],
        *,
        without_futex: bool = False,
    ) -> Worker:
        """Start `argv` with these descriptors (its number -> ours) and no others but 0, 1, 2.

        without_futex: the kernel refuses it to sleep on a futex that is shared between processes.
        """
        stdout = os.memfd_create("stdout", os.MFD_CLOEXEC)
        stderr = os.memfd_create("stderr", os.MFD_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            _exec_in_child(argv, inherited, environment, stdout, stderr, without_futex)
        return cls(argv, pid, stdout, stderr)

    @property
    def stdout(self) -> bytes:
        """What it has written there so far, at most the first 64 KiB."""
        return os.pread(self._stdout, OUTPUT_BYTES, 0)

    @property
    def stderr(self) -> str:
        return os.pread(self._stderr, OUTPUT_BYTES, 0).decode(errors="replace")

    def open_files(self) -> dict[int, str]:
        """Its descriptors, and what each is."""
        found = {}
        for name in os.listdir(f"/proc/{self.pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                found[int(name)] = os.readlink(f"/proc/{self.pid}/fd/{name}")
        return found

    def has_ended(self) -> bool:
        """Looks, does not wait."""
        return self.wait(0) is not None

    def wait(self, timeout_s: float) -> int | None:
        """Its exit status, or minus its signal; None when it lives on after `timeout_s`."""
        if self._status is None:
            if not select.select([self.pidfd], [], [], timeout_s)[0]:
                return None
            # Not reaped before `close`: until then its number, and its group's, are nobody else's.
            ended = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOWAIT)
            assert ended is not None
            exited = ended.si_code == os.CLD_EXITED
            self._status = ended.si_status if exited else -ended.si_status
        return self._status

    def others_of_its_group(self) -> list[int]:
        """What it has started, and left behind."""
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as stat:
                group = int(stat.read().rpartition(")")[2].split()[2])
                if group == self.pid != int(name):
                    found.append(int(name))
        return found

    def signal(self, number: int) -> None:
        signal.pidfd_send_signal(self.pidfd, number)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)  # before its setsid()
        os.waitpid(self.pid, 0)
        for fd in (self.pidfd, self._stdout, self._stderr):
            os.close(fd)


def environment_of(worker_id: int, role: str) -> dict[str, str]:
    """What a worker's environment has: the link, and a few variables of ours."""
    ours = {name: os.environ[name] for name in KEPT + SANITIZERS if name in os.environ}
    return ours | {
        layout.ENV_LINK_FD: str(layout.FD_RELAY_SIDE),
        layout.ENV_WORKER_ID: str(worker_id),
        layout.ENV_ROLE: role,
    }


def _exec_in_child(
    argv: Sequence[str],
    inherited: Mapping[int, int],
    environment: Mapping[str, str],
    stdout: int,
    stderr: int,
    without_futex: bool,
) -> None:
    """Between fork and exec, in the child. The battery has one thread, so nothing is locked."""
    try:
        os.setsid()
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        # High first, so that none is overwritten before it is copied.
        moved = {number: fcntl.fcntl(fd, fcntl.F_DUPFD, 200) for number, fd in inherited.items()}
        null = os.open(os.devnull, os.O_RDONLY)
        for fd, number in ((null, 0), (stdout, 1), (stderr, 2)):
            os.dup2(fd, number)
        for number, fd in moved.items():
            os.dup2(fd, number)
        for fd in sorted(int(name) for name in os.listdir("/proc/self/fd")):
            if fd > 2 and fd not in inherited:
                with contextlib.suppress(OSError):
                    os.close(fd)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES_MAX, FILE_BYTES_MAX))
        if without_futex:
            _refuse_shared_futex()
        os.execvpe(argv[0], list(argv), dict(environment))
    except BaseException as error:
        os.write(2, f"conformance: {argv[0]}: {error}\n".encode())
    os._exit(127)


def _refuse_shared_futex() -> None:
    """A seccomp filter: FUTEX_WAIT and FUTEX_WAIT_BITSET answer ENOSYS where they are not PRIVATE.

    So locks inside the process work, and the doorbell, which is shared, cannot be slept on.
    """
    load, equal, set_, and_, ret = 0x20, 0x15, 0x45, 0x54, 0x06
    allow, refuse = 0x7FFF0000, 0x00050000 | 38  # SECCOMP_RET_ERRNO | ENOSYS
    program = [
        (load, 0, 0, 0),  # the call's number
        (equal, 7, 0, 449),  # futex_waitv
        (equal, 6, 0, 455),  # futex_wait
        (equal, 0, 6, 202),  # futex
        (load, 0, 0, 24),  # its second argument
        (set_, 4, 0, 128),  # FUTEX_PRIVATE_FLAG
        (and_, 0, 0, 127),
        (equal, 1, 0, 0),  # FUTEX_WAIT
        (equal, 0, 1, 9),  # FUTEX_WAIT_BITSET
        (ret, 0, 0, refuse),
        (ret, 0, 0, allow),
    ]
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    filter_ = Program(len(program), ctypes.addressof(buffer))
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        PR_SET_SECCOMP, SECCOMP_FILTER, ctypes.byref(filter_)
    ):
        raise OSError(ctypes.get_errno(), "no seccomp filter")
