"""A block's error comes out as itself; a task's comes in a group, as everywhere in trio."""

from __future__ import annotations

import pytest
import trio

from bridge.dist.nursery import block_nursery


async def fail() -> None:
    raise KeyError("task")


async def fail_in_the_block() -> None:
    async with block_nursery() as outer, block_nursery():
        outer.start_soon(trio.sleep_forever)
        raise ValueError("mine")


async def fail_in_a_task() -> None:
    async with block_nursery() as nursery:
        nursery.start_soon(fail)
        await trio.sleep_forever()


async def test_what_the_block_raises_is_raised_as_it_is() -> None:
    with pytest.raises(ValueError, match="mine"):
        await fail_in_the_block()


async def test_what_a_task_raises_is_raised_in_a_group() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await fail_in_a_task()
    assert isinstance(caught.value.exceptions[0], KeyError)


async def test_tasks_end_with_the_block() -> None:
    ended = trio.Event()

    async def run() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async with block_nursery() as nursery:
        nursery.start_soon(run)
        await trio.lowlevel.checkpoint()
    assert ended.is_set()
