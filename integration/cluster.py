"""A private cluster on the loopback: its own epmd, cookie and home. All of it ends with the block.

Facts that it rests on:

- A VM reads ERL_EPMD_PORT once, when it starts; a private epmd keeps us away from the nodes, and
  the epmd, of whoever runs this.
- A command line can be read by every user of the machine. VMs take the cookie from
  $HOME/.erlang.cookie, the bridge takes it from RINGBRIDGE_COOKIE; it is never an argument.
- PDEATHSIG survives exec, so that `setpriv --pdeathsig KILL` ends our children even when we are
  killed. It follows the thread that forked: start them from the main thread.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
# A VM starts in 0.3 to 0.5 s on an idle machine; this is for one that is busy with other things.
START_DEADLINE_S = 20.0
STOP_GRACE_S = 3.0


class ClusterError(RuntimeError):
    """Something did not start; the message says what, and shows its last words."""


class Cluster:
    """`with Cluster() as cluster:` an epmd of our own runs; what it starts ends with the block."""

    def __init__(self) -> None:
        self.cookie = secrets.token_hex(16)
        self.directory = Path(tempfile.mkdtemp(prefix="ringbridge-"))
        self.epmd_port = _free_port()
        self._processes: list[subprocess.Popen[str]] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Cluster:
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
            stack.callback(self._stop_all)
            self._write_cookie()
            self.spawn(["epmd", "-port", str(self.epmd_port), "-address", HOST], log="epmd")
            wait_until(lambda: self.port_of("") == 0, "epmd does not answer")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stack.close()

    @property
    def environment(self) -> dict[str, str]:
        """What every member runs with: this process's environment, the private epmd and home."""
        return {
            **os.environ,
            "HOME": str(self.directory),
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": HOST,
            "ERL_CRASH_DUMP_BYTES": "0",
            "PYTHONPATH": str(ROOT),
            "LC_ALL": "C.UTF-8",
        }

    def spawn(
        self,
        argv: Sequence[str],
        *,
        log: str,
        env: Mapping[str, str] | None = None,
        pipes: bool = False,
    ) -> subprocess.Popen[str]:
        """Start a program that ends with the cluster. What it says goes to the log of that name.

        With `pipes`, its standard input and output are ours (its stderr still goes to the log).
        """
        with self.log_path(log).open("ab") as out:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *argv],
                cwd=ROOT,
                env={**self.environment, **(env or {})},
                stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipes else out,
                stderr=out,
                text=True,
                bufsize=1,
            )
        self._processes.append(process)
        return process

    def start_bridge(
        self, name: str = "bridge", config: Path | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start a bridge, by default with ringbridge.toml; return when it can be called."""
        main = "import sys; from bridge.cli import main; sys.exit(main())"
        arguments = ["--config", str(config or ROOT / "ringbridge.toml"), "--name", full(name)]
        process = self.spawn(
            [sys.executable, "-c", main, "serve", *arguments],
            log=name,
            env={"RINGBRIDGE_COOKIE": self.cookie, **(env or {})},
        )
        self.wait_for_node(name, process)
        return process

    def config(self, name: str, text: str) -> Path:
        """A configuration of that name; paths in it are relative to the project's folder."""
        path = self.directory / f"{name}.toml"
        path.write_text(text.replace('"build/bin/', f'"{ROOT}/build/bin/'))
        return path

    def wait_for_node(self, name: str, process: subprocess.Popen[str]) -> None:
        """Return when epmd knows the name. Raises ClusterError when its process ends before."""

        def registered() -> bool:
            if process.poll() is not None:
                raise ClusterError(
                    f"{name} ended with status {process.returncode}{self.tail(name)}"
                )
            return bool(self.port_of(name))

        try:
            wait_until(registered, f"{name} is not registered at epmd")
        except TimeoutError as error:
            raise ClusterError(f"{error}{self.tail(name)}") from error

    def port_of(self, alive_name: str) -> int | None:
        """The port that epmd has for a node, 0 if it knows none; None when epmd is not there."""
        request = b"z" + alive_name.encode()
        try:
            with socket.create_connection((HOST, self.epmd_port), timeout=1) as sock:
                sock.sendall(struct.pack(">H", len(request)) + request)
                answer = sock.makefile("rb").read()
        except OSError:
            return None
        if len(answer) < 4 or answer[1] != 0:
            return 0
        return int(struct.unpack_from(">H", answer, 2)[0])

    def log_path(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def tail(self, name: str, lines: int = 15) -> str:
        """The last lines of a log, as the end of an error message."""
        path = self.log_path(name)
        said = path.read_text(errors="replace").splitlines()[-lines:] if path.exists() else []
        return "".join(f"\n  {name}: {line}" for line in said)

    def stop(self, process: subprocess.Popen[str], grace_s: float = STOP_GRACE_S) -> int:
        """SIGTERM, wait for the grace, SIGKILL; the exit status."""
        process.terminate()
        try:
            return process.wait(grace_s)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def _write_cookie(self) -> None:
        path = self.directory / ".erlang.cookie"
        path.write_text(self.cookie)
        path.chmod(0o400)

    def _stop_all(self) -> None:
        # The last started first: epmd outlives the nodes that are registered at it.
        for process in reversed(self._processes):
            if process.poll() is None:
                self.stop(process)
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()


class Driver:
    """A program that is driven by lines: one command in, one answer out."""

    def __init__(self, process: subprocess.Popen[str], log_tail: Callable[[], str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin: IO[str] = process.stdin
        self._stdout: IO[str] = process.stdout
        self._log_tail = log_tail

    def expect(self) -> str:
        line = self._stdout.readline()
        if not line:
            raise ClusterError(f"the driven program ended{self._log_tail()}")
        return line.strip()

    def ask(self, command: str) -> str:
        self._stdin.write(command + "\n")
        self._stdin.flush()
        return self.expect()


def full(name: str) -> str:
    return f"{name}@{HOST}"


def wait_until(ready: Callable[[], bool], what: str, deadline_s: float = START_DEADLINE_S) -> None:
    """Look every 20 ms (the things waited for are other processes, which cannot tell us)."""
    end = time.monotonic() + deadline_s
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} after {deadline_s:g} s")
        time.sleep(0.02)


def exit_on_signals() -> None:
    """Let SIGTERM and SIGHUP end this process as an exception does: every `with` is left."""

    def leave(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])
