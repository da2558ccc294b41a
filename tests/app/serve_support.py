"""Runs `ringbridge serve` as a user would, and looks at what is there from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import trio

from bridge.testing import COOKIE, HOST, Beam, EpmdDaemon

ROOT = Path(__file__).parents[2]
BIN = ROOT / "build" / "bin"
LIBRARY = ROOT / "build" / "libringbridge-worker.a"  # the C kit
T = TypeVar("T")

SETTINGS = f"""
[node]
drain_ms = 2_000
admin_nodes = ["*@{HOST}"]

[roles.echo]
command = ["{BIN}/rb-echo"]
payload_bytes_max = 1_048_576

[roles.sleep]
command = ["{BIN}/rb-sleep"]
workers = 2
cancel_term_ms = 200
cancel_kill_ms = 200
"""
# Long enough for a busy machine; nothing waits so long when all is well.
SOON_S = 60.0  # for what has to come; the machine may be slow


@dataclass
class Serving:
    """A running `ringbridge serve`."""

    name: str
    process: subprocess.Popen[bytes]
    log_file: Path
    ready: dict[str, Any] = field(default_factory=dict)

    @property
    def pid(self) -> int:
        return self.process.pid

    def logs(self, event: str | None = None) -> list[dict[str, Any]]:
        """The log lines so far; of one event if it is named."""
        lines = [json.loads(line) for line in self.log_file.read_text().splitlines()]
        return [line for line in lines if event in (None, line["event"])]

    async def wait_log(self, event: str, count: int = 1) -> dict[str, Any]:
        """The `count`-th log line of that event, as soon as it is there."""
        lines = await wait_until(lambda: (found := self.logs(event))[count - 1 :] and found)
        return dict(lines[count - 1])

    async def wait_workers(self, count: int) -> None:
        await self.wait_log("worker ready", count)

    async def wait_end(self, within_s: float = SOON_S) -> int:
        """The exit status."""
        await wait_until(lambda: self.process.poll() is not None, within_s)
        assert self.process.returncode is not None
        return self.process.returncode

    async def terminate(self, within_s: float = SOON_S) -> int:
        self.process.send_signal(signal.SIGTERM)
        return await self.wait_end(within_s)

    def target(self, service: str = "Ringbridge.JobDispatcher") -> str:
        """The Elixir of `{service, node}`."""
        return f"{{{service}, :'{self.name}'}}"


@asynccontextmanager
async def serving(
    epmd: EpmdDaemon,
    folder: Path,
    *,
    alive: str = "bridge",
    settings: str = SETTINGS,
    arguments: tuple[str, ...] = (),
    cookie_in_environment: bool = True,
) -> AsyncIterator[Serving]:
    """Start the bridge, wait until it is ready; whatever happens, it is gone afterwards."""
    config = folder / "ringbridge.toml"
    config.write_text(settings)
    log_file = folder / "serve.log"
    name = f"{alive}@{HOST}"
    ready, ready_end = os.pipe()
    with log_file.open("wb") as log:
        process = subprocess.Popen(  # noqa: ASYNC220 - it outlives awaits, and may be killed
            [
                *(sys.executable, "-c", "from bridge.cli import main; main()", "serve"),
                *("--config", str(config), "--name", name, "--ready-fd", str(ready_end)),
                *("--log-format", "json", *arguments),
            ],
            cwd=folder,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                "HOME": str(folder),
                "ERL_EPMD_PORT": str(epmd.port),
                **({"RINGBRIDGE_COOKIE": COOKIE} if cookie_in_environment else {}),
            },
            pass_fds=[ready_end],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    os.close(ready_end)
    bridge = Serving(name, process, log_file)
    try:
        with os.fdopen(ready) as told:
            line = await trio.to_thread.run_sync(told.readline)
        assert line, f"serve ended before it was ready:\n{log_file.read_text()}"
        bridge.ready = json.loads(line)
        yield bridge
    except BaseException:
        print(log_file.read_text())  # pytest shows it with the failure
        raise
    finally:
        _end(process)
        # Whatever a test did, the relay's books were even when it was closed.
        assert "the relay's books" not in log_file.read_text()


def built_worker(source: Path, folder: Path) -> Path:
    """A C program with the kit and the core's own headers, compiled into `folder`."""
    made = folder / source.stem
    includes = [f"-I{ROOT / path}" for path in ("csrc/include", "workers/c/include")]
    subprocess.run(
        ["cc", "-std=gnu99", "-O1", *includes, "-o", made, source, LIBRARY, "-pthread"], check=True
    )
    return made


def _end(process: subprocess.Popen[bytes]) -> None:
    """At once, but in order where it can: a second signal skips the drain."""
    for _ in range(2):
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            time.sleep(0.05)
    try:
        process.wait(2)
    except subprocess.TimeoutExpired:  # stopped, or killed by its test
        process.kill()
        process.wait()


async def ask(beam: Beam, code: str) -> str:
    """The inspected value of an Elixir expression in the BEAM."""
    return await beam.evaluate(code)


async def wait_until(condition: Callable[[], T], within_s: float = SOON_S) -> T:
    """The first true value of `condition`, which looks at another process: it has to be asked."""
    give_up = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < give_up, f"not within {within_s} s"
        await trio.sleep(0.01)
    return value


def descendants(pid: int) -> list[int]:
    """All processes below `pid`, by the kernel's own list of children."""
    found: list[int] = []
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found  # it has ended
    for task in tasks:
        try:
            children = Path(f"/proc/{pid}/task/{task}/children").read_text().split()
        except OSError:
            continue  # the thread has ended
        for child in map(int, children):
            found += [child, *descendants(child)]
    return found


def memfds(pid: int) -> set[tuple[int, int]]:
    """Device and inode of every memfd that `pid` holds: what identifies shared memory."""
    found = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if os.readlink(fd).startswith("/memfd:"):
                status = fd.stat()
                found.add((status.st_dev, status.st_ino))
        except OSError:
            continue  # closed meanwhile
    return found


def holders(inodes: set[tuple[int, int]]) -> list[int]:
    """Processes that still hold one of these memfds, by descriptor or by mapping."""
    numbers = {inode for _, inode in inodes}
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            maps = (process / "maps").read_text().splitlines()
            mapped = {int(line.split()[4]) for line in maps if "/memfd:" in line}
            if mapped & numbers or memfds(int(process.name)) & inodes:
                found.append(int(process.name))
        except OSError:
            continue  # it has ended, or is another user's
    return found
