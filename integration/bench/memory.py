"""What an idle connection, an idle Python process and a worker's two guards cost in memory.

    python -m integration.bench.memory

Measured in a program of its own, whose resident set nothing else moves. A connection is counted
with all that the relay keeps for it after it has carried a signal each way; the kernel's socket
buffers are not in it, nor atoms and fragments under way, which grow with use. A process is a
GenServer with its task, mailbox and name. Shepherd and init are the only pair of this bridge, so
all of their text counts for them, unless another bridge runs on the machine.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import Any

import trio

from bridge.dist.handshake_events import Identity
from bridge.etf import Atom, Pid, encode_bare
from bridge.fabric.relay import Relay
from bridge.node import GenServer, open_node
from bridge.workers._shepherd_protocol import LINK_FDS
from bridge.workers.shepherd import Shepherd, Spawn
from integration.bench.figures import rounded

CONNECTIONS, PROCESSES = 400, 2000
WARM = 50  # made before counting: arenas, tables and caches have grown then
FLAGS = 0  # whole frames, no atom cache


def rows() -> list[dict[str, Any]]:
    told = subprocess.run(
        [sys.executable, "-m", __spec__.name], capture_output=True, text=True, check=True
    )
    return [json.loads(line) for line in told.stdout.splitlines()]


async def _processes() -> float:
    async with open_node("memory@127.0.0.1", cookie="memory", listen=False) as node:
        for _ in range(WARM):
            await node.start(GenServer())
        before = _resident_kib()
        for number in range(PROCESSES):
            await node.start(GenServer(), name=f"process {number}")
        return (_resident_kib() - before) / PROCESSES


async def _connections() -> float:
    identity = Identity("memory@127.0.0.1", 1, FLAGS)
    relay = Relay(node=identity.name, creation=identity.creation)
    caller = Pid(Atom("peer@127.0.0.1"), 1, 0, 1)
    control = encode_bare((22, caller, caller))
    body = b"p\x83" + control + b"\x83j"
    frame = len(body).to_bytes(4, "big") + body
    kept = []
    try:
        before = 0
        for number in range(WARM + CONNECTIONS):
            if number == WARM:
                before = _resident_kib()
            ours, theirs = socket.socketpair()
            conn = relay.adopt(ours, peer=f"peer{number}@127.0.0.1", flags=FLAGS, creation=1)
            theirs.sendall(frame)
            await relay.next_events()
            relay.send(conn, control, b"j")
            await trio.to_thread.run_sync(theirs.recv, len(frame))
            kept.append(theirs)
        return (_resident_kib() - before) / CONNECTIONS
    finally:
        relay.close()
        for sock in kept:
            sock.close()


async def _guards() -> float:
    """PSS (proc_pid_smaps(5)) of a shepherd and its init, whose worker waits."""
    fds = [os.memfd_create("memory") for _ in range(LINK_FDS)]
    obituary, obituary_end = os.pipe2(os.O_CLOEXEC)
    spawn = Spawn(argv=("cat",), env={"PATH": os.defpath}, hold_stdin=True)
    shepherd = await Shepherd.start(spawn, link_fds=fds, obituary_fd=obituary_end)
    try:
        return sum(_pss_kib(pid) for pid in (shepherd.shepherd_pid, shepherd.init_pid))
    finally:
        await shepherd.aclose()
        for fd in (*fds, obituary, obituary_end):
            os.close(fd)


def _pss_kib(pid: int) -> int:
    with open(f"/proc/{pid}/smaps_rollup") as rollup:
        return next(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))


def _resident_kib() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024


def _row(work: str, kib: float) -> str:
    return json.dumps(
        {
            "work": work,
            "beside": None,
            "ours": rounded(kib),
            "peer": None,
            "unit": "KiB",
            "ratio": None,
        }
    )


if __name__ == "__main__":
    print(_row("memory of an idle connection", trio.run(_connections)))
    print(_row("memory of an idle Python process", trio.run(_processes)))
    print(_row("memory of shepherd and init, PSS", trio.run(_guards)))
