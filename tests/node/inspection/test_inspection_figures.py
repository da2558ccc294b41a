"""What looking costs: sums over all processes are bounded in time, and lists let others run."""

from __future__ import annotations

import time
from typing import Any

import pytest
import trio
from inspect_support import atom, inspected_node

from bridge.node import ProcessHandle
from bridge.node.inspection import facts
from bridge.node.inspection.figures import Figures


class Crowd:
    """As many processes as take `cost_s` to look at."""

    def __init__(self, cost_s: float) -> None:
        self.cost_s = cost_s
        self.looked = 0

    def all(self) -> list[Any]:
        self.looked += 1
        time.sleep(self.cost_s)
        return []


def test_a_survey_that_took_long_is_kept_for_twenty_times_as_long() -> None:
    crowd = Crowd(cost_s=0.01)
    figures = Figures(crowd)  # type: ignore[arg-type]
    began = time.monotonic()
    while time.monotonic() < began + 0.15:
        figures.memory()
        figures.run_queue()
    assert crowd.looked == 1
    while time.monotonic() < began + 0.5:
        figures.memory()
    assert 2 <= crowd.looked <= 3


def test_a_quick_survey_is_made_anew_each_time() -> None:
    crowd = Crowd(cost_s=0)
    figures = Figures(crowd)  # type: ignore[arg-type]
    for _ in range(3):
        figures.memory()
    assert crowd.looked == 3


async def idle(me: ProcessHandle) -> None:
    await me.receive()


async def test_others_get_their_turn_while_a_long_list_is_made() -> None:
    async with inspected_node() as rpc:
        for _ in range(1000):
            await rpc.node.spawn(idle)
        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count_turns)
            await trio.lowlevel.checkpoint()
            before = turns
            arguments = (None, atom("memory"), atom("desc"), 5, None)
            dashboard = "Phoenix.LiveDashboard.SystemInfo"
            _, count, _ = await rpc(dashboard, "processes_callback", *arguments)
            assert count >= 1000
            assert turns - before >= 10
            nursery.cancel_scope.cancel()


STATUS = "Name:\tx\nVmRSS:\t  60 kB\nRssAnon:\t  10 kB\nRssFile:\t  20 kB\nRssShmem:\t  30 kB\n"


def test_resident_memory_is_told_apart_by_what_is_behind_it() -> None:
    told = facts.parse_resident(STATUS)
    assert (told.anonymous, told.files, told.shared) == (10_240, 20_480, 30_720)
    assert (told.total, told.own) == (61_440, 30_720)


@pytest.mark.parametrize("status", ["", "RssAnon:\n".replace("\n", "\t 0 kB\n")])
def test_a_process_that_is_gone_has_no_memory(status: str) -> None:
    assert facts.parse_resident(status).total == 0
    assert facts.resident(2**31 - 2).total == 0


def test_threads_are_the_interpreter_s_first_and_show_their_time() -> None:
    before = facts.threads()[0]
    began = time.process_time()
    while time.process_time() < began + 0.05:
        pass
    after = facts.threads()[0]
    assert before.name == after.name == "interpreter"
    assert after.on_cpu_ns - before.on_cpu_ns >= 40_000_000
