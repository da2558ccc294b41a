"""The BEAM that tests drive: nothing of one test reaches the next one in it."""

from __future__ import annotations

import pytest
import trio

from bridge.testing import Beam
from bridge.testing.beam import Language
from bridge.testing.plugin import StartBeam

WORDS: dict[Language, dict[str, str]] = {
    "elixir": {
        "bind": "bound = self()",
        "bound": "bound",
        "late": "me = self(); spawn(fn -> Process.sleep(200); send(me, :late) end); send(me, :now)",
        "left": "Process.sleep(400); Process.info(self(), [:messages, :monitors, :trap_exit])",
        "nothing": "[messages: [], monitors: [], trap_exit: false]",
        "watch": "Process.flag(:trap_exit, true); Process.monitor(:kernel_sup)",
        "end": "Process.exit(self(), :kill)",
    },
    "erlang": {
        "bind": "Bound = self()",
        "bound": "Bound",
        "late": "Me = self(), spawn(fun() -> timer:sleep(200), Me ! late end), Me ! now",
        "left": "timer:sleep(400), process_info(self(), [messages, monitors, trap_exit])",
        "nothing": "[{messages,[]},{monitors,[]},{trap_exit,false}]",
        "watch": "process_flag(trap_exit, true), monitor(process, kernel_sup)",
        "end": "exit(self(), kill)",
    },
}


@pytest.fixture(params=list(WORDS))
def driven(request: pytest.FixtureRequest, start_beam: StartBeam) -> tuple[Beam, dict[str, str]]:
    return start_beam(language=request.param), WORDS[request.param]


async def test_one_process_evaluates_until_it_is_to_be_a_new_one(
    driven: tuple[Beam, dict[str, str]],
) -> None:
    beam, words = driven
    bound = await beam.evaluate(words["bind"])
    assert await beam.evaluate(words["bound"]) == bound
    for leaving in ("late", "watch"):
        await beam.evaluate(words[leaving])
    assert await beam.evaluate(words["left"]) != words["nothing"]
    for leaving in ("late", "watch"):
        await beam.evaluate(words[leaving])
    await beam.anew()
    assert await beam.evaluate(words["left"]) == words["nothing"]
    assert await beam.evaluate(words["bind"]) != bound


async def test_a_beam_ends_with_the_process_that_evaluates(
    driven: tuple[Beam, dict[str, str]],
) -> None:
    beam, words = driven
    with pytest.raises(trio.BrokenResourceError, match="killed"):
        await beam.evaluate(words["end"])
