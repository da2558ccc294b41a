"""A thousand workers at once: all there, small, and nothing left of them."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator

import pytest
import trio
from shepherd_support import (
    Link,
    children,
    marked_memfds,
    marked_processes,
    open_descriptors,
    program,
    read_proc,
    started,
)

from bridge.workers.shepherd import Shepherd

WORKERS = 1000
AT_ONCE = 20  # starts, and ends, under way
FDS_EACH = 8
PAIR_MAX_KIB = 300  # of shepherd and init


@pytest.fixture
def enough_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = WORKERS * FDS_EACH + 200
    if hard not in (-1, resource.RLIM_INFINITY) and hard < needed:
        pytest.skip(f"{needed} descriptors are needed, the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def pss_kib(pid: int) -> int:
    return int(read_proc(pid, "smaps_rollup").split(b"Pss:")[1].split()[0])


@pytest.mark.timeout(120)
async def test_a_thousand_workers_live_at_once_and_nothing_is_left_of_them(
    enough_descriptors: None,
) -> None:
    async with started(program("exits")) as (first, _):  # so that what is made once is made
        await first.wait()
    before = open_descriptors(), children()
    link, alive = Link(), []
    spawn = link.spawn(program("waits"))
    numbers = iter(range(WORKERS))

    async def start() -> None:
        for _ in numbers:
            shepherd = await Shepherd.start(spawn, link_fds=link.fds, obituary_fd=link.obituary_end)
            alive.append(shepherd)

    async def end() -> None:
        while alive:
            await alive.pop().aclose()

    try:
        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(start)
        assert len(alive) == WORKERS
        assert len(marked_processes(link.mark)) == WORKERS
        assert len({shepherd.pid for shepherd in alive}) == WORKERS
        if os.access(f"/proc/{alive[0].init_pid}/smaps_rollup", os.R_OK):
            pairs = [pss_kib(s.shepherd_pid) + pss_kib(s.init_pid) for s in alive[::50]]
            print(f"{sum(pairs) / len(pairs):.0f} KiB PSS a pair")
            assert max(pairs) <= PAIR_MAX_KIB
    finally:
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                for _ in range(AT_ONCE):
                    nursery.start_soon(end)
    assert marked_processes(link.mark) == {}
    link.close()
    assert marked_memfds(link.mark) == []
    assert (open_descriptors(), children()) == before
