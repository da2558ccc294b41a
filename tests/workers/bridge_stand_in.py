"""A bridge reduced to its shepherds: starts them, says who runs, and waits to be killed.

    python bridge_stand_in.py '{"argv": [...], "grace_s": 2.0, "count": 1, "uid": 65534, ...}'

Prints one JSON line: a list of {"mark", "shepherd", "init", "worker", "isolation"}.
"""

from __future__ import annotations

import json
import os
import sys

import structlog
import trio
from shepherd_support import Link, read_line

from bridge.workers.shepherd import Shepherd


async def main(order: dict[str, object]) -> None:
    running = []
    family = []
    for _ in range(int(str(order.get("count", 1)))):
        link = Link()
        spawn = link.spawn(
            *order["argv"],  # type: ignore[misc]
            grace_s=order.get("grace_s", 2.0),
            namespaces=order.get("namespaces", True),
        )
        shepherd = await Shepherd.start(spawn, link_fds=link.fds, obituary_fd=link.obituary_end)
        link.close_obituary_end()
        out = shepherd.take_stdout()
        assert await read_line(out) == "ready"
        running.append((shepherd, link, out))
        family.append(
            {
                "mark": link.mark,
                "shepherd": shepherd.shepherd_pid,
                "init": shepherd.init_pid,
                "worker": shepherd.pid,
                "namespace": shepherd.isolation.pid_namespace,
                "user_namespace": shepherd.isolation.user_namespace,
                "namespace_error": shepherd.isolation.namespace_error,
            }
        )
    print(json.dumps(family), flush=True)
    for shepherd, _, _ in running:
        await shepherd.wait()
    await trio.sleep_forever()


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    order = json.loads(sys.argv[1])
    if limit := order.get("write_first"):  # of a user namespace of our own
        path, text = limit
        with open(path, "w") as file:
            file.write(text)
    if (uid := order.get("uid")) is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    trio.run(main, order)
