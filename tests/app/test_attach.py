"""`ringbridge attach`: a worker started by hand joins a role, and nobody else does."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from serve_support import BIN, ROOT, Serving, ask, serving, wait_until

from bridge.testing import COOKIE, HOST, Beam, EpmdDaemon

pytestmark = [
    pytest.mark.beam,
    pytest.mark.skipif(shutil.which("elixir") is None, reason="no Elixir here"),
]

SETTINGS = f"""
[node]
admin_nodes = ["*@{HOST}"]
drain_ms = 2_000
[roles.work]
command = ["/bin/false"]
max_restarts = 0
hang_ms = 1_000
"""


@contextmanager
def attaching(
    bridge: Serving, epmd: EpmdDaemon, folder: Path, *command: object
) -> Iterator[subprocess.Popen[bytes]]:
    """`ringbridge attach`, as a user calls it."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", "from bridge.cli import main; main()", "attach"),
            *("--name", bridge.name, "--config", folder / "ringbridge.toml", "--role", "work"),
            *("--", *map(str, command)),
        ],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder),
            "ERL_EPMD_PORT": str(epmd.port),
            "RINGBRIDGE_COOKIE": COOKIE,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


async def submit(bridge: Serving, beam: Beam, payload: str) -> str:
    call = f'{{:submit, :work, "{payload}", %{{timeout: 20_000}}}}'
    return await ask(beam, f"GenServer.call({bridge.target()}, {call}, 25_000)")


async def listed(bridge: Serving, beam: Beam) -> str:
    target = bridge.target("Ringbridge.WorkerRegistry")
    what = "&{&1.attached, &1.state, &1.kit, &1.os_pid}"
    return await ask(beam, f"Enum.map(elem(GenServer.call({target}, :list), 1), {what})")


async def test_a_worker_started_by_hand_serves_is_never_judged_and_drains(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    async with serving(epmd, tmp_path, alive="attach", settings=SETTINGS) as bridge:
        await bridge.wait_log("worker given up")
        assert "no_worker" in await submit(bridge, beam, "0")
        with attaching(bridge, epmd, tmp_path, BIN / "rb-sleep") as process:
            await bridge.wait_workers(1)
            assert await submit(bridge, beam, "0") == '{:ok, "0"}'
            assert f'{{true, :ready, "c", {process.pid}}}' in await listed(bridge, beam)
            (worker,) = _children(process.pid)
            os.kill(worker, signal.SIGSTOP)
            await trio.sleep(2.5)  # more than twice its role's hang_ms
            os.kill(worker, signal.SIGCONT)
            assert await submit(bridge, beam, "0") == '{:ok, "0"}'
            worker_id = bridge.logs("worker ready")[0]["worker"]
            target = bridge.target("Ringbridge.WorkerRegistry")
            assert await ask(beam, f"GenServer.call({target}, {{:drain, {worker_id}}})") == ":ok"
            await wait_until(lambda: process.poll() is not None)
            assert process.returncode == 0
        assert "true" not in await listed(bridge, beam)  # it leaves no place behind
        assert await ask(beam, f"elem(GenServer.call({target}, :list), 0)") == ":ok"


async def test_its_crash_is_told_by_its_own_signal_and_ends_the_command(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    async with serving(epmd, tmp_path, alive="attach_ends", settings=SETTINGS) as bridge:
        with attaching(bridge, epmd, tmp_path, BIN / "rb-sleep") as process:
            await bridge.wait_workers(1)
            (worker,) = _children(process.pid)
            os.kill(worker, signal.SIGSEGV)
            await wait_until(lambda: process.poll() is not None)
            assert process.returncode == 128 + signal.SIGSEGV
            why = (await bridge.wait_log("worker failed", 2))["why"]
            assert "SIGSEGV" in why
        with attaching(bridge, epmd, tmp_path, BIN / "rb-sleep") as process:
            await bridge.wait_workers(2)
            (worker,) = _children(process.pid)
            process.kill()  # and its worker with it
            await wait_until(lambda: not Path(f"/proc/{worker}").exists() or _is_zombie(worker))
            await bridge.wait_log("worker failed", 3)
        with attaching(bridge, epmd, tmp_path, BIN / "rb-sleep") as process:
            await bridge.wait_workers(3)
            assert await bridge.terminate() == 0  # the bridge takes it along
            await wait_until(lambda: process.poll() is not None)


async def test_who_has_no_token_or_comes_twice_is_not_let_in(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    async with serving(epmd, tmp_path, alive="attach_not", settings=SETTINGS) as bridge:
        target = bridge.target("Ringbridge.WorkerRegistry")
        offer = f"elem(GenServer.call({target}, {{:attach, :work}}), 1)"
        text = await ask(beam, f"with m = {offer}, do: m.socket <> <<32>> <> m.token")
        path, token = json.loads(text).split(" ")
        assert stat.S_IMODE(Path(path).parent.stat().st_mode) == 0o700
        for shown in ("0" * 64, token[:-1], ""):
            assert await trio.to_thread.run_sync(_descriptors, path, shown) == "0"
        assert await trio.to_thread.run_sync(_descriptors, path, token) == "6"
        await wait_until(lambda: not Path(path).parent.exists())
        assert "FileNotFoundError" in await trio.to_thread.run_sync(_descriptors, path, token)
        assert len(bridge.logs("refused to attach")) == 3
        await bridge.wait_log("worker failed", 2)  # who was let in has left


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
async def test_another_user_is_not_let_in_with_the_token_either(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    async with serving(epmd, tmp_path, alive="attach_other", settings=SETTINGS) as bridge:
        target = bridge.target("Ringbridge.WorkerRegistry")
        offer = f"elem(GenServer.call({target}, {{:attach, :work}}), 1)"
        text = await ask(beam, f"with m = {offer}, do: m.socket <> <<32>> <> m.token")
        path, token = json.loads(text).split(" ")
        nobody = pwd.getpwnam("nobody").pw_uid
        # First it does not even get there; then as if somebody had opened the way.
        said = await trio.to_thread.run_sync(_descriptors, path, token, nobody)
        assert "PermissionError" in said
        os.chmod(Path(path).parent, 0o711)
        os.chmod(path, 0o777)
        assert await trio.to_thread.run_sync(_descriptors, path, token, nobody) == "0"
        refused = await bridge.wait_log("refused to attach")
        assert refused["uid"] == nobody
        # The offer stands for whoever it was made to.
        assert await trio.to_thread.run_sync(_descriptors, path, token) == "6"


# In a process of its own: who connects is who is ended with the worker.
STRANGER = """
import os, socket, sys
if sys.argv[3:]:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(*3 * [int(sys.argv[3])])
with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
    connection.settimeout(50)
    connection.connect(sys.argv[1])
    try:
        connection.sendall(sys.argv[2].encode() + b"\\n")
        print(len(socket.recv_fds(connection, 1 << 16, 8)[1]))
    except ConnectionError:  # refused by its user alone: what it shows is not even read
        print(0)
"""


def _descriptors(path: str, shown: str, *uid: int) -> str:
    """How many descriptors somebody is given who shows this, and then leaves; or why none."""
    command = [sys.executable, "-c", STRANGER, path, shown, *map(str, uid)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return (done.stdout or done.stderr.splitlines()[-1]).strip()


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
