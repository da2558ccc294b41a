"""Large payloads, up to 1 GiB, and what small calls feel of them: on their connection, on another.

The role's and the node's limits are raised for it. The payload crosses a socket twice and lies in
the VM, in the role's pool, in the result region and in what waits for the socket: about six times
its size at once, which is looked at before it is begun.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from integration.bench.figures import single, size_text
from integration.cluster import Cluster, Driver, full

COPIES = 6
CONFIG = """
[node]
name = "large@127.0.0.1"
[limits]
outgoing_bytes_max = {outgoing}
[link]
result_bytes = {result}
[roles.echo]
command = ["build/bin/rb-echo"]
workers = 2
payload_bytes_max = {size}
pool_bytes = {pool}
"""

Say = Callable[[str], None]


def available_bytes() -> int:
    found = re.search(r"^MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def config(size: int) -> str:
    """Room for two of them in the pool and in each result region: a power of two times 4 KiB."""
    room = 1 << (2 * size - 1).bit_length()
    return CONFIG.format(size=size, outgoing=max(2 * size, 128 << 20), result=room, pool=room)


def rows(
    cluster: Cluster, load: Driver, other: Driver, say: Say, *, size: int, window_ms: int
) -> list[dict[str, Any]]:
    """`load` and `other` are two VMs: two connections."""
    if available_bytes() < COPIES * size:
        say(f"large: not {size_text(size)}, which takes {COPIES} times as much memory")
        return []
    bridge = cluster.start_bridge("large", cluster.config("large", config(size)))
    try:
        for driver in (load, other):
            driver.ask(f"bridge large {full('large')}")
            driver.ask("beside large 0 1 200")
        alone = _ask(load, 0, 1, window_ms)
        same = _ask(load, size, 1, window_ms)
        found: list[dict[str, int]] = []
        thread = threading.Thread(target=lambda: found.append(_ask(load, size, 0, window_ms)))
        thread.start()
        across = _ask(other, 0, 1, window_ms)
        thread.join()
    finally:
        cluster.stop(bridge)
    large_us = found[0]["large_us"]
    text = size_text(size)
    per_second = 2 * size / (large_us / 1e6) / (1 << 30) if large_us else 0.0
    errors = same["errors"] + found[0]["errors"] + across["errors"]
    made = [
        single(f"echo of {text}, median", None, large_us / 1e3, None, "ms"),
        single(f"echo of {text}, there and back", None, per_second, None, "GiB/s"),
        single(
            f"p99 of 16 B beside {text} on its connection", "alone", same["p99"], alone["p99"], "us"
        ),
        single(f"p99 of 16 B beside {text} on another", "alone", across["p99"], alone["p99"], "us"),
    ]
    for row in made:
        row["errors"] = errors
        say(f"{row['work']}: {row['ours']} {row['unit']}")
    return made


def _ask(driver: Driver, size: int, small: int, window_ms: int) -> dict[str, int]:
    word, *numbers = driver.ask(f"beside large {size} {small} {window_ms}").split()
    if word != "result":
        raise RuntimeError(" ".join(numbers))
    large, median, count, _p50, p99, errors = map(int, numbers)
    return {
        "large": large,
        "large_us": median // 1000,
        "small": count,
        "p99": p99 // 1000,
        "errors": errors,
    }
