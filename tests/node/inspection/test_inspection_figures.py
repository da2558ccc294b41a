"""What looking costs: sums over all processes are bounded in time, and lists let others run."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from inspect_support import atom, inspected_node

from bridge.node import ProcessHandle
from bridge.node.inspection import facts, figures
from bridge.node.inspection.figures import Figures


class Clock:
    """Stands still but for `pass_ms`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ns = 1_000_000_000
        monkeypatch.setattr(figures, "time", SimpleNamespace(monotonic_ns=lambda: self.now_ns))

    def pass_ms(self, ms: int) -> None:
        self.now_ns += ms * 1_000_000


class Crowd:
    """As many processes as take `cost_ms` to look at."""

    def __init__(self, clock: Clock, cost_ms: int) -> None:
        self._clock = clock
        self._cost_ms = cost_ms
        self.looked = 0

    def all(self) -> list[Any]:
        self.looked += 1
        self._clock.pass_ms(self._cost_ms)
        return []


def test_a_survey_that_took_long_is_kept_for_twenty_times_as_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    crowd = Crowd(clock, cost_ms=10)
    told = Figures(crowd)  # type: ignore[arg-type]
    for _ in range(19):  # the survey itself took the first 10 of its 200 ms
        told.memory()
        told.run_queue()
        assert crowd.looked == 1
        clock.pass_ms(10)
    told.memory()
    assert crowd.looked == 2


def test_a_quick_survey_is_made_anew_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    crowd = Crowd(Clock(monkeypatch), cost_ms=1)
    told = Figures(crowd)  # type: ignore[arg-type]
    for _ in range(3):
        told.memory()
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
