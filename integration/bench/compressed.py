"""What compressed payloads save over a narrow wire, and what they cost the worker.

    python -m integration.bench.compressed [--bytes-per-s N]...     0: the wire is the loopback

A caller in a BEAM sends a table and gets it back (rb-echo), plain and as zstd frames, through
`ringbridge chaos proxy` with so many bytes a second on each way (12,500,000: 100 Mbit/s; the proxy
is Python, and passes no more than some 30 MB/s). The caller's own compressing and decompressing is
not in the call's time: it is shown beside, by the same library in C, since OTP has it from 28 on
only. The worker's time is the kernel's account.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from integration.bench.costs import cpu_us, family
from integration.bench.figures import middle
from integration.cluster import Cluster, Driver, exit_on_signals, full

ROWS, ROUNDS, LEVEL = 40_000, 7, 1
WIRES = (12_500_000, 0)
CONFIG = """
[node]
name = "narrow@127.0.0.1"
[roles.echo]
command = ["build/bin/rb-echo"]
"""
CALLER = """
[folder, node] = System.argv()
payloads = for name <- ["plain", "zstd"], into: %{}, do: {name, File.read!(Path.join(folder, name))}
target = {Ringbridge.JobDispatcher, String.to_atom(node)}
IO.puts("ready")
for line <- IO.stream(:stdio, :line) do
  [there, back] = String.split(line)
  options = %{encoding: %{"plain" => :identity, "zstd" => :zstd}[there]}
  options = if back == "zstd", do: Map.put(options, :accept, :zstd), else: options
  payload = payloads[there]
  request = {:submit, :echo, payload, options}
  {us, answer} = :timer.tc(fn -> GenServer.call(target, request, 120_000) end)
  bytes = case answer do
    {:ok, {:zstd, bytes}} -> bytes
    {:ok, bytes} when back == "plain" -> true = bytes == payloads["plain"]; bytes
  end
  IO.puts("#{us} #{byte_size(payload) + byte_size(bytes)}")
end
"""
WAYS = (("plain", "plain"), ("zstd", "plain"), ("plain", "zstd"), ("zstd", "zstd"))


def table() -> bytes:
    """Readings as JSON lines, from a seed: words that come again, digits that do not."""
    dice = random.Random(1)
    places = [f"station-{dice.randrange(10_000):04}" for _ in range(200)]
    rows = (
        {
            "at": 1_760_000_000 + 5 * row,
            "place": dice.choice(places),
            "temperature": round(dice.gauss(12, 8), 2),
            "wind": round(dice.expovariate(0.2), 1),
            "ok": dice.random() > 0.02,
        }
        for row in range(ROWS)
    )
    return "\n".join(json.dumps(row) for row in rows).encode()


class Library:
    """libzstd, as a caller's node has it."""

    def __init__(self) -> None:
        self._zstd = ctypes.CDLL("libzstd.so.1")
        for function in ("ZSTD_compress", "ZSTD_decompress", "ZSTD_compressBound"):
            getattr(self._zstd, function).restype = ctypes.c_size_t

    def compress(self, data: bytes) -> bytes:
        most = self._zstd.ZSTD_compressBound(ctypes.c_size_t(len(data)))
        room = ctypes.create_string_buffer(most)
        n = ctypes.c_size_t
        size = self._zstd.ZSTD_compress(room, n(most), data, n(len(data)), LEVEL)
        return room.raw[:size]

    def decompress(self, frame: bytes, size: int) -> None:
        room, n = ctypes.create_string_buffer(size), ctypes.c_size_t
        if self._zstd.ZSTD_decompress(room, n(size), frame, n(len(frame))) != size:
            raise ValueError("the frame does not hold what went in")


def milliseconds(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        work()
        taken.append((time.perf_counter() - begun) * 1e3)
    return middle(taken) or 0.0


def narrow(cluster: Cluster, bytes_per_s: int) -> str:
    """The port of an epmd whose callers come through a wire of that width."""
    main = "import sys; from bridge.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", main, "chaos", "proxy", full("narrow")]
    proxy = cluster.spawn([*command, "--bytes-per-s", str(bytes_per_s)], log="proxy", pipes=True)
    assert proxy.stdout is not None
    for line in proxy.stdout:
        if found := re.search(r"ERL_EPMD_PORT=(\d+)", line):
            return found[1]
    raise RuntimeError(f"the proxy did not start{cluster.tail('proxy')}")


def caller(cluster: Cluster, folder: Path, number: int, port: str) -> Driver:
    flags = f"-name caller{number}@127.0.0.1"
    process = cluster.spawn(
        ["elixir", "--erl", flags, "-e", CALLER, str(folder), full("narrow")],
        log="caller",
        env={"ERL_EPMD_PORT": port},
        pipes=True,
    )
    driver = Driver(process, lambda: cluster.tail("caller"))
    driver.expect()
    return driver


def worker_of(bridge: subprocess.Popen[str]) -> int:
    found = [p for p in family(bridge.pid) if _name(p) == "rb-echo"]
    return max(found)


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bytes-per-s", type=int, action="append", metavar="N")
    wires = parser.parse_args().bytes_per_s or WIRES
    plain, library = table(), Library()
    frame = library.compress(plain)
    print(f"a table of {len(plain):,} bytes, as a frame {len(frame):,}; median of {ROUNDS} calls")
    there = milliseconds(lambda: library.compress(plain))
    back = milliseconds(lambda: library.decompress(frame, len(plain)))
    print(f"the caller's own: {there:.1f} ms to compress, {back:.1f} ms to decompress\n")
    print("| wire, bytes/s | there | back | call, ms | bytes on the wire | worker's CPU, ms |")
    print("|---|---|---|---|---|---|")
    exit_on_signals()
    with Cluster() as cluster:
        (cluster.directory / "plain").write_bytes(plain)
        (cluster.directory / "zstd").write_bytes(frame)
        bridge = cluster.start_bridge("narrow", cluster.config("narrow", CONFIG))
        for number, wire in enumerate(wires):
            port = narrow(cluster, wire) if wire else str(cluster.epmd_port)
            driver = caller(cluster, cluster.directory, number, port)
            for way in WAYS:
                driver.ask(" ".join(way))  # the first call of a way is another thing
                worker = worker_of(bridge)
                before, taken, crossed = cpu_us(worker), [], 0
                for _ in range(ROUNDS):
                    us, crossed = map(int, driver.ask(" ".join(way)).split())
                    taken.append(us / 1e3)
                spent = (cpu_us(worker) - before) / ROUNDS / 1e3
                width = f"{wire:,}" if wire else "loopback"
                row = f"{middle(taken):.1f} | {crossed:,} | {spent:.1f}"
                print(f"| {width} | {way[0]} | {way[1]} | {row} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
